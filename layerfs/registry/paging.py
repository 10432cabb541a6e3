"""Lists that come in pages: where the next one is (RFC 8288, distribution-spec "Listing Tags"). Pure."""

import re
from typing import Final

import msgspec

from layerfs.errors import RegistryMisbehaved
from layerfs.foreign import decode_json
from layerfs.oci.reference import is_tag

MAX_PAGES: Final = 1000

# httpx.Response.links splits at commas and semicolons between quotes, and knows one rel for each link.
_LINK = re.compile(r"<([^<>]*)>((?:[^,<\"]|\"[^\"]*\")*)")
_NEXT = re.compile(r";\s*rel\s*=\s*\"?(?:[^\"]*\s)?next(?=[\s\";]|$)", re.IGNORECASE)


class _TagsJson(msgspec.Struct, frozen=True):
    tags: list[str | None] | None = None


def parse_tags(raw: bytes, what: str) -> list[str]:
    """Read one page; texts that are no tags are left out. Raises RegistryMisbehaved."""
    try:
        json = decode_json(raw, _TagsJson)
    except msgspec.DecodeError as exc:
        raise RegistryMisbehaved(f"{what}: not a list of tags: {exc}") from exc
    return [tag for tag in json.tags or () if tag and is_tag(tag)]


def next_page(links: list[str]) -> str | None:
    """Return the query of the next page, None after the last.

    Only the query of a link counts. Behind a reverse proxy registries write their inner address, and a path
    could lead our token to what was not asked for. Raises RegistryMisbehaved for a link without a query.
    """
    for target, parameters in _LINK.findall(", ".join(links)):
        if not _NEXT.search(parameters):
            continue
        _, _, query = target.partition("#")[0].partition("?")
        if not query:
            raise RegistryMisbehaved(f"no next page: {target[:100]!r} (expected a link with a query)")
        return str(query)
    return None
