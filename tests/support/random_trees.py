"""Random small trees on disk, for programs that archive them. Imports nothing of layerfs; needs root.

`make(number, directory, rich=...)` makes the same tree each time. A modest one has what every format carries:
short names of text, small owners, whole seconds. A rich one has what some lose.
"""

import os
import random
from pathlib import Path
from stat import S_IFCHR, S_IFIFO
from typing import Final

_MODEST: Final = (b"a", b"b", b"c", b"d e", b"name.txt", b".hidden", b"x" * 20)
_RICH: Final = (
    *_MODEST,
    b"\xff\xfe",
    b"\xc3\xa9",
    b"y" * 255,
    b"new\nline",
    b"=",
    b"\\",
    b".wh.b",
    b".wh..wh..opq",
)
_SIZES: Final = (0, 1, 511, 512, 513, 10_240, 70_000)
_MODES: Final = (0o644, 0o755, 0o600, 0o4755, 0o2711, 0o1777, 0o444)
_HOLE: Final = 1 << 20


def make(number: int, top: Path, *, rich: bool) -> None:
    """Fill the directory *top*."""
    _Grower(random.Random(number), rich).grow(os.fsencode(top))


class _Grower:
    def __init__(self, draw: random.Random, rich: bool) -> None:
        self._draw = draw
        self._rich = rich
        self._files: list[bytes] = []
        """For hard links."""

    def grow(self, top: bytes, depth: int = 0) -> None:
        """Fill a directory; its own attributes last, which entries would change."""
        draw = self._draw
        for name in draw.sample(_RICH if self._rich else _MODEST, draw.randint(1, 5)):
            path = os.path.join(top, name)
            if name.startswith(b".wh."):
                self._write(path, b"")
            elif depth < 3 and draw.random() < 0.35:
                os.mkdir(path)
                self.grow(path, depth + 1)
            else:
                self._leaf(path)
        self._dress(top)

    def _leaf(self, path: bytes) -> None:
        draw = self._draw
        kind = draw.choice(("file", "file", "symlink", "link", "sparse", "fifo", "device"))
        if kind == "link" and self._files:
            os.link(draw.choice(self._files), path)
        elif kind == "symlink":
            targets = [b"a", b"../b", b"/etc/a", b"nowhere"]
            os.symlink(draw.choice([*targets, b"t" * 150, b"\xff"] if self._rich else targets), path)
            self._dress(path, has_mode=False)
        elif kind in ("fifo", "device") and self._rich:
            number = os.makedev(draw.choice((1, 7)), draw.choice((3, 200)))
            os.mknod(
                path, (S_IFIFO if kind == "fifo" else S_IFCHR) | 0o600, number if kind == "device" else 0
            )
            self._dress(path)
        elif kind == "sparse":
            self._write(path, draw.randbytes(4096), hole=draw.choice((0, _HOLE)))
        else:
            self._write(path, draw.randbytes(draw.choice(_SIZES)))
            self._files.append(path)

    def _write(self, path: bytes, content: bytes, hole: int = 0) -> None:
        with open(path, "wb") as file:
            file.seek(hole)
            file.write(content)
            if hole:
                file.truncate(2 * hole)
        self._dress(path)

    def _dress(self, path: bytes, *, has_mode: bool = True) -> None:
        draw = self._draw
        owners = (0, 1, 1000, 65_534, 3_000_000) if self._rich else (0, 1, 1000, 65_534)
        os.chown(path, draw.choice(owners), draw.choice(owners), follow_symlinks=False)
        if has_mode:
            os.chmod(path, draw.choice(_MODES))
        if self._rich and os.path.isfile(path) and not os.path.islink(path) and draw.random() < 0.3:
            os.setxattr(path, b"user.comment", draw.choice((b"text", b"\0binary\n=", b"x" * 300)))
        times = (1_700_000_000, 0, 1, 8_000_000_000)
        seconds = draw.choice((*times, -5, 9_000_000_000) if self._rich else times)
        # Below a half, and of no time before 1970: so all that round or cut do the same.
        fraction = draw.choice((0, 250_000_000, 123_456_789)) if self._rich and seconds > 0 else 0
        os.utime(path, ns=(0, seconds * 10**9 + fraction), follow_symlinks=False)
