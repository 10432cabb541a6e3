"""Archive headers to members: ustar, v7, GNU and PAX, read forwards and judged.

Decides what a header means; moves nothing: the content of a member is left in the source, which the caller
passes over before the next call. Pure.

It is stricter than most, like Go's archive/tar, which the tools of the field use: a number, record or
checksum that is wrong ends the archive. Formats: POSIX.1-2017 pax, "ustar Interchange Format" and "pax
Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

import struct
from typing import Final, TypeVar

from isal.isal_zlib import adler32

from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.layer import pax, sparse
from layerfs.layer.budgets import Budgets
from layerfs.layer.member import Member, Source, Type
from layerfs.layer.numbers import SECOND, check_time, number
from layerfs.layer.paths import shown
from layerfs.layer.rules import mode_of, settle

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)

_FIELDS: Final = struct.Struct("100s24s12s12s8xc355x").unpack
"""Name, mode with owner and group, size, mtime, type."""
_CHECKSUM: Final = slice(148, 156)
_OCTAL: Final = b"01234567"
_TYPES: Final = {
    b"\0": Type.FILE, b"0": Type.FILE, b"1": Type.HARDLINK, b"2": Type.SYMLINK, b"3": Type.CHARACTER,
    b"4": Type.BLOCK, b"5": Type.DIRECTORY, b"6": Type.FIFO, b"7": Type.FILE,
    b"S": Type.FILE, b"D": Type.DIRECTORY,
}  # fmt: skip
_FILE: Final = Type.FILE
"""Finding it in its class takes longer than comparing with it."""
_PAX: Final = b"xX"
_PAX_GLOBAL: Final = ord("g")
_LONG_NAME, _LONG_LINK = ord("L"), ord("K")
_SPARSE, _DUMP_DIRECTORY, _VOLUME = ord("S"), ord("D"), ord("V")
_IN_FRONT: Final = frozenset(b"xXgLKV")
_SPECIAL: Final = _IN_FRONT | {_SPARSE, _DUMP_DIRECTORY}

_CACHED: Final = 4096
_SIZES_CACHED, _SUMS_CACHED = 16384, 8192
"""About as many as the headers of a large tree have."""
_SHORT: Final = 64
"""Bytes of a PAX header that can be worth remembering: times repeat, what has a name in it does not."""
_WARNINGS_MAX: Final = 100
_FIELD_OF_SPACES: Final = 8 * 0x20

_T = TypeVar("_T")


class TarReader:
    """Reads one archive. Raises subclasses of InvalidLayer, and whatever its source raises."""

    def __init__(self, source: Source, budgets: Budgets) -> None:
        self._source = source
        self._pax_max = budgets.max_pax_bytes
        self._global: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}
        self._short: dict[bytes, pax.Header] = {}
        """PAX headers by their bodies: files that were installed together have equal ones."""
        self._sums: dict[bytes, int] = {}
        """By the text of a checksum, the low half of the Adler-32 of a header with it."""
        self.warnings: list[str] = []

    def next(self) -> Member | None:
        """Return the next member, None after the end of the archive."""
        block = self._source.block()
        # What `_checked` would say, without a call; so, too, in `_extended`.
        if adler32(block) & 0xFFFF != self._sums.get(block[_CHECKSUM]) and not self._checked(block):
            return None
        kind = block[156]
        if kind in _SPECIAL or self._global:
            return self._extended(block)
        return self._finished(self._plain(block), old=not kind)

    def _checked(self, block: bytes) -> bool:
        """Check the checksum of a header; False at the end of the archive.

        The end of the bytes between two members is one, too, as for Go's archive/tar and GNU tar: an archive
        that was cut there is known by its digest.

        The low half of Adler-32 is one more than the sum of the bytes: it takes a thirtieth of the time that
        adding up takes. (It is modulo 65521, which no header with a name in it comes near.)
        """
        return adler32(block) & 0xFFFF == self._sum(block[_CHECKSUM]) or self._checked_slowly(block)

    def _sum(self, field: bytes) -> int:
        """Return the low half of the Adler-32 of a header with this checksum; -1 if it is no six digits."""
        digits = field[:6]
        if not digits or digits.strip(_OCTAL):
            return -1
        # In the sum that the field holds, its own eight bytes count as spaces.
        wanted: int = (int(digits, 8) - _FIELD_OF_SPACES + adler32(field)) & 0xFFFF
        _remember(self._sums, field, wanted, _SUMS_CACHED)
        return wanted

    def _checked_slowly(self, block: bytes) -> bool:
        if not block:
            return False
        if block == _ZEROS:
            self._check_end()
            return False
        try:
            claimed = number(block[_CHECKSUM], "checksum of a header")
        except InvalidArchive as exc:
            raise self._no_header(block, str(exc)) from None
        others = block[:148] + block[156:]
        unsigned = sum(others) + _FIELD_OF_SPACES
        # Some old tars added up signed bytes.
        if claimed not in (unsigned, unsigned - 256 * sum(byte >> 7 for byte in others)):
            raise self._no_header(block, f"checksum of a header: {claimed} (expected {unsigned})")
        return True

    def _no_header(self, block: bytes, why: str) -> InvalidArchive:
        """Return the error for a block that should be a header; the first tells if this is an archive."""
        if self._sizes or block[257:262] == b"ustar":
            return InvalidArchive(why)
        return InvalidArchive(f"no tar archive: it begins with {shown(block[:16])}")

    def _check_end(self) -> None:
        """One block of zeros ends the file or is followed by another; what comes then is not looked at."""
        after = self._source.block()
        if after and after != _ZEROS:
            raise InvalidArchive("a block of zeros inside the archive (expected a header or the end)")

    def _plain(self, block: bytes) -> Member:
        """Read the fields of one header, whatever stood before it."""
        name, owner, length, time, kind = _FIELDS(block)
        name = name.partition(b"\0")[0]
        if block[345] and block[257:263] == b"ustar\0":
            name = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0] + b"/" + name
        type_ = _TYPES.get(kind)
        if type_ is None:
            raise InvalidArchive(f"{shown(name)}: unknown type {kind!r}")
        mode, uid, gid = self._owners.get(owner) or self._owner(owner, name)
        mtime = self._times.get(time)
        if mtime is None:
            mtime = self._time(time, name)
        size = self._sizes.get(length)
        if size is None:
            size = self._size(length)
        member = Member(name, type_, mode, uid, gid, mtime, size, size)
        if type_ is not _FILE:
            member.link = block[157:257].partition(b"\0")[0]
            if type_ is Type.CHARACTER or type_ is Type.BLOCK:
                member.major = number(block[329:337], "major device number")
                member.minor = number(block[337:345], "minor device number")
        return member

    def _owner(self, field: bytes, name: bytes) -> tuple[int, int, int]:
        try:
            mode = mode_of(number(field[:8], "mode"))
            uid, gid = number(field[8:16], "owner"), number(field[16:24], "group")
        except InvalidArchive as exc:  # showing a name takes longer than all of this
            raise InvalidArchive(f"{shown(name)}: {exc}") from None
        uid, gid = pax.check_owner(uid, name), pax.check_owner(gid, name)
        _remember(self._owners, field, (mode, uid, gid))
        return mode, uid, gid

    def _size(self, field: bytes) -> int:
        size = number(field, "size")
        _remember(self._sizes, field, size, _SIZES_CACHED)
        return size

    def _time(self, field: bytes, name: bytes) -> int:
        try:
            mtime = check_time(number(field, "mtime") * SECOND, "mtime")
        except InvalidArchive as exc:
            raise InvalidArchive(f"{shown(name)}: {exc}") from None
        _remember(self._times, field, mtime)
        return mtime

    def _extended(self, block: bytes) -> Member | None:
        """Gather what stands in front of a member, then read it."""
        own = pax.NONE
        name = link = None
        while (kind := block[156]) in _IN_FRONT:
            length = block[124:136]
            size = self._sizes.get(length)
            if size is None:
                size = self._size(length)
            if kind == _VOLUME:
                self._warn(f"volume label {shown(block[:100].partition(bytes(1))[0])} ignored")
            else:
                body = self._body(size)
                if kind in _PAX:
                    own = (self._short.get(body) or self._pax(body)) if size <= _SHORT else pax.read(body)
                elif kind == _PAX_GLOBAL:
                    self._take_global(pax.parse_records(body))
                elif kind == _LONG_NAME:
                    name = body.partition(b"\0")[0]
                else:
                    link = body.partition(b"\0")[0]
            block = self._source.block()
            if adler32(block) & 0xFFFF != self._sums.get(block[_CHECKSUM]) and not self._checked(block):
                if name is not None or link is not None or own.records:
                    self._warn("an extended header at the end of the archive, without a member: ignored")
                return None
        return self._finished(self._combined(block, own, name, link), old=not block[156])

    def _combined(self, block: bytes, own: pax.Header, name: bytes | None, link: bytes | None) -> Member:
        """Read a header together with what stood in front of it."""
        member = self._plain(block)
        if self._global:
            overridden = {key for key, _ in own.records}
            pax.apply([pair for pair in self._global.items() if pair[0] not in overridden], member)
        is_sparse = False
        if own.mtime_ns is not None:
            member.mtime_ns = own.mtime_ns
        elif own.records:
            is_sparse = pax.apply(own.records, member)
        if name is not None:
            member.name = name
        if link is not None:
            member.link = link
        if block[156] == _SPARSE:
            sparse.read_old_gnu(member, block, self._source, self._pax_max)
        elif block[156] == _DUMP_DIRECTORY:
            member.type = Type.DIRECTORY
            self._body(member.stored)
        elif is_sparse and member.type is _FILE:
            sparse.read_pax(member, own.records, self._source, self._pax_max)
        return member

    def _pax(self, body: bytes) -> pax.Header:
        header = pax.read(body)
        _remember(self._short, body, header)
        return header

    def _body(self, size: int) -> bytes:
        if not 0 <= size <= self._pax_max:
            raise BudgetExceeded(f"extended header of {size} bytes (max_pax_bytes is {self._pax_max})")
        return self._source.read(size)

    def _take_global(self, records: pax.Records) -> None:
        """Keep what a global header says for all members after it; an empty value ends an earlier one."""
        for key, value in records:
            if key in pax.PERSONAL or key.startswith(pax.SPARSE):
                self._warn(f"global PAX header: {shown(key)} ignored")
            elif value:
                self._global[key] = value
            else:
                self._global.pop(key, None)
        if sum(len(key) + len(value) for key, value in self._global.items()) > self._pax_max:
            raise BudgetExceeded(f"global PAX headers of more than {self._pax_max} bytes (max_pax_bytes)")

    def _warn(self, what: str) -> None:
        if len(self.warnings) < _WARNINGS_MAX:
            self.warnings.append(what)

    def _finished(self, member: Member, *, old: bool) -> Member:
        """Judge *member*; *old* if the type is NUL, as before ustar."""
        if old and member.type is _FILE and member.name.endswith(b"/"):
            member.type = Type.DIRECTORY  # how archives older than ustar say it
        return settle(member, self._pax_max)


def _remember(cache: dict[bytes, _T], key: bytes, value: _T, most: int = _CACHED) -> None:
    if len(cache) >= most:
        cache.clear()
    cache[key] = value
