"""Where the bytes of an answer start (RFC 9110, section 14). Pure.

A server may ignore Range; a pull-through cache does for a blob that it does not have yet.
"""

import re
from collections.abc import Mapping

from layerfs.errors import RegistryMisbehaved

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE)


def start_of_body(asked: int, size: int, status: int, headers: Mapping[str, str]) -> int | None:
    """Say at which offset of the blob the body starts; None to ask again from 0.

    *asked* is the first byte asked for, *size* the blob's. Raises RegistryMisbehaved for a range
    that was not asked for: appending it would damage a download that can still be saved.
    """
    if status == 416:
        return None
    if status != 206:
        return 0
    text = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is None:
        raise RegistryMisbehaved(f"Content-Range: {text[:100]!r} (expected bytes {asked}-{size - 1}/{size})")
    first, last = int(match[1]), int(match[2])
    total = size if match[3] == "*" else int(match[3])
    if (first, last, total) != (asked, size - 1, size):
        raise RegistryMisbehaved(f"Content-Range: {text[:100]!r} (expected bytes {asked}-{size - 1}/{size})")
    return first
