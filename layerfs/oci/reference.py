"""Image references: Docker's grammar and normalisation, parsed once.

Source: the grammar of distribution/reference (regexp.go, normalize.go). A value of these
classes holds only characters that are legal in file names, so its parts are paths as they are.
"""

import re
from typing import Self

import msgspec

from layerfs.errors import InvalidDigest, InvalidReference
from layerfs.oci.digest import Digest

DOCKER_HUB = "docker.io"
DOCKER_HUB_HOST = "registry-1.docker.io"
"""Where Docker Hub answers."""
DOCKER_HUB_ALIASES = frozenset({"index.docker.io", DOCKER_HUB_HOST})
"""Its other names, which users and credential files write."""
DEFAULT_REGISTRY = DOCKER_HUB
DEFAULT_TAG = "latest"
MAX_NAME_LENGTH = 255

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_LABEL = r"(?:[A-Za-z0-9]|[A-Za-z0-9][A-Za-z0-9-]*[A-Za-z0-9])"
_REGISTRY = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?P<ipv6>[0-9a-fA-F:]+)\])(?::(?P<port>[0-9]{{1,5}}))?"
_LOCAL = r"(?:oci|oci-archive|docker-archive|dir):\.{0,2}/(?!/)"
_LAST_PORT = 65535
_BARE_ID = r"[0-9a-f]{64}"


def is_registry(text: str) -> bool:
    """Say whether *text* can stand for a registry host, ``host[:port]``.

    As the first component of a name only a host with a dot, a port, an upper-case letter or
    the name ``localhost`` is one; anything else is a repository of Docker Hub.
    """
    match = re.fullmatch(_REGISTRY, text) if _looks_like_host(text) else None
    if match is None or int(match["port"] or 0) > _LAST_PORT:
        return False
    return match["ipv6"] is None or _is_ipv6(match["ipv6"])


def has_registry(text: str) -> bool:
    """Say whether a reference, or what should be one, names a registry, or has ``docker://`` before it."""
    first, slash, _ = text.partition("/")
    return bool(slash) and _looks_like_host(first)


def _looks_like_host(text: str) -> bool:
    return text == "localhost" or "." in text or ":" in text or text != text.lower()


def _is_ipv6(text: str) -> bool:
    from ipaddress import IPv6Address  # hardly any registry is called so

    try:
        IPv6Address(text)
    except ValueError:
        return False
    return True


def is_component(text: str) -> bool:
    """Say whether *text* is one component of a repository path."""
    return _COMPONENT.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    """Say whether *text* is a tag."""
    return _TAG.fullmatch(text) is not None


def familiar(name: str) -> str:
    """Return the text of a name as users write it: without Docker Hub, and its ``library/``."""
    short = name.removeprefix(f"{DOCKER_HUB}/")
    return name if short == name else short.removeprefix("library/")


class Repository(msgspec.Struct, frozen=True, order=True):
    """A repository of a registry, in normal form: ``docker.io`` and ``library/alpine``."""

    registry: str
    path: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a name without tag or digest. Raises InvalidReference."""
        text = _without_scheme(text)
        first, slash, rest = text.partition("/")
        if slash and _looks_like_host(first):  # if it is none, `of` says so: it must not become a path
            registry, path = first, rest
        else:
            registry, path = DEFAULT_REGISTRY, text
        if registry in DOCKER_HUB_ALIASES:
            registry = DOCKER_HUB
        if registry == DOCKER_HUB and "/" not in path:
            path = f"library/{path}"
        return cls.of(registry, path)

    @classmethod
    def of(cls, registry: str, path: str) -> Self:
        """Check two parts that are in normal form already. Raises InvalidReference."""
        if not is_registry(registry):
            raise InvalidReference(f"not a registry: {registry[:300]!r} (expected host or host:port)")
        for component in path.split("/"):
            if not is_component(component):
                raise InvalidReference(
                    f"not a repository name: {path[:300]!r}: component {component[:100]!r} must be "
                    "lower-case letters and digits, with single '.', '_', '__' or '-' between them"
                )
        if len(registry) + 1 + len(path) > MAX_NAME_LENGTH:
            raise InvalidReference(
                f"repository name longer than {MAX_NAME_LENGTH} characters: {path[:60]!r}..."
            )
        return cls(registry, path)

    def with_tag(self, name: str) -> "Tag":
        """Name an image of this repository by tag. Raises InvalidReference."""
        return Tag(self, name)

    def with_digest(self, digest: Digest) -> "ImageReference":
        """Name an image of this repository by digest."""
        return ImageReference(self, None, digest)

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}"


class Tag(msgspec.Struct, frozen=True, order=True):
    """A name of an image in a repository; it may name another later. Raises InvalidReference."""

    repository: Repository
    name: str

    def __post_init__(self) -> None:
        if not is_tag(self.name):
            raise InvalidReference(
                f"not a tag: {self.name[:200]!r} (expected at most 128 letters, digits, '_', '.' and '-')"
            )

    @property
    def reference(self) -> "ImageReference":
        """The reference that names the tag and nothing else."""
        return ImageReference(self.repository, self, None)

    def __str__(self) -> str:
        return f"{self.repository}:{self.name}"


class ImageReference(msgspec.Struct, frozen=True):
    """What a user calls an image. With both tag and digest, the digest decides."""

    repository: Repository
    tag: Tag | None
    digest: Digest | None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``[registry/]name[:tag][@digest]``; without both, ``:latest``. Raises InvalidReference.

        ``docker://``, which skopeo and others want before it, may stand there.
        """
        text = _without_scheme(text)
        if re.fullmatch(_BARE_ID, text):
            raise InvalidReference(
                f"{text!r} looks like an image ID; name a repository, or name@sha256:{text}"
            )
        name, at, digest_text = text.partition("@")
        digest = _parse_digest(digest_text, text) if at else None
        head, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:  # the colon, if any, belongs to a port
            head, tag = name, ""
        elif not is_tag(tag):
            raise InvalidReference(f"not a tag: {tag[:200]!r} in {text[:300]!r}")
        if not head:
            raise InvalidReference(
                f"no repository in {text[:300]!r} (expected [registry/]name[:tag][@digest])"
            )
        repository = Repository.parse(head)
        if not tag and digest is None:
            tag = DEFAULT_TAG
        return cls(repository, Tag(repository, tag) if tag else None, digest)

    @property
    def target(self) -> Tag | Digest:
        """What decides which image is meant: the digest if there is one, else the tag."""
        return self.digest or self.tag or Tag(self.repository, DEFAULT_TAG)

    def __str__(self) -> str:
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.tag or self.repository}{digest}"


def _without_scheme(text: str) -> str:
    """Return *text* without ``docker://``. Raises InvalidReference with what to write in place of others."""
    if re.match(_LOCAL, text):
        raise InvalidReference(f"{text[:300]!r}: an image on this disk; layerfs import reads it")
    text = text.removeprefix("docker://")
    _, found, rest = text.partition("://")
    if found:
        raise InvalidReference(f"{text[:300]!r}: a reference has no scheme; write {rest[:300]!r}")
    return text


def _parse_digest(text: str, whole: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as exc:
        raise InvalidReference(f"{whole[:300]!r}: {exc}") from exc
