"""Nodes of a fleet on one machine: network namespaces on a bridge, each with an address of its own."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fleet:
    """A bridge, whose own address leads to this machine, and the namespaces on it."""

    host: str
    """The address of this machine, for nodes."""
    nodes: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One network namespace."""

    namespace: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What is put in front of a command that runs there."""
        return ("ip", "netns", "exec", self.namespace)


@contextlib.contextmanager
def fleet(number: int, name: str) -> Iterator[Fleet]:
    """Make *number* nodes for a block; *name*, five characters at most, tells them from those of others.

    Needs root. Raises CalledProcessError where namespaces cannot be made.
    """
    own = os.getpid()
    bridge, subnet = f"{name}b", f"10.{200 + own % 50}.{own // 50 % 250}"  # others may have a fleet beside us
    nodes = tuple(Node(f"{name}{index}", f"{subnet}.{index + 2}") for index in range(number))
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{subnet}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for index, node in enumerate(nodes):
            outer = f"{name}v{index}"
            _ip("netns", "add", node.namespace)
            _ip("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", node.namespace)
            _ip("link", "set", outer, "master", bridge, "up")
            _ip("-n", node.namespace, "addr", "add", f"{node.address}/24", "dev", "eth0")
            _ip("-n", node.namespace, "link", "set", "eth0", "up")
            _ip("-n", node.namespace, "link", "set", "lo", "up")
        yield Fleet(f"{subnet}.1", nodes)
    finally:
        for node in nodes:
            subprocess.run(["ip", "netns", "del", node.namespace], capture_output=True)
        subprocess.run(["ip", "link", "del", bridge], capture_output=True)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
