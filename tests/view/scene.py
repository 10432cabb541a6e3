"""A store on disk with images of one's choice, and a tree over it: nodes are tested against real files."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from layerfs.needs import Need
from layerfs.oci import Platform, Repository, stack_digest
from layerfs.oci.digest import Digest
from layerfs.store import ImageStorage
from layerfs.view import tree
from layerfs.view.directory import Listing
from layerfs.view.nodes import BytesContent, FileContent, Node
from tests.support.canary import Fact, Snapshot
from tests.support.images import Built, BuiltImage, BuiltLayer, Entry, layer

AMD64 = Platform("linux", "amd64")
ARM64 = Platform("linux", "arm64")
DEMO = Repository.of("localhost:5000", "team/demo")
MOUNTPOINT = "/mnt/images"


class Status:
    """A status source that tells a story."""

    def __init__(self) -> None:
        self.text = b'{"state": "idle"}\n'

    def read(self) -> bytes:
        return self.text

    def events(self) -> bytes:
        return b"{}\n"

    def metrics(self) -> bytes:
        return b"requests 1\n"


@dataclass(frozen=True)
class MadeLayer:
    """A layer and the entries that it was made of."""

    built: BuiltLayer
    entries: tuple[Entry, ...]

    @property
    def digest(self) -> Digest:
        return self.built.digest


def made(*entries: Entry, command: str = "") -> MadeLayer:
    """Build a layer and remember its entries."""
    return MadeLayer(layer(*entries, command=command), entries)


class Scene:
    """One store and one tree of it."""

    def __init__(self, directory: Path, mountpoint: str = MOUNTPOINT, platform: Platform = AMD64) -> None:
        self.storage = ImageStorage(directory)
        self.status = Status()
        self.mountpoint = mountpoint
        self.platform = platform
        self.mount()

    def mount(self, *, lazy: bool = True) -> None:
        """Make a new tree, as a restarted daemon would."""
        self.tree = tree.build(self.storage, self.mountpoint, self.platform, self.status, lazy=lambda _: lazy)

    def close(self) -> None:
        """End the workers of the store."""
        self.storage.close()

    # The store

    def knows(self, image: Built, tag: str | None = "latest", repository: Repository = DEMO) -> None:
        """Put the documents of *image* into the store, and a tag."""
        if tag is not None:
            self.storage.refs.write(repository.with_tag(tag), image.digest)
        for document in image.manifests():
            self.storage.save_manifest(document.manifest, document.digest)
            if isinstance(document, BuiltImage):
                self.storage.save_config(document.config, document.config_digest)

    def has_blob(self, *layers: MadeLayer) -> None:
        """Put the compressed blobs into the store."""
        for one in layers:
            download = self.storage.stage_layer_download(one.digest, one.built.size)
            download.file.write(one.built.blob)
            download.commit()

    def has(self, *layers: MadeLayer) -> None:
        """Extract layers into the store."""
        for one in layers:
            self.has_blob(one)
            self.storage.extract_layer(one.digest, self.storage.layer_tarball_path(one.digest))

    def has_cover(self, *layers: MadeLayer) -> Path:
        """Publish the cover of a stack."""
        return self.storage.publish_cover([one.digest for one in layers])

    # The tree

    def find(self, *names: str | bytes) -> Node | Need | None:
        """Look names up one below the other, as the kernel would; stop at what is no directory entry."""
        node: Node | Need | None = self.tree.root
        for name in names:
            assert isinstance(node, Node), f"{name!r} looked up in {node}"
            node = node.lookup(os.fsencode(name))
        return node

    def node(self, *names: str | bytes) -> Node:
        """Return the node that the names lead to."""
        found = self.find(*names)
        assert isinstance(found, Node), f"{names}: {found}"
        return found

    def image(self, image: Built, *names: str | bytes, repository: Repository = DEMO) -> Node:
        """Return a node below the directory of an image."""
        path = repository.path.split("/")
        return self.node("images", repository.registry, *path[:-1], f"{path[-1]}@{image.digest}", *names)

    def layer(self, one: MadeLayer, *names: str | bytes) -> Node:
        """Return a node below the directory of a layer."""
        return self.node("layers", one.digest.name, *names)


def names(listing: object) -> list[bytes]:
    """Return the names of a listing, sorted; fails on a need."""
    assert isinstance(listing, Sequence | Listing), listing
    return sorted(name for name, _ in listing)


Opened = Callable[[Node], object]
"""Opens a file; may wait."""


def read(node: Node, opened: Opened = lambda node: node.open()) -> bytes:
    """Read a file as the edge does."""
    content = opened(node)
    if isinstance(content, BytesContent):
        return content.data
    assert isinstance(content, FileContent), content
    fd = os.open(content.path, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=content.dir_fd)
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    assert len(data) == content.size
    return data


def stack_id(*layers: MadeLayer) -> str:
    """Return the id of a stack, base first."""
    return stack_digest(one.digest for one in layers).short_id


def show(node: Node, opened: Opened = lambda node: node.open()) -> Snapshot:
    """Describe what the kernel would see below *node*, as `canary.snapshot` does of a mounted tree."""
    nodes = dict(_walk(b"", node))
    places: dict[int, list[bytes]] = {}
    for path, one in sorted(nodes.items()):
        if not stat.S_ISDIR(one.attributes().mode):
            places.setdefault(one.ino, []).append(path)
    return {path: _fact(one, places.get(one.ino, []), opened) for path, one in nodes.items()}


def _walk(path: bytes, node: Node) -> Iterator[tuple[bytes, Node]]:
    yield path, node
    if stat.S_ISDIR(node.attributes().mode):
        listing = node.entries()
        assert isinstance(listing, Sequence | Listing), listing
        for name, child in listing:
            assert isinstance(child, Node)
            assert node.lookup(name) is child
            yield from _walk(path + b"/" + name if path else name, child)


def _fact(node: Node, places: list[bytes], opened: Opened) -> Fact:
    found = node.attributes()
    kind = stat.S_IFMT(found.mode)
    assert found.blocks == (found.size + 511) // 512
    target = node.readlink() if kind == stat.S_IFLNK else None
    assert target is None or isinstance(target, bytes)
    return Fact(
        kind=stat.filemode(found.mode)[0],
        mode=stat.S_IMODE(found.mode),
        owner=(found.uid, found.gid),
        mtime_ns=found.mtime_ns,
        size=found.size if kind in (stat.S_IFREG, stat.S_IFLNK) else None,
        device=found.rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else None,
        target=target,
        content=hashlib.sha256(read(node, opened)).hexdigest() if kind == stat.S_IFREG else None,
        xattrs=tuple(sorted((os.fsdecode(name), value) for name, value in node.xattrs().items())),
        links=tuple(places) if len(places) > 1 else (),
    )
