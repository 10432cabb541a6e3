"""Which proxy stands before an origin: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY. Pure.

httpx reads these too, but not for transports of our own, and knows no address ranges in NO_PROXY.
The rules are Go's (golang.org/x/net/http/httpproxy), which containerd, podman and docker follow.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network

from layerfs.registry.weborigin import WebOrigin


def proxy_for(origin: WebOrigin, environment: Mapping[str, str]) -> str | None:
    """Return the URL of the proxy for *origin*, None to connect directly. It may hold a password."""
    if origin.is_loopback:
        return None
    names = [f"{origin.scheme.upper()}_PROXY", f"{origin.scheme}_proxy", "ALL_PROXY", "all_proxy"]
    if "REQUEST_METHOD" in environment:  # in a CGI, HTTP_PROXY is the caller's header "Proxy"
        names = names[1:]
    proxy = next((environment[name] for name in names if environment.get(name)), None)
    if proxy is None or _excluded(origin, environment.get("NO_PROXY") or environment.get("no_proxy") or ""):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _excluded(origin: WebOrigin, no_proxy: str) -> bool:
    return any(_matches(origin, rule.strip().lower()) for rule in no_proxy.split(",") if rule.strip())


def _matches(origin: WebOrigin, rule: str) -> bool:
    if rule == "*":
        return True
    if "/" in rule:
        return _in_network(origin.host, rule)
    host, port = _split_port(rule)
    if port and port != str(origin.port):
        return False
    name = origin.host.lower().rstrip(".")
    if host.startswith(("*.", ".")):
        return name.endswith(host.lstrip("*"))
    if _same_address(name, host):
        return True
    return name == host or (not _is_address(name) and name.endswith(f".{host}"))


def _split_port(rule: str) -> tuple[str, str]:
    if rule.startswith("["):
        host, _, port = rule[1:].partition("]")
        return host, port.removeprefix(":")
    if rule.count(":") == 1:
        host, _, port = rule.partition(":")
        return host, port
    return rule, ""  # a name, or an IPv6 address without brackets


def _in_network(host: str, rule: str) -> bool:
    try:
        return ip_address(host) in ip_network(rule, strict=False)
    except ValueError:
        return False


def _same_address(host: str, other: str) -> bool:
    try:
        return ip_address(host) == ip_address(other)
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
