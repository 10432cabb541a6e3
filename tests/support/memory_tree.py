"""Trees of nodes for tests of the kernel edge: one in memory for every behaviour, one that shows a directory.

What is not here yet comes when a file of its name appears in the control directory: empty for success,
with the name of an error class for a failure.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_IFDIR, S_IFLNK, S_IFREG

import trio

from layerfs import errors
from layerfs.needs import Need, TagNeed
from layerfs.oci import Repository
from layerfs.view.inodes import InodeTable
from layerfs.view.nodes import FOREVER, Attributes, BytesContent, Content, FileContent, Node

POLL_SECONDS = 0.01
MANY = 1000
BIG_BYTES = 5 * 1024 * 1024 + 123


def need(name: str) -> TagNeed:
    return TagNeed(Repository.parse("localhost/memory").with_tag(name))


@dataclass
class ControlledProvider:
    """Meets a need once its file is in *control*."""

    control: Path
    met: set[str] = field(default_factory=set)
    asked: Counter[str] = field(default_factory=Counter)
    _flights: dict[str, trio.Event] = field(default_factory=dict)

    async def obtain(self, need: Need) -> None:
        assert isinstance(need, TagNeed)
        name = str(need.tag).rpartition(":")[2]
        self.asked[name] += 1
        landed = self._flights.get(name)
        if landed is None:
            landed = self._flights[name] = trio.Event()
            trio.lowlevel.spawn_system_task(self._watch, name)
        await landed.wait()
        failure = (self.control / name).read_text()
        if failure == "bug":
            raise ZeroDivisionError("planted in the provider")
        if failure:
            raise getattr(errors, failure)(f"{name}: refused by the test")
        self.met.add(name)

    async def _watch(self, name: str) -> None:
        """Look for the file, once for all who wait for it."""
        while not (self.control / name).exists():  # noqa: ASYNC110 - set by another process
            await trio.sleep(POLL_SECONDS)
        self._flights.pop(name).set()


@dataclass(frozen=True)
class MemoryTree:
    root: Node
    inodes: InodeTable


class MemoryNode(Node):
    """A node whose answers are given to it."""

    def __init__(self, ino: int, kind: int, mode: int = 0o644, *, lasting: bool = True) -> None:
        super().__init__(ino)
        self.kind = kind
        self.mode = mode
        self.lasting = lasting
        self.size: Callable[[], int] = lambda: 0
        self.names: dict[bytes, Node] = {}
        self.target = b""
        self.content: Callable[[], Content] = lambda: BytesContent(b"")
        self.attrs: dict[bytes, bytes] = {}
        self.needed: Callable[[], Need | None] = lambda: None
        self.breaks: set[str] = set()

    @property
    def entry_timeout(self) -> float:
        return FOREVER

    @property
    def attribute_timeout(self) -> float:
        return FOREVER if self.lasting else 0.0

    @property
    def negative_timeout(self) -> float:
        return FOREVER if self.lasting else 0.0

    def _break(self, operation: str) -> None:
        if operation in self.breaks:
            raise ZeroDivisionError(f"planted in {operation}")

    def attributes(self) -> Attributes:
        self._break("attributes")
        size = self.size()
        return Attributes(
            mode=self.kind | self.mode,
            size=size,
            blocks=(size + 511) // 512,
            mtime_ns=1_600_000_000_123_456_789,
            atime_ns=1_600_000_000_000_000_001,
            ctime_ns=1_600_000_000_000_000_002,
        )

    def lookup(self, name: bytes) -> Node | Need | None:
        self._break("lookup")
        return self.needed() or self.names.get(name)

    def entries(self) -> Sequence[tuple[bytes, Node]] | Need:
        self._break("entries")
        return self.needed() or list(self.names.items())

    def readlink(self) -> bytes | Need:
        self._break("readlink")
        return self.needed() or self.target

    def open(self) -> Content | Need:
        self._break("open")
        return self.needed() or self.content()

    def xattrs(self) -> Mapping[bytes, bytes]:
        self._break("xattrs")
        return self.attrs

    def forgotten(self) -> None:
        self._break("forgotten")


class Builder:
    """Makes memory nodes below a root."""

    def __init__(self, provider: ControlledProvider) -> None:
        self.inodes = InodeTable()
        self.provider = provider
        self.root = MemoryNode(1, S_IFDIR, 0o755)
        self.inodes.set_root(self.root)
        self._next = 100

    def add(self, parent: MemoryNode, name: str, kind: int, mode: int, *, lasting: bool = True) -> MemoryNode:
        self._next += 1
        node = MemoryNode(self._next, kind, mode, lasting=lasting)
        parent.names[os.fsencode(name)] = node
        return node

    def directory(self, name: str, parent: MemoryNode | None = None, *, lasting: bool = True) -> MemoryNode:
        return self.add(parent or self.root, name, S_IFDIR, 0o755, lasting=lasting)

    def text(
        self, name: str, data: bytes, parent: MemoryNode | None = None, *, lasting: bool = True
    ) -> MemoryNode:
        node = self.add(parent or self.root, name, S_IFREG, 0o644, lasting=lasting)
        node.size = lambda: len(data)
        node.content = lambda: BytesContent(data)
        return node

    def disk(self, name: str, path: Path, parent: MemoryNode | None = None) -> MemoryNode:
        node = self.add(parent or self.root, name, S_IFREG, 0o644)
        size = path.stat().st_size
        node.size = lambda: size
        node.content = lambda: FileContent(-1, os.fsencode(path), size)
        return node

    def link(self, name: str, target: bytes, parent: MemoryNode | None = None) -> MemoryNode:
        node = self.add(parent or self.root, name, S_IFLNK, 0o777)
        node.target = target
        return node

    def waits(self, node: MemoryNode, name: str) -> MemoryNode:
        wanted = need(name)
        node.needed = lambda: None if name in self.provider.met else wanted
        return node


def memory_tree(
    provider: ControlledProvider, scratch: Path, stats: Callable[[], dict[str, int]]
) -> MemoryTree:
    """Build the tree that the tests of tests/fuse know; *scratch* gets the bytes of its files on disk."""
    build = Builder(provider)
    plain = build.directory("plain")
    build.text("hello", b"hello\n", plain)
    build.text("empty", b"", plain)
    build.text("large-text", bytes(range(256)) * 1024, plain)
    build.link("link", b"hello", plain)
    (scratch / "big").write_bytes(os.urandom(BIG_BYTES))
    build.disk("big", scratch / "big", plain)
    (scratch / "small").write_bytes(os.urandom(5000))
    build.disk("small", scratch / "small", plain)
    (scratch / "gone").write_bytes(b"gone")
    build.disk("gone", scratch / "gone", plain)
    (scratch / "gone").unlink()
    many = build.directory("many")
    for number in range(MANY):
        build.text(f"file-{number:05}", b"%d\n" % number, many)

    changing = build.directory("changing", lasting=False)
    stats_file = build.text("stats.json", b"", changing, lasting=False)

    def text() -> bytes:
        return json.dumps(stats() | {"inodes": len(build.inodes)}).encode() + b"\n"

    stats_file.size = lambda: len(text())
    stats_file.content = lambda: BytesContent(text())

    slow = build.directory("slow")
    build.text("ready", b"ready\n", slow)
    for number in range(3):
        inside = build.waits(
            build.directory(f"directory-{number}", slow, lasting=False), f"directory-{number}"
        )
        build.text("inside", b"inside\n", inside)
        build.waits(build.text(f"file-{number}", b"fetched\n", slow), f"file-{number}")
        build.waits(build.link(f"link-{number}", b"ready", slow), f"link-{number}")

    build.waits(build.disk("large", scratch / "big", slow), "large")

    attributes = build.directory("xattrs")
    with_some = build.text("some", b"x", attributes)
    with_some.attrs = {b"user.one": b"1", b"trusted.two": b"\0two", b"user.empty": b""}
    attributes.attrs = {b"trusted.overlay.opaque": b"y"}
    build.text("none", b"x", attributes)

    broken = build.directory("broken")
    for operation in ("lookup", "entries"):
        build.directory(operation, broken).breaks = {operation}
    for operation in ("attributes", "open", "xattrs", "forgotten"):
        build.text(operation, b"x" * 100, broken).breaks = {operation}
    build.link("readlink", b"x", broken).breaks = {"readlink"}
    half = build.directory("half", broken)
    build.text("good", b"good\n", half)
    build.text("bad", b"bad\n", half).breaks = {"attributes"}
    build.waits(build.text("provider", b"x", broken), "provider-bug")
    endless = build.text("endless", b"x", broken)
    endless.needed = lambda: need("endless")
    return MemoryTree(build.root, build.inodes)


class DirectoryNode(Node):
    """A file of a directory on disk, shown as it is."""

    __slots__ = ("path", "st", "tree")

    def __init__(self, ino: int, tree: InodeTable, path: bytes) -> None:
        super().__init__(ino)
        self.tree = tree
        self.path = path
        self.st: os.stat_result | None = None

    @property
    def negative_timeout(self) -> float:
        return FOREVER

    def attributes(self) -> Attributes:
        st = self.st = self.st or os.lstat(self.path)
        return Attributes(
            st.st_mode,
            st.st_size,
            st.st_nlink,
            st.st_uid,
            st.st_gid,
            st.st_rdev,
            st.st_blocks,
            st.st_atime_ns,
            st.st_mtime_ns,
            st.st_ctime_ns,
        )

    def _child(self, name: bytes, ino: int) -> "DirectoryNode":
        path = self.path + b"/" + name
        return self.tree.intern(ino + 1000, path, lambda number: DirectoryNode(number, self.tree, path))

    def lookup(self, name: bytes) -> Node | Need | None:
        try:
            st = os.lstat(self.path + b"/" + name)
        except FileNotFoundError:
            return None
        node = self._child(name, st.st_ino)
        node.st = st
        return node

    def entries(self) -> Sequence[tuple[bytes, Node]] | Need:
        with os.scandir(self.path) as found:
            return [(entry.name, self._child(entry.name, entry.inode())) for entry in found]

    def readlink(self) -> bytes | Need:
        return os.readlink(self.path)

    def open(self) -> Content | Need:
        return FileContent(-1, self.path, self.attributes().size)

    def xattrs(self) -> Mapping[bytes, bytes]:
        return {
            os.fsencode(name): os.getxattr(self.path, name, follow_symlinks=False)
            for name in os.listxattr(self.path, follow_symlinks=False)
        }


def directory_tree(path: Path) -> MemoryTree:
    """Show *path* as it is."""
    inodes = InodeTable()
    root = DirectoryNode(1, inodes, os.fsencode(path))
    inodes.set_root(root)
    return MemoryTree(root, inodes)
