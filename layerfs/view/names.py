"""What a name below ``images/`` stands for, by grammar alone.

Decides without asking the store or a registry, so that a LOOKUP of any name is answered at once: what no
reference can contain (``.git``, ``HEAD``, ``.hidden``) does not exist, everything else can be entered.
Pure.

At the first level ``host:port`` is a registry; below, a colon starts a tag and an ``@`` a digest. Docker Hub
keeps its official images in ``library/``, and users leave that out: so the short names are links to the long
ones. A name with both tag and digest is a link to the digest, which decides (as in `ImageReference`).
"""

import re

import msgspec

from layerfs.errors import InvalidDigest, InvalidReference
from layerfs.oci import Digest, Repository, Tag
from layerfs.oci.reference import DEFAULT_REGISTRY, is_registry, is_tag

_REGISTRY_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
_LIBRARY = "library"
_ID = re.compile(rb"[a-z2-7]{26}")
_NAME_MAX = 255
"""Bytes; FUSE passes on longer names, but no file of the store can have one."""


class Component(msgspec.Struct, frozen=True):
    """A directory: a registry, or one component of a repository path."""

    name: str


class ImageName(msgspec.Struct, frozen=True):
    """``name@sha256:<hex>``, the directory of an image."""

    repository: Repository
    digest: Digest


class Alias(msgspec.Struct, frozen=True):
    """Another spelling: a link to where the thing is."""

    target: str


def parse_registry(name: bytes) -> Component | Alias | None:
    """Say what *name* is in ``images/``; None if it cannot be a registry.

    Stricter than the grammar in one thing: a host without dot or port must be lower-case, because ``HEAD`` is
    what git asks every directory for.
    """
    text = _text(name)
    if text is None or not is_registry(text) or not (text.islower() or "." in text or ":" in text):
        return None
    return Alias(DEFAULT_REGISTRY) if text in _REGISTRY_ALIASES else Component(text)


def parse_entry(registry: str, prefix: str, name: bytes) -> Component | Tag | ImageName | Alias | None:
    """Say what *name* is in ``images/<registry>/<prefix>``, *prefix* being empty or like ``a/b``."""
    text = _text(name)
    if text is None:
        return None
    head, at, digest_text = text.partition("@")
    last, colon, tag = head.partition(":")
    try:
        repository = Repository.of(registry, f"{prefix}/{last}" if prefix else last)
        digest = Digest.parse(digest_text) if at else None
    except (InvalidReference, InvalidDigest):
        return None
    if colon and not is_tag(tag):
        return None
    if digest is None and not colon:
        return Component(last)
    if digest is not None and colon:
        return Alias(f"{last}@{digest}")
    if registry == DEFAULT_REGISTRY and not prefix:
        return Alias(f"{_LIBRARY}/{text}")
    return Tag(repository, tag) if digest is None else ImageName(repository, digest)


def parse_id(name: bytes) -> str | None:
    """Read the short id of a layer or a stack (`Digest.short_id`); None for any other name."""
    return name.decode("ascii") if _ID.fullmatch(name) else None


def image_name(repository: Repository, digest: Digest) -> bytes:
    """Return the name of an image's directory in the directory that holds it."""
    return f"{last_component(repository)}@{digest}".encode("ascii")


def tag_name(tag: Tag) -> bytes:
    """Return the name of a tag's link in the directory that holds it."""
    return f"{last_component(tag.repository)}:{tag.name}".encode("ascii")


def last_component(repository: Repository) -> str:
    """Return the part of a repository's path that its images are called by."""
    return repository.path.rpartition("/")[2]


def _text(name: bytes) -> str | None:
    if len(name) > _NAME_MAX or b"/" in name:
        return None
    try:
        return name.decode("ascii")
    except UnicodeDecodeError:
        return None
