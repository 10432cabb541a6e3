"""Rows about names that lead elsewhere, and names that cannot be."""

from layerfs.errors import InvalidArchive, PathEscape
from tests.bad_layers.attack import PWNED, UP, Table, directory, hardlink, symlink
from tests.support.rawtar import (
    FIFO,
    archive,
    gnu_long,
    header,
    member,
    pax,
)


def add_names(to: Table) -> None:
    """Names that lead elsewhere, and names that cannot be."""
    to.accepted("leading slash", "etc etc/x", member(b"/etc/x"))
    to.accepted("many leading slashes and dots", "etc etc/x", member(b"//.//./etc/./x"))
    to.accepted("a root by the name of a slash", "", directory(b"/"))
    to.accepted("a root by the name of dot slash", "", directory(b"./", mode=0o700))
    to.built(
        "absolute name of a file outside",
        lambda outside: archive(pax([(b"path", outside + b"/victim")]), member(b"x", PWNED)),
        leaves=None,
        escapes=True,
    )
    for label, name in {
        "dot dot to a file outside": UP + b"/victim",
        "dot dot to a new name outside": UP + b"/new",
        "dot dot behind a directory": b"d/../" + UP + b"/victim",
        "dot dot behind a dot": b"./" + UP + b"/new",
        "beside the layer": b"../new",
    }.items():
        to.refused(label, PathEscape, [name.decode(), "'..'"], member(name, PWNED), escapes=True)
    to.refused("dot dot behind a slash", PathEscape, ["'..'"], member(b"/" + UP + b"/victim", PWNED))
    to.refused("the parent itself", PathEscape, ["..", "'..'"], directory(b"..", mode=0o777), escapes=True)
    to.refused("a directory outside", PathEscape, ["'..'"], directory(UP + b"/d", mode=0o777), escapes=True)
    to.refused("a symlink outside", PathEscape, ["'..'"], symlink(UP + b"/new", b"x"), escapes=True)
    to.refused("a fifo outside", PathEscape, ["'..'"], header(UP + b"/new", FIFO), escapes=True)
    to.refused("dot dot that stays inside", PathEscape, ["a/../b", "'..'"], member(b"a/../b"))
    to.refused("dot dot at the end", PathEscape, ["a/..", "'..'"], directory(b"a/.."))
    to.accepted("dots that are names", "... ..a a..", member(b"..."), member(b"..a"), member(b"a.."))
    to.refused("dot dot in the prefix", PathEscape, ["'..'"], member(b"new", PWNED, prefix=UP), escapes=True)
    to.refused(
        "dot dot in a PAX path",
        PathEscape,
        ["'..'"],
        pax([(b"path", UP + b"/victim")]),
        member(b"x", PWNED),
        escapes=True,
    )
    to.refused(
        "dot dot in a long name",
        PathEscape,
        ["'..'"],
        gnu_long(UP + b"/victim"),
        member(b"x", PWNED),
        escapes=True,
    )
    to.refused("an empty name", InvalidArchive, ["empty name"], member(b""))
    to.refused("an empty long name", InvalidArchive, ["empty name"], gnu_long(b""), member(b"x"))
    to.refused("a NUL in a name", InvalidArchive, ["path", "NUL"], pax([(b"path", b"a\0b")]), member(b"x"))
    to.refused("a component of 256 bytes", InvalidArchive, ["nnn", "255"], gnu_long(b"n" * 256), member(b"x"))
    to.refused("the root as a file", InvalidArchive, [".", "root"], member(b".", b"x"))
    to.refused("the root as a symlink", InvalidArchive, ["./", "root"], symlink(b"./", b"/"), escapes=False)
    to.refused("the root as a hard link", InvalidArchive, ["root"], member(b"a"), hardlink(b"/", b"a"))
    to.accepted("control characters", "a\x1b[31m", member(b"a\x1b[31m"))
