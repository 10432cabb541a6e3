"""Rows about kinds of files, and about markers."""

from layerfs.errors import InvalidArchive, InvalidWhiteout, PathEscape
from tests.bad_layers.attack import UP, Table, directory, hardlink, symlink
from tests.support.rawtar import (
    CHARACTER,
    FIFO,
    archive,
    base256,
    header,
    member,
    pax,
)


def add_types(to: Table) -> None:
    """One kind of file where another is needed, kinds that do not exist, devices."""
    to.refused("a file as a directory", InvalidArchive, ["f is no directory"], member(b"f"), member(b"f/x"))
    to.refused(
        "a fifo as a directory", InvalidArchive, ["f is no directory"], header(b"f", FIFO), member(b"f/x")
    )
    to.accepted("a file over a directory", "d", directory(b"d"), member(b"d/x"), member(b"d"))
    to.accepted("a directory over a file", "f f/x", member(b"f"), directory(b"f"), member(b"f/x"))
    for kind in b"Zz8AEINM~\x01\xff":
        name = bytes([kind])
        to.refused(f"type {name!r}", InvalidArchive, ["x", "unknown type"], member(b"x", type=name))
    device = {"name": b"c", "type": CHARACTER}
    to.accepted("a 0:0 device", "", header(**device), hardlink(b"h", b"c"))
    to.accepted(
        "a hard link to what replaced a 0:0 device",
        "c h",
        header(**device),
        member(b"c"),
        hardlink(b"h", b"c"),
    )
    to.built(
        "a 0:0 device over what an own marker needs",
        lambda _: archive(member(b".wh.c"), header(b"c", CHARACTER)),
        leaves=frozenset({".wh.c", "c"}),
    )
    to.refused(
        "a major number too large", InvalidArchive, ["c", "device 4096:0"], header(**device, major=4096)
    )
    to.refused(
        "a minor number too large", InvalidArchive, ["c", "1048576"], header(**device, minor=1 << 20, major=1)
    )
    to.refused(
        "a negative device number", InvalidArchive, ["c", "device"], header(**device, major=base256(-1, 8))
    )
    for attribute in (b"trusted.overlay.opaque", b"user.overlay.whiteout", b"trusted.overlay.redirect"):
        records = [(b"SCHILY.xattr." + attribute, b"y")]
        to.accepted(f"overlay attribute {attribute.decode()}", "d", pax(records), directory(b"d"))


def add_markers(to: Table) -> None:
    """Whiteout markers."""
    for name in (b".wh.", b".wh..", b".wh...", b"d/.wh.", b"d/.wh..", b"/.wh..."):
        to.refused(
            f"marker {name.decode()}",
            InvalidWhiteout,
            [name.decode().lstrip("/"), "hides nothing"],
            member(name),
        )
        to.refused(f"directory {name.decode()}", InvalidWhiteout, ["hides nothing"], directory(name))
    to.refused("marker with a slash", InvalidWhiteout, [".wh.a/b", "below a marker"], member(b".wh.a/b"))
    to.refused("marker that hides dot dot slash", PathEscape, ["'..'"], member(b".wh./../" + UP + b"/new"))
    to.refused("markers within markers", InvalidWhiteout, ["below a marker"], member(b"d/.wh.a/.wh.b"))
    to.refused("an entry in an opaque marker", InvalidWhiteout, ["below a marker"], member(b".wh..wh..opq/x"))
    to.accepted("an opaque marker as a directory", ".wh..wh..opq", directory(b".wh..wh..opq"))
    to.accepted("a marker as a directory", ".wh.x x", directory(b".wh.x"))
    to.accepted("a marker as a symlink", ".wh.x x", symlink(b".wh.x", UP + b"/victim"))
    to.accepted("a marker as a fifo", ".wh.x x", header(b".wh.x", FIFO))
    to.accepted("a reserved marker that hides a prefix", ".wh..wh.", member(b".wh..wh."))
    to.accepted("AUFS's own directory", ".wh..wh.plnk .wh..wh.plnk/1.2", member(b".wh..wh.plnk/1.2"))
    for marker in (b".wh.victim", b".wh..wh..opq"):
        to.refused(
            f"{marker.decode()} through a symlink",
            PathEscape,
            ["l is a symlink"],
            symlink(b"l", UP),
            member(b"l/" + marker),
            escapes=True,
        )
        to.refused(
            f"{marker.decode()} in a directory that becomes a symlink, then its device",
            PathEscape,
            ["d is a symlink"],
            member(b"d/" + marker),
            symlink(b"d", UP),
            member(b"d/x"),
            escapes=True,
        )
    to.accepted(
        "a marker in a directory that becomes a symlink", "d", member(b"d/.wh.victim"), symlink(b"d", UP)
    )
