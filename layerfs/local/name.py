"""Names of local images, ``oci:DIR:TAG``, as skopeo and podman write them (containers-transports(5)).

Decides on text alone.
"""

import re
from pathlib import Path
from typing import Final, Literal, Self, get_args

import msgspec

from layerfs.errors import InvalidReference
from layerfs.oci import ImageReference, Repository, Tag
from layerfs.oci.reference import DEFAULT_TAG, is_tag

Transport = Literal["oci", "oci-archive", "docker-archive", "dir"]

LOCAL_REGISTRY: Final = "localhost"
"""Stands for the registry of images that carry no full name, as with podman."""

_TRANSPORTS: Final = get_args(Transport)
_SUFFIXES: Final = re.compile(r"(?:\.(?:oci|docker|img|image|tar|tgz|gz|zst))+$", re.IGNORECASE)
_ILLEGAL: Final = re.compile(r"[^a-z0-9]+")


class SourceName(msgspec.Struct, frozen=True):
    """Where an image lies, and which one is meant."""

    transport: Transport
    path: Path
    """Absolute; not looked at yet."""
    image: str
    """A tag, a full name or ``@N``; empty for the only one."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``TRANSPORT:PATH[:IMAGE]``; the path ends at the first colon. Raises InvalidReference."""
        transport, colon, rest = text.partition(":")
        if not colon or transport not in _TRANSPORTS:
            raise InvalidReference(
                f"not a local image: {text[:300]!r} (expected one of "
                f"{', '.join(f'{name}:PATH' for name in _TRANSPORTS)}); layerfs pull fetches from registries"
            )
        path, _, image = (rest, "", "") if transport == "dir" else rest.partition(":")
        if not path:
            raise InvalidReference(f"{text[:300]!r}: no path behind {transport}:")
        return cls(transport, Path.cwd() / path, image)  # type: ignore[arg-type]  # looked up above

    def __str__(self) -> str:
        return f"{self.transport}:{self.path}" + (f":{self.image}" if self.image else "")


def is_source(text: str) -> bool:
    """Say whether *text* names a local image rather than one of a registry."""
    return text.partition(":")[0] in _TRANSPORTS and ":" in text


def full_name(name: str) -> Tag | None:
    """Return the tag that an annotation or a RepoTag holds, None for a bare name or anything else."""
    if not ("/" in name or ":" in name):
        return None
    try:
        reference = ImageReference.parse(name)
    except InvalidReference:
        return None
    return None if reference.digest else reference.tag


def made_up_name(path: Path, names: tuple[str, ...]) -> Tag:
    """Return ``localhost/<name of the source>:<tag>`` for an image that carries no full name."""
    stem = _ILLEGAL.sub("-", _SUFFIXES.sub("", path.name.lower())).strip("-")
    tag = next((name for name in names if is_tag(name)), DEFAULT_TAG)
    return Repository.of(LOCAL_REGISTRY, stem[:200].rstrip("-") or "image").with_tag(tag)
