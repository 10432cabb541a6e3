"""TOCs made entry by entry, also wrong ones."""

import json
from typing import Any, NamedTuple

from layerfs.layer.budgets import Budgets
from layerfs.layer.toc import Entry
from layerfs.layer.tocreader import parse_toc
from layerfs.oci import Digest
from layerfs.oci.toc import TocKind

Json = dict[str, Any]


class Read(NamedTuple):
    """A TOC of which all entries came."""

    entries: list[Entry]
    split: str


END = 10_000
"""Where the data ends in the blobs of these TOCs."""
A, B, NOTHING = (str(Digest.of(content)) for content in (b"a", b"b", b""))
ESTARGZ, CHUNKED = TocKind.ESTARGZ, TocKind.ZSTD_CHUNKED


def raw(*entries: Json, **more: Any) -> bytes:
    """Return the JSON of a TOC."""
    return json.dumps({"version": 1, "entries": entries} | more).encode()


def read(*entries: Json, kind: TocKind = ESTARGZ, budgets: Budgets | None = None, **more: Any) -> Read:
    """Read a TOC of these entries."""
    return read_raw(raw(*entries, **more), kind, budgets)


def read_raw(text: bytes, kind: TocKind = ESTARGZ, budgets: Budgets | None = None) -> Read:
    """Read a TOC."""
    found = parse_toc(text, kind, END, budgets or Budgets())
    return Read(list(found.entries), found.split)


def directory(name: str, **more: Any) -> Json:
    """Describe a directory."""
    return {"name": name, "type": "dir", "mode": 0o755} | more


def file(name: str = "file", size: Any = 7, offset: int = 100, **more: Any) -> Json:
    """Describe a file of one chunk, in eStargz."""
    return {"name": name, "type": "reg", "mode": 0o644, "size": size, "offset": offset, "digest": A} | more


def chunked(name: str = "file", size: Any = 7, offset: int = 100, end: int = 200, **more: Any) -> Json:
    """Describe a file of one chunk, in zstd:chunked."""
    return file(name, size, offset, endOffset=end, **more)


def chunk(name: str = "file", offset: int = 200, at: int = 4, **more: Any) -> Json:
    """Describe a further chunk."""
    return {"name": name, "type": "chunk", "offset": offset, "chunkOffset": at, "chunkDigest": B} | more


def link(name: str, target: str, **more: Any) -> Json:
    """Describe a hard link."""
    return {"name": name, "type": "hardlink", "linkName": target} | more
