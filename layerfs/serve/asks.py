"""What a request asks for, parsed once from method and target (distribution-spec, endpoints). Pure.

Whatever these values hold is legal in a file name. A target has one spelling: of the escapes of RFC 3986 only
that of the colon is read, which programs write in digests and in ``ns``.
"""

from typing import ClassVar, Final

import msgspec

from layerfs.errors import InvalidDigest, InvalidReference
from layerfs.oci import Digest, Repository
from layerfs.oci.reference import (
    DOCKER_HUB,
    DOCKER_HUB_ALIASES,
    MAX_NAME_LENGTH,
    is_component,
    is_registry,
    is_tag,
)
from layerfs.serve.replies import Refused

METHODS: Final = ("GET", "HEAD")
_ROOT: Final = "/v2/"
_METRICS: Final = "/metrics"
_MOST_TAGS: Final = 1000
"""Tags in one answer."""


class Name(msgspec.Struct, frozen=True):
    """A repository as it was asked for: the registry may be left out."""

    path: str
    registry: str = ""

    def at(self, registry: str) -> Repository:
        """Return the repository of this path at *registry*. Raises InvalidReference."""
        lacks_library = registry == DOCKER_HUB and "/" not in self.path
        return Repository.of(registry, f"library/{self.path}" if lacks_library else self.path)

    def __str__(self) -> str:
        return f"{self.registry}/{self.path}" if self.registry else self.path


class VersionAsk(msgspec.Struct, frozen=True):
    """Whether this is a registry."""

    kind: ClassVar = "version"


class ManifestAsk(msgspec.Struct, frozen=True):
    """A manifest or index, by a tag or its digest."""

    kind: ClassVar = "manifest"
    name: Name
    target: str | Digest


class BlobAsk(msgspec.Struct, frozen=True):
    """A layer or a config."""

    kind: ClassVar = "blob"
    name: Name
    digest: Digest


class TagsAsk(msgspec.Struct, frozen=True):
    """Tags of a repository: at most *most*, those behind *last*."""

    kind: ClassVar = "tags"
    name: Name
    most: int = _MOST_TAGS
    last: str = ""


class ReferrersAsk(msgspec.Struct, frozen=True):
    """What refers to a manifest."""

    kind: ClassVar = "referrers"
    name: Name
    digest: Digest


class MetricsAsk(msgspec.Struct, frozen=True):
    """What the server did, for who may read that."""

    kind: ClassVar = "metrics"


Ask = VersionAsk | ManifestAsk | BlobAsk | TagsAsk | ReferrersAsk


def parse(method: str, target: str) -> Ask | MetricsAsk:
    """Read method and target of a request. Raises Refused."""
    require_method(method)
    path, _, query = target.partition("?")
    path = _unescaped(path)
    if path in (_ROOT, _ROOT.rstrip("/")):
        return VersionAsk()
    if path == _METRICS:
        return MetricsAsk()
    rest = path.removeprefix(_ROOT)
    head, _, last = rest.rpartition("/")
    name, _, kind = head.rpartition("/")
    if rest == path or kind not in ("manifests", "blobs", "tags", "referrers") or not name:
        raise unknown(path)
    words = _query(query)
    return _below(_name(name, words.get("ns", "")), kind, last, words)


def unknown(path: str = _METRICS) -> Refused:
    """Return the answer to what is nothing here: for metrics, too, where they are not for who asks."""
    what = f"{path!r}: not served here (expected /v2/NAME/ and manifests, blobs or tags/list)"
    return Refused(404, "UNSUPPORTED", what)


def require_method(method: str) -> None:
    """Raise Refused unless *method* only reads."""
    if method not in METHODS:
        raise Refused(
            405,
            "UNSUPPORTED",
            f"{method[:20]}: nothing can be written here (expected {' or '.join(METHODS)})",
            ("Allow", ", ".join(METHODS)),
        )


def _below(name: Name, kind: str, last: str, words: dict[str, str]) -> Ask:
    match kind:
        case "manifests" if ":" in last:
            return ManifestAsk(name, _digest(last))
        case "manifests":
            if not is_tag(last):
                raise Refused(400, "MANIFEST_INVALID", f"{last!r}: neither a tag nor a digest")
            return ManifestAsk(name, last)
        case "blobs":
            return BlobAsk(name, _digest(last))
        case "referrers":
            return ReferrersAsk(name, _digest(last))
        case _:
            if last != "list":
                raise Refused(404, "UNSUPPORTED", f"{last!r}: not served here (expected tags/list)")
            return TagsAsk(name, _number(words.get("n", str(_MOST_TAGS))), words.get("last", ""))


def _name(path: str, registry: str) -> Name:
    if not registry and (found := path.partition("/"))[2] and is_registry(found[0]):
        registry, _, path = found
    if registry and not is_registry(registry):
        raise Refused(400, "NAME_INVALID", f"ns={registry!r}: not a registry (expected HOST or HOST:PORT)")
    if len(registry) + 1 + len(path) > MAX_NAME_LENGTH or not all(map(is_component, path.split("/"))):
        raise Refused(400, "NAME_INVALID", f"{path[:MAX_NAME_LENGTH]!r}: not the name of a repository")
    name = Name(path, DOCKER_HUB if registry in DOCKER_HUB_ALIASES else registry)
    try:
        name.at(name.registry or DOCKER_HUB)
    except InvalidReference as exc:
        raise Refused(400, "NAME_INVALID", str(exc)) from exc
    return name


def _digest(text: str) -> Digest:
    try:
        return Digest.parse(text)
    except InvalidDigest as exc:
        raise Refused(400, "DIGEST_INVALID", str(exc)) from exc


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise Refused(400, "UNSUPPORTED", f"n={text!r}: not a number")
    return min(int(text[:9]), _MOST_TAGS)


def _query(text: str) -> dict[str, str]:
    """Read the words of a query; others than ours are ignored. One that is said twice means two things."""
    found: dict[str, str] = {}
    for word in filter(None, text.split("&")):
        key, _, value = word.partition("=")
        if key in found:
            raise Refused(400, "UNSUPPORTED", f"{key!r}: twice in the query (expected once)")
        if key in ("ns", "n", "last"):
            found[key] = _unescaped(value)
    return found


def _unescaped(text: str) -> str:
    text = text.replace("%3A", ":").replace("%3a", ":")
    if "%" in text:
        raise Refused(400, "UNSUPPORTED", f"{text!r}: an escape other than %3A (expected none)")
    return text
