"""What TOCs mean: entries to members and places of bytes, and what is refused."""

import json
from typing import Any

from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Type
from layerfs.layer.toc import Toc
from layerfs.layer.tocreader import parse_toc
from layerfs.oci import Digest
from layerfs.oci.toc import TocKind

END = 10_000
"""Where the TOC begins in the blobs of these tests."""
A, B = (str(Digest.of(content)) for content in (b"a", b"b"))


def read(*entries: dict[str, Any], kind: TocKind = TocKind.ESTARGZ, **more: Any) -> Toc:
    """Read a TOC of these entries."""
    raw = json.dumps({"version": 1, "entries": entries} | more).encode()
    return parse_toc(raw, kind, END, Budgets())


def test_the_end_of_a_chunk_is_where_the_next_begins_or_where_the_toc_does() -> None:
    toc = read(
        {"name": "etc/", "type": "dir", "mode": 0o755},
        {
            "name": "etc/a",
            "type": "reg",
            "size": 7,
            "offset": 100,
            "chunkSize": 4,
            "chunkDigest": A,
            "digest": B,
        },
        {"name": "etc/a", "type": "chunk", "offset": 200, "chunkOffset": 4, "chunkDigest": B},
    )

    content = toc.entries[1].content
    assert [entry.member.type for entry in toc.entries] == [Type.DIRECTORY, Type.FILE]
    assert content is not None
    assert [(piece.offset, piece.end, piece.start, piece.size) for piece in content.pieces] == [
        (100, 200, 0, 4),
        (200, END, 4, 3),
    ]
