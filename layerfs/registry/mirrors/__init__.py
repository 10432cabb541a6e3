"""Where what a registry has may be asked for besides: mirrors, caches, other names of it.

`values` are what podman's registries.conf and containerd's hosts.toml say, as `registries_conf` and
`hosts_toml` read them and `places` finds them; `endpoints` decides by them who is asked, in which order.
"""
