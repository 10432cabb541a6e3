"""A store on disk with images of one's choice, and a tree over it: nodes are tested against real files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from layerfs.layer.record import Extraction
from layerfs.oci import Platform, Repository, stack_digest
from layerfs.oci.digest import Digest
from layerfs.store import ImageStorage
from layerfs.view import tree
from layerfs.view.needs import Need
from layerfs.view.nodes import BytesContent, FileContent, Node
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

    def mount(self) -> None:
        """Make a new tree, as a restarted daemon would."""
        self.tree = tree.build(self.storage, self.mountpoint, self.platform, self.status)

    # The store

    def knows(self, image: Built, tag: str | None = "latest", repository: Repository = DEMO) -> None:
        """Put the documents of *image* into the store, and a tag."""
        if tag is not None:
            self.storage.refs.write(repository, tag, image.digest)
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
            extract(self.storage, one)

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


def extract(storage: ImageStorage, one: MadeLayer) -> None:
    """Extract a layer whose blob is in the store."""
    from tests.stacks import standin

    blob = storage.open_blob(one.digest)
    assert blob is not None
    with storage.stage_tree(one.digest) as staged:
        staged.path.rmdir()
        found: Extraction = standin.extract(one.entries, staged.path)  # type: ignore[no-untyped-call]
        extraction = msgspec.structs.replace(
            found,
            digest=str(one.digest),
            diff_id=str(one.built.diff_id),
            blob_size=blob.size,
            compression="gzip",
        )
        storage.publish(staged, blob, extraction)


def names(listing: object) -> list[bytes]:
    """Return the names of a listing, sorted; fails on a need."""
    assert isinstance(listing, Sequence), listing
    return sorted(name for name, _ in listing)


def read(node: Node) -> bytes:
    """Read a file as the edge does."""
    content = node.open()
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
