"""Rows about symlinks of the archive, what goes through them, and hard links."""

from layerfs.errors import InvalidArchive, InvalidLayer, PathEscape
from tests.bad_layers.attack import PWNED, UP, Table, directory, hardlink, symlink
from tests.support.rawtar import (
    FIFO,
    archive,
    gnu_long,
    header,
    member,
    pax,
)


def add_symlinks(to: Table) -> None:
    """Symlinks of the archive, and what tries to go through them."""
    through = {
        "a file": member(b"l/new", PWNED),
        "a directory": directory(b"l/new"),
        "a fifo": header(b"l/new", FIFO),
    }
    for label, second in through.items():
        to.refused(
            f"{label} through a symlink",
            PathEscape,
            ["l", "symlink"],
            symlink(b"l", UP),
            second,
            escapes=True,
        )
    to.built(
        "a file through an absolute symlink",
        lambda outside: archive(symlink(b"l", outside), member(b"l/victim", PWNED)),
        PathEscape,
        says=["l is a symlink"],
        escapes=True,
    )
    to.refused(
        "a file through a chain of symlinks",
        PathEscape,
        ["b is a symlink"],
        symlink(b"a", UP),
        symlink(b"b", b"a"),
        member(b"b/victim", PWNED),
        escapes=True,
    )
    to.refused(
        "a file through a symlink to the parent",
        PathEscape,
        ["p is a symlink"],
        symlink(b"p", b".."),
        member(b"p/new", PWNED),
        escapes=True,
    )
    to.refused(
        "a file deep below a symlink",
        PathEscape,
        ["d/l is a symlink"],
        symlink(b"d/l", b"../" + UP),
        member(b"d/l/d/new", PWNED),
        escapes=True,
    )
    to.refused(
        "a symlink in place of a directory in use",
        PathEscape,
        ["d is a symlink"],
        member(b"d/x"),
        symlink(b"d", UP),
        member(b"d/new", PWNED),
        escapes=True,
    )
    to.refused(
        "a symlink in place of a directory with directories",
        PathEscape,
        ["d is a symlink"],
        directory(b"d/e/f"),
        member(b"d/e/f/x"),
        symlink(b"d", UP),
        member(b"d/e/f/x", PWNED),
    )
    to.refused("a symlink to itself", PathEscape, ["l is a symlink"], symlink(b"l", b"l"), member(b"l/x"))
    to.accepted(
        "a file over a symlink", "f", symlink(b"f", UP + b"/victim"), member(b"f", PWNED), escapes=True
    )
    to.accepted(
        "a directory over a symlink, and its late mode",
        "l l/x",
        symlink(b"l", UP + b"/d"),
        directory(b"l", mode=0o777),
        member(b"l/x", PWNED),
        escapes=True,
    )
    to.accepted(
        "a hard link over a symlink, then a file over that",
        "f g",
        symlink(b"f", UP + b"/victim"),
        hardlink(b"g", b"f"),
        member(b"g", PWNED),
        escapes=True,
    )
    to.accepted(
        "owner, mode and time of a symlink",
        "l",
        symlink(b"l", UP + b"/victim", mode=0o4777, uid=1234, gid=1234, mtime=1),
        escapes=True,
    )
    to.accepted(
        "xattrs of a symlink",
        "l",
        pax([(b"SCHILY.xattr.user.pwned", b"x"), (b"SCHILY.xattr.trusted.pwned", b"x")]),
        symlink(b"l", UP + b"/victim"),
        escapes=True,
    )
    to.accepted("a symlink that leads outside, by itself", "l", symlink(b"l", b"/"))
    to.refused("a symlink to nothing", InvalidArchive, ["l", "symlink to nothing"], symlink(b"l", b""))
    to.refused(
        "a symlink to a NUL", InvalidArchive, ["NUL"], pax([(b"linkpath", b"a\0b")]), symlink(b"l", b"x")
    )
    to.refused(
        "a symlink too long",
        InvalidArchive,
        ["l", "too long"],
        gnu_long(b"a/" * 2500, b"K"),
        symlink(b"l", b"x"),
    )


def add_hard_links(to: Table) -> None:
    """Hard links to what is not the layer's."""
    to.refused(
        "a hard link to a file outside",
        PathEscape,
        ["'..'"],
        hardlink(b"h", UP + b"/victim"),
        member(b"h", PWNED),
        escapes=True,
    )
    to.built(
        "a hard link to an absolute name",
        lambda outside: archive(
            pax([(b"linkpath", outside + b"/victim")]), hardlink(b"h", b"x"), member(b"h/../h", PWNED)
        ),
        InvalidLayer,
        says=["h"],
    )
    to.built(
        "a hard link to an absolute name, alone",
        lambda outside: archive(pax([(b"linkpath", outside + b"/victim")]), hardlink(b"h", b"x")),
        InvalidArchive,
        says=["h: a hard link to", "does not exist"],
        escapes=True,
    )
    to.refused(
        "a hard link through a symlink",
        PathEscape,
        ["l is a symlink"],
        symlink(b"l", UP),
        hardlink(b"h", b"l/victim"),
        escapes=True,
    )
    to.refused(
        "a hard link placed through a symlink",
        PathEscape,
        ["l is a symlink"],
        member(b"x"),
        symlink(b"l", UP),
        hardlink(b"l/new", b"x"),
        escapes=True,
    )
    to.refused(
        "a late hard link through a symlink",
        PathEscape,
        ["is a symlink"],
        hardlink(b"h", b"l/victim"),
        symlink(b"l", UP),
        escapes=True,
    )
    to.refused(
        "a late hard link placed through a symlink",
        InvalidLayer,
        ["d"],
        hardlink(b"d/new", b"x"),
        symlink(b"d", UP),
        hardlink(b"d/new", b"x"),
        member(b"x"),
    )
    to.refused(
        "a hard link to a directory",
        InvalidArchive,
        ["h", "directory d"],
        directory(b"d"),
        hardlink(b"h", b"d"),
    )
    to.refused("a hard link to the root", InvalidArchive, ["h", "directory"], hardlink(b"h", b"."))
    to.refused(
        "a hard link to nothing", InvalidArchive, ["h", "x, which does not exist"], hardlink(b"h", b"x")
    )
    to.refused("a hard link without a target", InvalidArchive, ["h", "nothing"], hardlink(b"h", b""))
    to.refused("a hard link to itself", InvalidArchive, ["h", "does not exist"], hardlink(b"h", b"h"))
    to.refused(
        "hard links in a circle",
        InvalidArchive,
        ["does not exist"],
        hardlink(b"a", b"b"),
        hardlink(b"b", b"a"),
    )
    to.refused(
        "a hard link below a file",
        InvalidArchive,
        ["f is no directory"],
        member(b"f"),
        hardlink(b"f/h", b"f"),
    )
