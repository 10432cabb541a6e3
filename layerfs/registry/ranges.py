"""Which bytes are asked for, and where those of an answer start (RFC 9110, section 14). Pure.

A server may ignore Range; a pull-through cache does for a blob that it does not have yet.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from layerfs.errors import RegistryMisbehaved

_CONTENT_RANGE: Final = re.compile(r"bytes\s+(\d{1,19})-(\d{1,19})/(\d{1,19}|\*)", re.IGNORECASE | re.ASCII)


class Range(msgspec.Struct, frozen=True):
    """Bytes of a resource: those from *first* to *last*, both included."""

    first: int = 0
    last: int | None = None
    """None for the end of the resource."""

    @property
    def header(self) -> str | None:
        """The value of Range; None where all is asked for."""
        if self.last is None:
            return f"bytes={self.first}-" if self.first else None
        return f"bytes={self.first}-{self.last}"


ALL: Final = Range()


def part_of_body(asked: Range, size: int, status: int, headers: Mapping[str, str]) -> tuple[int, int]:
    """Say which bytes of a blob of *size* bytes the body is: from the first to before the second.

    All of them for a status 200. For 206 those that were *asked* for, or fewer of them: a server may send a
    shorter part (RFC 9110, section 15.3.7). Raises RegistryMisbehaved for a range that was not asked for:
    appending it would damage a download that can still be saved.
    """
    if status != 206:
        return 0, size
    text = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(text.strip())
    most = size - 1 if asked.last is None else asked.last
    if match is not None:
        first, last, total = int(match[1]), int(match[2]), size if match[3] == "*" else int(match[3])
        if first == asked.first and first <= last <= most and total == size:
            return first, last + 1
    raise RegistryMisbehaved(f"Content-Range: {text[:100]!r} (expected bytes {asked.first}-{most}/{size})")
