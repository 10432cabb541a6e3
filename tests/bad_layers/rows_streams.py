"""Rows about what is no archive, ends too early, goes on, or is too much."""

import gzip
from functools import partial

from layerfs.errors import BudgetExceeded, InvalidArchive
from tests.bad_layers.attack import MIB, Table, hardlink
from tests.support.rawtar import (
    archive,
    gnu_long,
    header,
    member,
)


def _with_garbage(magic: bytes, _: bytes) -> bytes:
    return magic + b"garbage" * 99


def add_streams(to: Table) -> None:
    """What is no archive, ends too early or goes on."""
    whole = archive(member(b"x", b"content"))
    to.built("garbage after the end", lambda _: whole + b"garbage" * 1000, leaves=frozenset({"x"}))
    to.built(
        "another archive after the end", lambda _: whole + archive(member(b"y")), leaves=frozenset({"x"})
    )
    to.built("one block of zeros at the end", lambda _: whole[:-512], leaves=frozenset({"x"}))
    to.built("nothing but zeros", lambda _: bytes(1024))
    text = b"this is no archive at all\n" * 100
    to.built("text", lambda _: text, InvalidArchive, says=["no tar archive", "begins with"])
    to.built("nothing", lambda _: b"")
    to.built("no end mark", lambda _: whole[:-1024], leaves=frozenset({"x"}))
    to.built("a part of a block", lambda _: whole[:300], InvalidArchive, says=["truncated"])
    to.refused("zeros between members", InvalidArchive, ["zeros"], member(b"x"), bytes(512), member(b"y"))
    packed = gzip.compress(whole, mtime=0)
    to.built("gzip cut in the middle", lambda _: packed[: len(packed) // 2], InvalidArchive, says=["gzip"])
    to.built("gzip without its checksum", lambda _: packed[:-8], InvalidArchive, says=["gzip"])
    wrong = packed[:-8] + bytes([packed[-8] ^ 1]) + packed[-7:]
    to.built("gzip with a wrong checksum", lambda _: wrong, InvalidArchive, says=["gzip"])
    to.built("gzip and garbage", lambda _: packed + b"garbage", InvalidArchive, says=["gzip"])
    to.built("gzip and zeros", lambda _: packed + bytes(100), leaves=frozenset({"x"}))
    to.built(
        "gzip of two members",
        lambda _: gzip.compress(whole[:512]) + gzip.compress(whole[512:]),
        leaves=frozenset({"x"}),
    )
    for magic in (b"\x28\xb5\x2f\xfd", b"BZh9", b"\xfd7zXZ\0", b"\x1f\x8b"):
        to.built(f"{magic!r} and garbage", partial(_with_garbage, magic), InvalidArchive)


def add_budgets(to: Table) -> None:
    """What is only too much."""
    entries = b"".join(header(b"f%d" % number) for number in range(1001))
    packed = gzip.compress(archive(entries))
    to.built(
        "entries",
        lambda _: packed,
        BudgetExceeded,
        says=["1000 entries", "max_entries"],
        budgets={"max_entries": 1000},
    )
    deep = gnu_long(b"d/" * 300 + b"x")
    to.refused("depth", BudgetExceeded, ["d/d/d", "301 components", "max_depth"], deep, member(b"x"))
    to.refused(
        "depth of a hard link",
        BudgetExceeded,
        ["max_depth"],
        gnu_long(b"d/" * 300 + b"x", b"K"),
        hardlink(b"x", b"y"),
    )
    names = [b"d%03d/" % number for number in range(100)]
    for what, parts in {
        "markers": [member(name + b".wh.x") for name in names],
        "implied directories": [member(name * 8 + b"x") for name in names],
        "links to later entries": [hardlink(b"l" + name[:-1], b"later") for name in names]
        + [member(b"later")],
        "skipped entries": [header(b"s" + name[:-1], b"3") for name in names],
    }.items():
        to.refused(
            what, BudgetExceeded, ["too many", "max_record_bytes"], *parts, budgets={"max_record_bytes": 6000}
        )
    one = member(b"x", bytes(600_000))
    to.refused("bytes", BudgetExceeded, ["max_layer_bytes"], one, one, budgets={"max_layer_bytes": MIB})
    bomb = gzip.compress(archive(member(b"zeros", bytes(80 * MIB))), compresslevel=1)
    to.built("ratio", lambda _: bomb, BudgetExceeded, says=["max_ratio"], budgets={"max_ratio": 50})
