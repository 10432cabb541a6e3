"""Which addresses a connection may lead to, by whose wish it is made. Pure.

A user names a registry, so that may be anywhere. Where a registry redirects to, its token server and the
``urls`` of an image are named by strangers. They must not make this machine call services that only it or its
network can reach: such an address has to be public, or where the registry itself is, or in a network
of the configuration. What counts is the address, at each hop, when it is connected to: names and spellings
lie.
"""

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final, Literal

import msgspec

Network = IPv4Network | IPv6Network
Scope = Literal["public", "private", "link-local", "loopback"]

_THIS_HOST: Final = IPv4Network("0.0.0.0/8")
"""RFC 1122, section 3.2.1.3; Linux connects 0.0.0.0 to this machine."""
_NAT64: Final = IPv6Network("64:ff9b::/96")
"""RFC 6052: an IPv4 address in its last 32 bits."""


def scope_of(address: str) -> Scope:
    """Say from where *address*, as text without a name, can be reached. Raises ValueError."""
    return _scope(_parsed(address))


def site_of(address: str) -> str:
    """Return what counts as one server's: an IPv4 address, 64 bits of an IPv6 one. Raises ValueError.

    Whoever has one address of a /64 has them all (RFC 6177 gives each site that or more).
    """
    ip = _parsed(address)
    return str(ip) if isinstance(ip, IPv4Address) else str(IPv6Network((ip, 64), strict=False))


def _scope(ip: IPv4Address | IPv6Address) -> Scope:
    if ip.is_loopback or ip.is_unspecified or ip in _THIS_HOST:
        return "loopback"
    if ip.is_link_local:
        return "link-local"
    return "public" if ip.is_global and not ip.is_multicast else "private"


def common_scope(addresses: Iterable[str]) -> Scope:
    """Return the scope of a host with these addresses; one that has several counts as public."""
    scopes = {scope_of(address) for address in addresses}
    return scopes.pop() if len(scopes) == 1 else "public"


def literal_address(host: str) -> str | None:
    """Return the address that *host* spells, as ``127.1`` or ``0x7f000001`` do too; None for a name."""
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return str(IPv4Address(socket.inet_aton(host)))
    except (OSError, UnicodeError):
        return None


class Reach(msgspec.Struct, frozen=True):
    """Addresses that strangers may lead to: public ones, those of *home*, those in *networks*."""

    home: Scope
    """Where the registry is."""
    networks: tuple[Network, ...] = ()

    def allows(self, address: str) -> bool:
        """Say whether *address* may be connected to."""
        ip = _parsed(address)
        return _scope(ip) in ("public", self.home) or any(ip in network for network in self.networks)


def _parsed(address: str) -> IPv4Address | IPv6Address:
    """Read an address; of an IPv6 one that stands for an IPv4 one return that. Raises ValueError."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip in _NAT64:
            return IPv4Address(ip.packed[-4:])
        return ip.ipv4_mapped or ip.sixtofour or ip
    return ip
