"""``images/``: registries and repositories, tags and images, as directories and links.

Every name that the grammar allows can be entered at once (`layerfs.view.names`); listings show what the
store knows. Only reading the link of an unknown tag waits.
"""

import time
from collections.abc import Iterator, Sequence

from layerfs.needs import Need, TagNeed
from layerfs.oci import Digest, Repository, Tag
from layerfs.store.refs import RefEntry
from layerfs.view import names
from layerfs.view.image import ImageDirectory
from layerfs.view.nodes import Attributes, Node
from layerfs.view.virtual import LINK_MODE, Link, MountContext, VirtualDirectory, VirtualNode

KEY = b"images"

_TAG_TIMEOUT = 1.0
"""Seconds after which the kernel looks again at a tag: another process may have pulled it."""

_SHA256_NAME_LENGTH = len("@sha256:") + 64


class ImagesDirectory(VirtualDirectory):
    """``images/``, the directory of registries."""

    __slots__ = ()

    def lookup(self, name: bytes) -> Node | None:
        """Return a registry, by grammar."""
        match names.parse_registry(name):
            case names.Alias(target):
                return link(self.context, KEY + b"/" + name, target)
            case names.Component(registry):
                return self._registry(registry)
            case _:
                return None

    def is_passing(self, child: Node) -> bool:
        """Say whether the store knows nothing of *child*."""
        return is_unknown(child)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List the registries that the store knows."""
        return [
            (registry.encode("ascii"), self._registry(registry))
            for registry in self.context.storage.refs.registries()
        ]

    def _registry(self, registry: str) -> "RepositoryDirectory":
        return directory(self.context, registry, "")


class RepositoryDirectory(VirtualDirectory):
    """``images/<registry>/<prefix>``: further components, tags and images."""

    __slots__ = ("_prefix", "_registry")

    def __init__(self, ino: int, context: MountContext, registry: str, prefix: str) -> None:
        super().__init__(ino, context)
        self._registry = registry
        self._prefix = prefix

    def lookup(self, name: bytes) -> Node | None:
        """Return an entry, by grammar."""
        match names.parse_entry(self._registry, self._prefix, name):
            case names.Component(component):
                return directory(self.context, self._registry, join(self._prefix, component))
            case names.Alias(target):
                return link(self.context, self._key(name), target)
            case Tag() as tag:
                return self._tag(tag)
            case names.ImageName(repository, digest):
                return self._image(repository, digest)
            case _:
                return None

    @property
    def is_unknown(self) -> bool:
        """Whether the store knows no tag here or below."""
        return not self.context.storage.refs.has_directory(self._registry, self._prefix)

    def is_passing(self, child: Node) -> bool:
        """Say whether the store knows nothing of *child*."""
        return is_unknown(child)

    def entries(self) -> Sequence[tuple[bytes, Node]]:
        """List components and tags that the store knows, and the images of these tags if they are there."""
        refs = self.context.storage.refs
        found: dict[bytes, Node] = {}
        for component in refs.children(self._registry, self._prefix):
            name = component.encode("ascii")
            found[name] = directory(self.context, self._registry, join(self._prefix, component))
        for tag, entry in tags_in(self.context, self._registry, self._prefix):
            found[names.tag_name(tag)] = self._tag(tag)
            if self.context.known.documents.is_complete(tag.repository, entry.digest):
                image = names.image_name(tag.repository, entry.digest)
                found[image] = self._image(tag.repository, entry.digest)
        return list(found.items())

    def _key(self, name: bytes) -> bytes:
        return _directory_key(self._registry, self._prefix) + b"/" + name

    def _tag(self, tag: Tag) -> "TagLink":
        context = self.context
        return context.node(self._key(names.tag_name(tag)), lambda ino: TagLink(ino, context, tag))

    def _image(self, repository: Repository, digest: Digest) -> ImageDirectory:
        context = self.context
        key = self._key(names.image_name(repository, digest))
        return context.node(key, lambda ino: ImageDirectory(ino, context, key, repository, digest))


class TagLink(VirtualNode):
    """``<name>:<tag>``, a link to ``<name>@sha256:<hex>``."""

    __slots__ = ("_tag",)

    def __init__(self, ino: int, context: MountContext, tag: Tag) -> None:
        super().__init__(ino, context)
        self._tag = tag

    @property
    def entry_timeout(self) -> float:
        """A moment: a pull may move the tag."""
        return _TAG_TIMEOUT

    @property
    def attribute_timeout(self) -> float:
        """A moment: a pull may move the tag."""
        return _TAG_TIMEOUT

    def attributes(self) -> Attributes:
        """Return a link; its length is known before its target, because a digest has a fixed length."""
        entry = self._entry()
        if entry is None:
            size = len(names.last_component(self._tag.repository)) + _SHA256_NAME_LENGTH
            return self.context.attributes(LINK_MODE, size)
        resolved_ns = int(entry.resolved_at.timestamp()) * 10**9
        return self.context.attributes(LINK_MODE, len(self._target(entry)), resolved_ns)

    @property
    def is_unknown(self) -> bool:
        """Whether the store has no such tag."""
        return self._entry() is None

    def readlink(self) -> bytes | Need:
        """Return the name of the image; waits for a tag that the store does not know, or not newly enough."""
        entry = self._entry()
        if entry is None or self._is_old(entry):
            return TagNeed(self._tag)
        return self._target(entry)

    def _entry(self) -> RefEntry | None:
        return self.context.storage.refs.read(self._tag)

    def _is_old(self, entry: RefEntry) -> bool:
        ttl = self.context.tag_ttl
        # A time to come is no newer than one gone by: the clock went back.
        return ttl is not None and abs(time.time() - entry.resolved_at.timestamp()) >= ttl

    def _target(self, entry: RefEntry) -> bytes:
        return names.image_name(self._tag.repository, entry.digest)


def directory(context: MountContext, registry: str, prefix: str) -> RepositoryDirectory:
    """Return the directory ``images/<registry>/<prefix>``."""
    return context.node(
        _directory_key(registry, prefix), lambda ino: RepositoryDirectory(ino, context, registry, prefix)
    )


def is_unknown(child: Node) -> bool:
    """Say whether the store knows nothing of *child*, or it is another spelling."""
    match child:
        case RepositoryDirectory() | TagLink():
            return child.is_unknown
        case ImageDirectory():
            return not child.context.storage.has_manifest(child.digest)
        case _:
            return True


def link(context: MountContext, key: bytes, target: str) -> Link:
    """Return a link to another spelling."""
    return context.node(key, lambda ino: Link(ino, context, target.encode("ascii")))


def join(prefix: str, component: str) -> str:
    """Return the path of *component* below *prefix*, which may be empty."""
    return f"{prefix}/{component}" if prefix else component


def _directory_key(registry: str, prefix: str) -> bytes:
    path = f"{registry}/{prefix}" if prefix else registry
    return KEY + b"/" + path.encode("ascii")


def tags_in(context: MountContext, registry: str, prefix: str) -> Iterator[tuple[Tag, RefEntry]]:
    """Yield the pinned tags of the repositories right below *prefix*."""
    refs = context.storage.refs
    for repository, name in refs.tagged(registry, prefix):
        tag = Repository.of(registry, join(prefix, repository)).with_tag(name)
        entry = refs.read(tag)
        if entry is not None:
            yield tag, entry
