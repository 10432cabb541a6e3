"""Rows about what headers say."""

from layerfs.errors import BudgetExceeded, InvalidArchive, InvalidLayer, PathEscape
from tests.bad_layers.attack import MIB, UP, Table
from tests.support.rawtar import (
    base256,
    gnu_long,
    header,
    member,
    pax,
)


def add_numbers(to: Table) -> None:
    """Sizes, owners, times and checksums."""
    to.refused("a negative size", InvalidArchive, ["x", "size -1"], header(b"x", size=base256(-1, 12)))
    to.refused(
        "size without digits", InvalidArchive, ["size", "no number"], header(b"x", size=b"zzzzzzzzzzz\0")
    )
    to.refused("size beyond the end", InvalidArchive, ["x"], header(b"x", size=1 << 20), bytes(512))
    to.refused(
        "size beyond all disks",
        BudgetExceeded,
        ["x", "max_layer_bytes"],
        header(b"x", size=base256(1 << 62, 12)),
    )
    to.refused("size beyond 64 bits", InvalidLayer, ["x"], header(b"x", size=base256((1 << 94) - 1, 12)))
    to.refused(
        "PAX size beyond 63 bits",
        InvalidArchive,
        ["size"],
        pax([(b"size", b"9223372036854775808")]),
        member(b"x"),
    )
    to.refused("PAX size negative", InvalidArchive, ["size"], pax([(b"size", b"-1")]), member(b"x"))
    to.refused("PAX size beyond the end", InvalidArchive, ["x"], pax([(b"size", b"99999")]), member(b"x"))
    to.refused(
        "an extended header beyond the end",
        InvalidLayer,
        ["extended header"],
        header(b"x", b"x", size=base256(1 << 40, 12)),
    )
    to.refused(
        "a negative extended header",
        InvalidLayer,
        ["extended header"],
        header(b"x", b"x", size=base256(-5, 12)),
    )
    to.refused(
        "an owner of 2^32-1", InvalidArchive, ["x", "owner"], header(b"x", uid=base256((1 << 32) - 1, 8))
    )
    to.refused("a negative group", InvalidArchive, ["x", "owner"], header(b"x", gid=base256(-1, 8)))
    to.refused(
        "a PAX owner of 2^64",
        InvalidArchive,
        ["x", "owner"],
        pax([(b"uid", b"18446744073709551616")]),
        member(b"x"),
    )
    to.refused("a time beyond time", InvalidArchive, ["x", "mtime"], header(b"x", mtime=base256(1 << 80, 12)))
    to.refused("a PAX time of words", InvalidArchive, ["x", "mtime"], pax([(b"mtime", b"now")]), member(b"x"))
    to.refused("a wrong checksum", InvalidArchive, ["checksum", "4660"], header(b"x", checksum=0x1234))
    to.refused("a checksum of words", InvalidArchive, ["checksum"], header(b"x", checksum=b"checksum"))
    to.refused("no checksum", InvalidArchive, ["checksum"], header(b"x", checksum=b""))
    to.refused("a mode of words", InvalidArchive, ["mode"], header(b"x", mode=b"rwxrwxr\0"))
    to.accepted(
        "numbers with spaces", "x", header(b"x", mode=b"   644 \0", uid=b"     0 \0", size=b"          0 ")
    )


def add_extended_headers(to: Table) -> None:
    """PAX and GNU headers."""
    for label, body in {
        "without a length": b"path=x\n",
        "of length zero": b"0 path=x\n",
        "longer than it is": b"99 path=x\n",
        "shorter than it is": b"5 path=x\n",
        "without an equals sign": b"8 pathx\n",
        "without a key": b"5 =x\n",
        "without a newline": b"9 path=xy",
        "with a length of a thousand digits": b"9" * 1000 + b" path=x\n",
        "with a negative length": b"-9 path=x\n",
        "of letters": b"xx path=x\n",
    }.items():
        to.refused(f"a PAX record {label}", InvalidArchive, ["PAX record"], pax(body), member(b"x"))
    to.accepted("a PAX record twice", "b", pax([(b"path", b"a"), (b"path", b"b")]), member(b"x"))
    to.accepted("a PAX header twice", "b", pax([(b"path", b"a")]), pax([(b"path", b"b")]), member(b"x"))
    to.accepted("a PAX path of nothing", "x", pax([(b"path", b"")]), member(b"x"))
    to.accepted("a global PAX path", "x y", pax([(b"path", UP)], b"g"), member(b"x"), member(b"y"))
    to.accepted("a PAX header at the end", "", pax([(b"path", b"a")]))
    to.accepted("a long name at the end", "", gnu_long(b"a"))
    big = pax([(b"comment", b"c" * (2 * MIB))])
    to.refused("an oversized PAX header", BudgetExceeded, ["max_pax_bytes"], big, member(b"x"))
    to.refused(
        "an oversized long name", BudgetExceeded, ["max_pax_bytes"], gnu_long(b"n" * (2 * MIB)), member(b"x")
    )
    globals_ = [pax([(b"k%d" % number, b"v" * 700_000)], b"g") for number in range(3)]
    to.refused("global PAX headers without end", BudgetExceeded, ["max_pax_bytes"], *globals_, member(b"x"))
    xattr = b"SCHILY.xattr."
    to.refused(
        "an xattr with a name of 300 bytes",
        InvalidArchive,
        ["x", "xattr"],
        pax([(xattr + b"user." + b"n" * 300, b"v")]),
        member(b"x"),
    )
    to.refused(
        "an xattr of 70 kB",
        InvalidArchive,
        ["x", "xattr"],
        pax([(xattr + b"user.n", b"v" * 70_000)]),
        member(b"x"),
    )
    to.refused(
        "an xattr that is not base64",
        InvalidArchive,
        ["LIBARCHIVE.xattr.user.n", "base64"],
        pax([(b"LIBARCHIVE.xattr.user.n", b"\xff!")]),
        member(b"x"),
    )
    acl = [(xattr + b"system.posix_acl_default", b"\x02\0\0\0")]
    to.refused("a default ACL of a file", InvalidArchive, ["x", "default ACL"], pax(acl), member(b"x"))
    to.refused("a default ACL of a fifo", InvalidArchive, ["x", "default ACL"], pax(acl), header(b"x", b"6"))
    sparse = [(b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0")]
    for label, map_, size in (
        ("overlaps", b"2\n0\n8\n4\n8\n", b"100"),
        ("goes beyond the end", b"1\n96\n16\n", b"100"),
        ("sums up to too much", b"1\n0\n99\n", b"100"),
        ("has no numbers", b"zwei\n", b"100"),
        ("does not end", b"9" * 500 + b"\n", b"100"),
        ("counts to a million million", b"1000000000000\n", b"100"),
    ):
        records = [*sparse, (b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", size)]
        content = map_.ljust(512, b"\0") + bytes(16)
        to.refused(
            f"a sparse map that {label}", InvalidLayer, ["sparse"], pax(records), member(b"x", content)
        )
    huge = [*sparse, (b"GNU.sparse.name", b"s"), (b"GNU.sparse.realsize", b"%d" % (1 << 62))]
    to.refused(
        "a sparse file beyond all disks",
        BudgetExceeded,
        ["s", "max_layer_bytes"],
        pax(huge),
        member(b"x", b"0\n" + bytes(510)),
    )
    escape = [*sparse, (b"GNU.sparse.name", UP + b"/new"), (b"GNU.sparse.realsize", b"9")]
    to.refused(
        "a sparse name outside",
        PathEscape,
        ["'..'"],
        pax(escape),
        member(b"x", b"0\n" + bytes(510)),
        escapes=True,
    )
