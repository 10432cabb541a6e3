"""What a store has, for other nodes: the pull half of the distribution specification, read-only.

`layerfs.serve.asks` and `layerfs.serve.ranges` decide what is asked for, `layerfs.serve.names` and
`layerfs.serve.distribution` what the store answers, `layerfs.serve.exchange` and `layerfs.serve.server` move
the bytes under the limits of `layerfs.serve.limits`. Whoever asks is a stranger: nothing that he sends
becomes a path, costs memory without end or holds a place for long. Never imports the registry or the mount.
"""
