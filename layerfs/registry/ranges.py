"""Where the bytes of an answer start (RFC 9110, section 14). Pure.

A server may ignore Range; a pull-through cache does for a blob that it does not have yet.
"""

import re
from collections.abc import Mapping

from layerfs.errors import RegistryMisbehaved

_CONTENT_RANGE = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)


def start_of_body(asked: int, size: int, status: int, headers: Mapping[str, str]) -> int:
    """Say at which offset of a blob of *size* bytes the body starts: *asked*, or 0 for a status 200.

    Raises RegistryMisbehaved for a range that was not asked for: appending it would damage a
    download that can still be saved.
    """
    if status != 206:
        return 0
    text = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    if match is not None:
        total = size if match[3] == "*" else int(match[3])
        if (int(match[1]), int(match[2]), total) == (asked, size - 1, size):
            return asked
    raise RegistryMisbehaved(f"Content-Range: {text[:100]!r} (expected bytes {asked}-{size - 1}/{size})")
