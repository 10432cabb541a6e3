"""Random stacks of layers for hypothesis: few names, so that layers meet; every sort of entry and marker.

A layer is a list of `images.Entry` in any order: markers before and after content, directories after what
lies in them, or never listed, hard links before their targets, now and then a name twice. Names below a file
of the same layer do not occur.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.support.images import (
    TIME,
    Entry,
    chardev,
    directory,
    fifo,
    file,
    hardlink,
    opaque,
    symlink,
    whiteout,
)

patiently = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
"""For properties of stacks, which take a while to draw on a busy machine."""

_NAMES = (b"a", b"b", b"c", b"\xff d")
_DEPTH = 3
_LEAVES = ("file", "file", "symlink", "hardlink", "fifo", "device", "directory", "directory", "directory")


@dataclass(frozen=True, slots=True)
class Stack:
    """Layers, base first; equal layers stand in it as the same object."""

    layers: tuple[tuple[Entry, ...], ...]

    def __repr__(self) -> str:
        lines = [f"  # layer {number}\n{_describe(layer)}" for number, layer in enumerate(self.layers)]
        return "Stack(\n" + "\n".join(lines) + "\n)"


def _describe(layer: Sequence[Entry]) -> str:
    defaults = Entry(name="")
    rows = []
    for entry in layer:
        said = {name: getattr(entry, name) for name in Entry.__slots__}
        rows.append({name: value for name, value in said.items() if value != getattr(defaults, name)})
    return "\n".join(f"    {row}" for row in rows)


@st.composite
def stacks(draw: st.DrawFn, *, max_layers: int = 6) -> Stack:
    """Draw a stack; a layer may occur in it more than once."""
    distinct = draw(st.lists(layers(), min_size=1, max_size=max_layers - 1))
    numbers = list(range(len(distinct)))
    repeated = draw(st.lists(st.sampled_from(numbers), max_size=1))
    order = draw(st.permutations(numbers + repeated))
    return Stack(tuple(distinct[number] for number in order))


@st.composite
def layers(draw: st.DrawFn) -> tuple[Entry, ...]:
    """Draw one layer."""
    entries: list[Entry] = []
    links: list[tuple[bytes, dict[str, Any]]] = []
    _draw_directory(draw, b"", 0, entries, links)
    targets = [entry for entry in entries if entry.kind != b"5" and b"/.wh." not in b"/" + _raw(entry)]
    if targets and links:
        entries += [
            hardlink(name, _raw(draw(st.sampled_from(targets))), **attributes) for name, attributes in links
        ]
    elif entries and draw(st.integers(0, 2)) == 0:
        entries += draw(_again(entries))
    return tuple(draw(st.permutations(entries)))


@st.composite
def _again(draw: st.DrawFn, entries: Sequence[Entry]) -> list[Entry]:
    """Draw another entry for a name that no entry needs as its directory."""
    names = [_raw(entry) for entry in entries]
    free = [name for name in names if not any(other.startswith(name + b"/") for other in names)]
    free = [name for name in free if b"/.wh." not in b"/" + name and name != b"."]
    return [draw(_leaf(draw(st.sampled_from(free)), draw(st.sampled_from(_LEAVES))))] if free else []


def _raw(entry: Entry) -> bytes:
    assert isinstance(entry.name, bytes)
    return entry.name


def _draw_directory(
    draw: st.DrawFn,
    path: bytes,
    depth: int,
    entries: list[Entry],
    links: list[tuple[bytes, dict[str, Any]]],
) -> None:
    """Draw what lies in one directory; adds its hard links, which want targets, to *links*."""
    prefix = path + b"/" if path else b""
    for name in draw(st.lists(st.sampled_from(_NAMES), unique=True, max_size=3)):
        what = draw(st.sampled_from(_LEAVES))
        if what == "directory" and depth < _DEPTH:
            if draw(st.booleans()):
                entries.append(directory(prefix + name, **draw(_attributes(xattrs=True))))
            _draw_directory(draw, prefix + name, depth + 1, entries, links)
        elif what == "hardlink":
            links.append((prefix + name, draw(_attributes(xattrs=False))))
        else:
            entries.append(draw(_leaf(prefix + name, what)))
    hidden = draw(st.lists(st.sampled_from(_NAMES), unique=True, max_size=2))
    entries += [whiteout(prefix + name) for name in hidden]
    rare = draw(st.integers(0, 11))
    if rare < 2:
        entries.append(opaque(path))
    elif rare == 2:
        entries.append(file(prefix + b".wh..wh.aufs"))
    elif rare == 3 and not path:
        entries.append(directory(b".", **draw(_attributes(xattrs=True))))


@st.composite
def _attributes(draw: st.DrawFn, *, xattrs: bool) -> dict[str, Any]:
    return {
        "mode": draw(st.sampled_from((0o755, 0o1777, 0o700, 0o2750, 0o4711, 0o444))),
        "uid": draw(st.sampled_from((0, 1000, 70_000))),
        "gid": draw(st.sampled_from((0, 1000))),
        "mtime": draw(st.sampled_from((TIME, TIME + 0.25, 0, -1.75))),
        "xattrs": draw(st.sampled_from(({}, {"user.comment": b"one"}, {"user.x": b"\x00\xff"})))
        if xattrs
        else {},
    }


@st.composite
def _leaf(draw: st.DrawFn, name: bytes, what: str) -> Entry:
    attributes = draw(_attributes(xattrs=what == "file"))
    if what == "symlink":
        del attributes["mode"]
        return symlink(name, draw(st.sampled_from((b"a", b"../b", b"/a/b", b"nowhere"))), **attributes)
    if what == "fifo":
        return fifo(name, **attributes)
    if what == "directory":
        return directory(name, **attributes)
    if what == "device":
        return chardev(name, 1, draw(st.sampled_from((3, 5))), **attributes)
    return file(name, draw(st.sampled_from((b"", b"one", b"another"))), **attributes)
