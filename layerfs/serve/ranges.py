"""Which part of what a digest names is sent: ranges and conditions of RFC 9110, sections 13 and 14. Pure.

One range is answered; several at once are not, which the RFC allows (section 14.2): the whole is sent.
"""

import re
from collections.abc import Mapping
from typing import Final

from layerfs.serve.replies import Answer, BlobPart, Header, Refused, Served

_RANGE: Final = re.compile(
    r"bytes=(?:(?P<first>\d{1,18})-(?P<last>\d{1,18})?|-(?P<suffix>\d{1,18}))", re.ASCII
)
_WEAK: Final = "W/"


def answer(content: Served, method: str, headers: Mapping[str, str]) -> Answer:
    """Return the answer to a request for *content*; *headers* have lower-case names. Raises Refused."""
    etag = f'"{content.digest}"'
    about: tuple[Header, ...] = (
        ("Content-Type", content.media_type),
        ("Docker-Content-Digest", str(content.digest)),
        ("ETag", etag),
    )
    if _is_known(etag, headers.get("if-none-match", "")):
        return Answer(304, about)
    if isinstance(content.body, bytes):
        return Answer(200, about, content.body)
    about += (("Accept-Ranges", "bytes"),)
    asked = headers.get("range", "") if method == "GET" and headers.get("if-range", etag) == etag else ""
    match _part(asked, content.size):
        case (start, stop):
            about += (("Content-Range", f"bytes {start}-{stop - 1}/{content.size}"),)
            return Answer(206, about, BlobPart(content.body, start, stop))
        case None:
            raise Refused(
                416,
                "RANGE_INVALID",
                f"{asked[:100]}: not in {content.digest}, which has {content.size} bytes",
                ("Content-Range", f"bytes */{content.size}"),
            )
    return Answer(200, about, BlobPart(content.body, 0, content.size))


def _part(asked: str, size: int) -> tuple[int, int] | tuple[()] | None:
    """Return start and stop, nothing for the whole, None for what cannot be had."""
    match = _RANGE.fullmatch(asked.replace(" ", ""))
    if match is None:
        return ()
    if match["suffix"] is not None:
        length = min(int(match["suffix"]), size)
        return (size - length, size) if length else None
    first = int(match["first"])
    last = int(match["last"]) if match["last"] is not None else size - 1
    if match["last"] is not None and last < first:
        return ()  # section 14.1.1: such a range is invalid, and so is ignored
    return (first, min(last + 1, size)) if first < size else None


def _is_known(etag: str, known: str) -> bool:
    tags = (tag.strip().removeprefix(_WEAK) for tag in known.split(","))
    return known.strip() == "*" or etag in tags
