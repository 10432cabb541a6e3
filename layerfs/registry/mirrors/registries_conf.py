"""registries.conf, version 2, as containers-registries.conf(5) has it: text to values.

What cannot be honoured is refused with file and line: to ask somebody else than podman would is worse.
"""

import re
from typing import Final, Literal

import msgspec

from layerfs.errors import InvalidReference
from layerfs.oci import Repository
from layerfs.oci.reference import is_registry
from layerfs.registry.mirrors.values import Location, Mirrors, PullFrom, ShortNames, Table
from layerfs.tomlfile import Key, TomlFile

_SCHEME: Final = re.compile(r"https?://")
_HOST: Final = re.compile(r"[A-Za-z0-9.-]+(?::[0-9]{1,5})?|\[[0-9a-fA-F:]+\](?::[0-9]{1,5})?")
_WILDCARD: Final = re.compile(r"\*(?:\.[A-Za-z0-9-]+)+")
_PATH: Final = re.compile(r"(?:[a-z0-9._-]+(?:/[a-z0-9._-]+)*)?")
_OWN_FILES: Final = "containers-auth.json"
"""What credential-helpers calls the credential files."""


class _Mirror(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    location: str
    insecure: bool = False
    namespace_proxy: str = ""
    pull_from_mirror: PullFrom | Literal[""] = ""


class _Registry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror: list[_Mirror] = []
    mirror_by_digest_only: bool = False
    namespace_proxy: str = ""


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="kebab"):
    unqualified_search_registries: list[str] | None = None
    short_name_mode: Literal["", "enforcing", "permissive", "disabled"] = ""
    credential_helpers: list[str] | None = None
    additional_layer_store_auth_helper: str = ""
    registry: list[_Registry] = []
    aliases: dict[str, str] = {}


def parse(document: TomlFile) -> Mirrors:
    """Return what one file says. Raises InvalidSettings with file and line."""
    if "registries" in document.content:
        document.fail(("registries",), "version 1 of the format (expected [[registry]] tables of version 2)")
    file = document.converted(document.content, _File)
    helpers = file.credential_helpers or [_OWN_FILES]
    if helpers != [_OWN_FILES]:
        document.fail(
            ("credential-helpers",),
            f"{', '.join(helpers)[:200]}: not obeyed here (expected {_OWN_FILES} alone); name a helper as "
            "credHelpers of an auth.json",
        )
    tables = [_table(document, one, ("registry", number)) for number, one in enumerate(file.registry)]
    search = file.unqualified_search_registries
    for number, one in enumerate(search or ()):
        if not _HOST.fullmatch(one):
            document.fail(("unqualified-search-registries", number), f"{one[:200]!r} is no host[:port]")
    return Mirrors(
        tables=tuple(tables),
        short_names=ShortNames(
            aliases={name: _alias(document, name, value) for name, value in file.aliases.items()},
            search=None if search is None else tuple(search),
            place="" if search is None else document.place(("unqualified-search-registries",)),
        ),
    )


def merged(files: list[Mirrors]) -> Mirrors:
    """Put files together, the weakest first: a table replaces that of its prefix, an empty alias ends one."""
    tables: dict[str, Table] = {}
    aliases: dict[str, str] = {}
    search, place = None, ""
    for one in files:
        tables |= {table.prefix: table for table in one.tables}
        aliases |= one.short_names.aliases
        if one.short_names.search is not None:
            search, place = one.short_names.search, one.short_names.place
    kept = {name: value for name, value in aliases.items() if value}
    return Mirrors(tables=tuple(tables.values()), short_names=ShortNames(kept, search, place))


def _table(document: TomlFile, said: _Registry, at: Key) -> Table:
    if not said.location and not said.prefix.startswith("*."):
        document.fail(at, "neither location nor a prefix with *. (expected where the images are)")
    prefix = said.prefix.rstrip("/") or said.location.rstrip("/")
    if "*" in prefix and not _WILDCARD.fullmatch(prefix):
        document.fail(
            (*at, "prefix"), f"{prefix[:200]!r}: a wildcard stands for labels of a host alone (*.example.com)"
        )
    if "*" not in prefix:
        _split(document, prefix, (*at, "prefix" if said.prefix else "location"))
    location = None
    if said.location:
        host, path = _split(document, said.location, (*at, "location"))
        place = document.place((*at, "location"))
        location = Location(host, path, said.insecure, place=place, namespace=said.namespace_proxy)
    return Table(
        prefix=prefix,
        location=location,
        mirrors=tuple(
            _mirror(document, one, (*at, "mirror", number), said.mirror_by_digest_only)
            for number, one in enumerate(said.mirror)
        ),
        insecure=said.insecure,
        blocked=said.blocked,
        place=document.place(at),
    )


def _mirror(document: TomlFile, said: _Mirror, at: Key, digests_only: bool) -> Location:
    if said.pull_from_mirror and digests_only:
        document.fail(
            (*at, "pull-from-mirror"),
            "beside mirror-by-digest-only of the registry (expected one of the two)",
        )
    host, path = _split(document, said.location, (*at, "location"))
    pull_from: PullFrom = "digest-only" if digests_only else said.pull_from_mirror or "all"
    return Location(
        host, path, said.insecure, pull_from, said.namespace_proxy, document.place((*at, "location"))
    )


def _split(document: TomlFile, text: str, at: Key) -> tuple[str, str]:
    """Return host, and what follows the slash behind it. Raises InvalidSettings."""
    if _SCHEME.match(text):
        document.fail(at, "no scheme belongs there (insecure = true allows plain HTTP)")
    if ":" in text.partition("/")[2] or "@" in text:
        document.fail(
            at,
            "names one image, or a user: not obeyed here, as layers have no tag (name a repository)",
        )
    host, _, path = text.rstrip("/").partition("/")
    if not _HOST.fullmatch(host) or not _PATH.fullmatch(path):
        shown = text.partition("?")[0][:200]
        document.fail(at, f"{shown!r} is no place of images (expected host[:port][/path])")
    return host, path


def _alias(document: TomlFile, name: str, value: str) -> str:
    """Return the full name that a short one stands for; empty to forget what a weaker file says."""
    at = ("aliases", name)
    first = name.partition("/")[0]
    if ":" in name or "@" in name or ("/" in name and is_registry(first)) or first == "localhost":
        document.fail(at, "no short name (expected one without registry, tag and digest)")
    if not value:
        return ""
    if not is_registry(value.partition("/")[0]) or "/" not in value:
        document.fail(at, f"{value[:200]!r} is no full name (expected registry/repository)")
    try:
        return str(Repository.parse(value))
    except InvalidReference as exc:
        document.fail(at, str(exc))
