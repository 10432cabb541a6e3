"""Lists that come in pages: where the next one is (RFC 8288, distribution-spec "Listing Tags"). Pure."""

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

import msgspec

from layerfs.errors import RegistryMisbehaved
from layerfs.foreign import decode_json
from layerfs.oci.reference import is_tag

MAX_PAGES: Final = 1000

_LINK = re.compile(r"<([^<>]*)>((?:[^,<\"]|\"[^\"]*\")*)")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?(?:[^\"]*\s)?next(?=[\s\";]|$)", re.IGNORECASE)


class _TagsJson(msgspec.Struct, frozen=True):
    tags: list[str | None] | None = None


def parse_tags(raw: bytes, what: str) -> list[str]:
    """Read one page; texts that are no tags are left out. Raises RegistryMisbehaved."""
    try:
        json = decode_json(raw, _TagsJson)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise RegistryMisbehaved(f"{what}: not a list of tags: {exc}") from exc
    return [tag for tag in json.tags or () if tag and is_tag(tag)]


def next_page(links: list[str], url: str) -> str | None:
    """Return path and query of the page after *url*, None after the last.

    The host of a link never counts: behind a reverse proxy registries write their inner address, and our
    token belongs to the registry. Raises RegistryMisbehaved for a path that is none of a registry.
    """
    for target, parameters in _LINK.findall(", ".join(links)):
        if not _NEXT.search(parameters):
            continue
        try:
            there = urlsplit(urljoin(url, target))
        except ValueError:
            return None
        if not there.path.startswith("/v2/"):
            raise RegistryMisbehaved(f"the next page is no path of a registry: {there.path[:100]!r}")
        return f"{there.path}?{there.query}" if there.query else there.path
    return None
