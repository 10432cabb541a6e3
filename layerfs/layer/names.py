"""Names of entries: bytes in the archive and on disk, text in records and JSON.

People are shown `layerfs.layer.paths.shown`.
"""

import re

_SAFE = re.compile(rb"[^\x00-\x1f\x7f\\]*")
_ESCAPE = re.compile(r"\\x([0-9a-f]{2})")


def to_text(name: bytes) -> str:
    r"""Return *name* as text that `from_text` turns back; what is no plain UTF-8 becomes ``\xNN``."""
    if _SAFE.fullmatch(name):
        try:
            return name.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return "".join(chr(byte) if 0x20 <= byte < 0x7F and byte != 0x5C else f"\\x{byte:02x}" for byte in name)


def from_text(text: str) -> bytes:
    """Undo `to_text`."""
    if "\\" not in text:
        return text.encode("utf-8")
    parts = _ESCAPE.split(text)
    return b"".join(
        bytes.fromhex(part) if number % 2 else part.encode("utf-8") for number, part in enumerate(parts)
    )
