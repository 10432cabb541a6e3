"""The JSON of a TOC as strict structs, and the times in it. Pure; private to `layerfs.layer.tocreader`.

Formats: the description of eStargz in containerd/stargz-snapshotter, "TOC"; containers/storage
pkg/chunked/internal/minimal. Both are the JSON of Go (encoding/json): what is zero or empty is left out, what
is no UTF-8 in a name has become U+FFFD.
"""

import re
from datetime import datetime
from functools import lru_cache
from typing import Final

import msgspec

from layerfs.errors import BudgetExceeded, InvalidToc
from layerfs.foreign import strict_json
from layerfs.layer.numbers import SECOND

_VERSION: Final = 1
_OBJECTS: Final = 2
"""At most, of an entry: itself and its attributes."""
_MOMENT: Final = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII
)  # RFC 3339
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
_GO_ZERO: Final = "0001-01-01T00:00:00Z"
"""What Go calls no time at all; containers/storage wrote it until 2024."""


class EntryJson(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """One entry: a member of the archive, or a further chunk of the file before it."""

    name: str
    type: str
    link_name: str = ""
    mode: int = 0
    size: int = 0
    uid: int = 0
    gid: int = 0
    modtime: str = ""
    dev_major: int = 0
    dev_minor: int = 0
    xattrs: dict[str, bytes] | None = None
    digest: str = ""
    """That of the whole file."""
    offset: int = 0
    end_offset: int = 0
    inner_offset: int = 0
    chunk_offset: int = 0
    chunk_size: int = 0
    """0 for a chunk that goes on to the end of the file."""
    chunk_digest: str = ""
    chunk_type: str = ""


class TocJson(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """A whole TOC."""

    version: int
    entries: list[EntryJson]
    tar_split_digest: str = ""


def decode(raw: bytes, max_entries: int) -> TocJson:
    """Read a TOC of at most *max_entries* entries. Raises InvalidToc, BudgetExceeded."""
    # Before anything is made of it: each object begins with a brace. A name may hold some, too.
    if (braces := raw.count(b"{")) > _OBJECTS * max_entries + len(raw) // 64:
        raise BudgetExceeded(f"TOC: {braces} braces (max_entries is {max_entries})")
    try:
        found = strict_json(raw, TocJson)
    except msgspec.DecodeError as exc:
        raise InvalidToc(f"TOC: {exc}") from None
    if found.version != _VERSION:
        raise InvalidToc(f"TOC: version {found.version} (expected {_VERSION})")
    if len(found.entries) > max_entries:
        raise BudgetExceeded(f"TOC: {len(found.entries)} entries (max_entries is {max_entries})")
    return found


@lru_cache(maxsize=4096)  # files that were installed together share their times
def moment(text: str) -> int:
    """Read a time of RFC 3339 as nanoseconds since 1970, 0 if there is none. Raises InvalidToc."""
    if not text or text == _GO_ZERO:
        return 0
    found = _MOMENT.fullmatch(text)
    try:
        if found is None:
            raise ValueError("no time of RFC 3339")
        seconds = datetime.fromisoformat(f"{found[1]}{found[3]}") - _EPOCH
    except ValueError as exc:
        raise InvalidToc(f"modtime {text[:60]!r}: {exc} (expected YYYY-MM-DDTHH:MM:SSZ)") from None
    whole = seconds.days * 86400 + seconds.seconds
    return whole * SECOND + int((found[2] or "").ljust(9, "0"))
