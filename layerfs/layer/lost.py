"""What a filesystem or an unprivileged writer could not carry, as the short text that records hold.

Pure; written by `layerfs.extract`, read by `view`. The text is words separated by spaces: ``mode=104755``
(octal, with the file type if another one stands on disk), ``owner=1000:50``, ``device=1:3``, and
``xattr:<name>=<base64>`` for each attribute. A word that is missing means: as on disk, or 0:0 for the owner.
"""

import base64
from typing import Self

import msgspec

from layerfs.layer.names import from_text, to_text

_XATTR = "xattr:"


class Lost(msgspec.Struct, frozen=True):
    """The metadata of one entry that is not on disk; None or empty for what is."""

    mode: int | None = None
    """Permission bits; with a file type (stat.S_IFMT) where the disk has a placeholder of another type."""
    owner: tuple[int, int] | None = None
    device: tuple[int, int] | None = None
    xattrs: dict[bytes, bytes] = msgspec.field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises ValueError."""
        mode, pairs, xattrs = None, {}, {}
        for word in text.split(" "):
            key, _, value = word.removeprefix(_XATTR).partition("=")
            if word.startswith(_XATTR):
                xattrs[from_text(key)] = base64.b64decode(value)
            elif key == "mode":
                mode = int(value, 8)
            else:
                first, _, second = value.partition(":")
                pairs[key] = (int(first), int(second))
        return cls(mode, pairs.get("owner"), pairs.get("device"), xattrs)

    def __str__(self) -> str:
        words = []
        if self.mode is not None:
            words.append(f"mode={self.mode:o}")
        for name, pair in (("owner", self.owner), ("device", self.device)):
            if pair is not None:
                words.append(f"{name}={pair[0]}:{pair[1]}")
        for key, value in self.xattrs.items():
            name = to_text(key).replace(" ", "\\x20").replace("=", "\\x3d")
            words.append(f"{_XATTR}{name}={base64.b64encode(value).decode()}")
        return " ".join(words)
