"""Archive headers to members: ustar, v7, GNU and PAX, read forwards and judged.

Decides what a header means; moves nothing: the content of a member is left in the source, which the caller
passes over before the next call. Pure. Called by `layerfs.extract.writer`.

It is stricter than most, like Go's archive/tar, which the tools of the field use: a number, record or
checksum that is wrong ends the archive. Formats: POSIX.1-2017 pax, "ustar Interchange Format" and "pax
Interchange Format"; GNU tar manual, "Basic Tar Format".
"""

from typing import Final, TypeVar
from zlib import adler32

from layerfs.errors import BudgetExceeded, InvalidArchive
from layerfs.layer import pax, sparse
from layerfs.layer.member import Member, Source, Type
from layerfs.layer.metadata import ACL_DEFAULT, check_device
from layerfs.layer.numbers import SECOND, check_time, number
from layerfs.layer.paths import shown
from layerfs.layer.record import Budgets

BLOCK: Final = 512
_ZEROS: Final = bytes(BLOCK)

_TYPES: Final = {
    0x00: Type.FILE, 0x30: Type.FILE, 0x31: Type.HARDLINK, 0x32: Type.SYMLINK, 0x33: Type.CHARACTER,
    0x34: Type.BLOCK, 0x35: Type.DIRECTORY, 0x36: Type.FIFO, 0x37: Type.FILE,
    ord("S"): Type.FILE, ord("D"): Type.DIRECTORY,
}  # fmt: skip
_PAX: Final = b"xX"
_PAX_GLOBAL: Final = ord("g")
_LONG_NAME, _LONG_LINK = ord("L"), ord("K")
_SPARSE, _DUMP_DIRECTORY, _VOLUME = ord("S"), ord("D"), ord("V")
_SPECIAL: Final = frozenset(b"xXgLKSDV")

_FORMAT_MASK, _FORMAT_SOCKET = 0o170000, 0o140000
_CACHED: Final = 4096
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
        self.warnings: list[str] = []

    def next(self) -> Member | None:
        """Return the next member, None after the end of the archive."""
        block = self._source.block()
        if not self._checked(block):
            return None
        if block[156] in _SPECIAL or self._global:
            return self._extended(block)
        return self._finished(self._plain(block))

    def _checked(self, block: bytes) -> bool:
        """Check the checksum of a header; False at the end of the archive.

        The end of the bytes between two members is one, too, as for Go's archive/tar and GNU tar: an archive
        that was cut there is known by its digest.

        The low half of Adler-32 is one more than the sum of the bytes: it takes a tenth of the time that
        adding up takes. (It is modulo 65521, which no header with a name in it comes near.) In the sum that
        the field holds, its own eight bytes count as spaces.
        """
        try:
            claimed = int(block[148:154], 8)
            if not (claimed + adler32(block[148:156]) - adler32(block) - _FIELD_OF_SPACES) & 0xFFFF:
                return True
        except ValueError:
            pass
        return self._checked_slowly(block)

    def _checked_slowly(self, block: bytes) -> bool:
        if not block:
            return False
        if block == _ZEROS:
            self._check_end()
            return False
        claimed = number(block[148:156], "checksum of a header")
        others = block[:148] + block[156:]
        unsigned = sum(others) + _FIELD_OF_SPACES
        # Some old tars added up signed bytes.
        if claimed not in (unsigned, unsigned - 256 * sum(byte >> 7 for byte in others)):
            raise InvalidArchive(f"checksum of a header: {claimed} (expected {unsigned})")
        return True

    def _check_end(self) -> None:
        """One block of zeros ends the file or is followed by another; what comes then is not looked at."""
        after = self._source.block()
        if after and after != _ZEROS:
            raise InvalidArchive("a block of zeros inside the archive (expected a header or the end)")

    def _plain(self, block: bytes) -> Member:
        """Read the fields of one header, whatever stood before it."""
        name = block[:100].partition(b"\0")[0]
        ustar = block[257:263] == b"ustar\0"
        if ustar and block[345]:
            name = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0] + b"/" + name
        kind = _TYPES.get(block[156])
        if kind is None:
            raise InvalidArchive(f"{shown(name)}: unknown type {block[156:157]!r}")
        mode, uid, gid = self._owners.get(block[100:124]) or self._owner(block[100:124], name)
        mtime = self._times.get(block[136:148])
        if mtime is None:
            mtime = self._time(block[136:148], name)
        size = self._sizes.get(block[124:136])
        if size is None:
            size = self._size(block[124:136])
        member = Member(name, kind, mode, uid, gid, mtime, size, size)
        if kind is not Type.FILE:
            member.link = block[157:257].partition(b"\0")[0]
            if kind is Type.CHARACTER or kind is Type.BLOCK:
                member.major = number(block[329:337], "major device number")
                member.minor = number(block[337:345], "minor device number")
        elif block[156] == 0 and name.endswith(b"/"):
            member.type = Type.DIRECTORY  # how archives older than ustar say it
        return member

    def _owner(self, field: bytes, name: bytes) -> tuple[int, int, int]:
        what = shown(name)
        mode = number(field[:8], f"{what}: mode")
        uid = pax.check_owner(number(field[8:16], f"{what}: owner"), name)
        gid = pax.check_owner(number(field[16:24], f"{what}: group"), name)
        _remember(self._owners, field, (mode, uid, gid))
        return mode, uid, gid

    def _size(self, field: bytes) -> int:
        size = number(field, "size")
        _remember(self._sizes, field, size)
        return size

    def _time(self, field: bytes, name: bytes) -> int:
        what = f"{shown(name)}: mtime"
        mtime = check_time(number(field, what) * SECOND, what)
        _remember(self._times, field, mtime)
        return mtime

    def _extended(self, block: bytes) -> Member | None:
        """Gather what stands in front of a member, then read it."""
        records: pax.Records = []
        name = link = None
        while (kind := block[156]) in _SPECIAL and kind not in (_SPARSE, _DUMP_DIRECTORY):
            size = self._sizes.get(block[124:136])
            if size is None:
                size = self._size(block[124:136])
            if kind == _VOLUME:
                self._warn(f"volume label {shown(block[:100].partition(bytes(1))[0])} ignored")
            else:
                body = self._body(size)
                if kind in _PAX:
                    records = pax.parse_records(body)
                elif kind == _PAX_GLOBAL:
                    self._take_global(pax.parse_records(body))
                elif kind == _LONG_NAME:
                    name = body.partition(b"\0")[0]
                else:
                    link = body.partition(b"\0")[0]
            block = self._source.block()
            if not self._checked(block):
                if name is not None or link is not None or records:
                    raise InvalidArchive("an extended header at the end of the archive (expected a member)")
                return None
        return self._finished(self._combined(block, records, name, link))

    def _combined(self, block: bytes, own: pax.Records, name: bytes | None, link: bytes | None) -> Member:
        """Read a header together with what stood in front of it."""
        member = self._plain(block)
        overridden = dict(own)
        pax.apply([pair for pair in self._global.items() if pair[0] not in overridden], member)
        pax.apply(own, member)
        if name is not None:
            member.name = name
        if link is not None:
            member.link = link
        if overridden.get(b"SCHILY.filetype") == b"socket":
            member.type = Type.SOCKET
        if block[156] == _SPARSE:
            sparse.read_old_gnu(member, block, self._source, self._pax_max)
        elif block[156] == _DUMP_DIRECTORY:
            member.type = Type.DIRECTORY
            self._body(member.stored)
        elif member.type is Type.FILE:
            sparse.read_pax(member, own, self._source, self._pax_max)
        return member

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

    def _check_xattrs(self, member: Member, xattrs: dict[bytes, bytes]) -> None:
        if sum(len(name) + len(value) for name, value in xattrs.items()) > self._pax_max:
            raise BudgetExceeded(
                f"{shown(member.name)}: more than {self._pax_max} bytes of xattrs (max_pax_bytes)"
            )
        if ACL_DEFAULT in xattrs and member.type is not Type.DIRECTORY:
            raise InvalidArchive(f"{shown(member.name)}: a default ACL (expected on directories only)")

    def _warn(self, what: str) -> None:
        if len(self.warnings) < _WARNINGS_MAX:
            self.warnings.append(what)

    def _finished(self, member: Member) -> Member:
        """Judge what can only be judged when all is known."""
        kind = member.type
        if kind is Type.FILE:
            if member.mode & _FORMAT_MASK == _FORMAT_SOCKET and not member.size:
                member.type = Type.SOCKET
            if member.stored < 0:
                raise InvalidArchive(f"{shown(member.name)}: size {member.size} (expected no negative one)")
        else:
            # Only files have content: a size here is the length of a link, or of what is linked to.
            member.size = member.stored = 0
            if kind is Type.CHARACTER or kind is Type.BLOCK:
                check_device(member.major, member.minor, member.name)
        if member.xattrs:
            self._check_xattrs(member, member.xattrs)
        member.mode &= 0o7777
        return member


def _remember(cache: dict[bytes, _T], key: bytes, value: _T) -> None:
    if len(cache) >= _CACHED:
        cache.clear()
    cache[key] = value
