"""Members to files: each member of an archive is put in its place below one root.

Moves content and metadata of one member at a time. Every call takes the descriptor of a directory that
`directories` opened without following a link, and follows none itself.

A member replaces what an earlier one of the same name made, whatever either is (the last wins, as in all
tools); only a directory keeps its content when it is listed again.
"""

import os
from collections.abc import Callable
from errno import ENAMETOOLONG, EPERM
from stat import S_IFBLK, S_IFCHR, S_IFIFO, S_IFREG
from typing import Final

from layerfs.errors import BudgetExceeded, InvalidArchive, StoreError
from layerfs.extract.directories import Directories, Directory
from layerfs.extract.latelinks import LateLinks, link
from layerfs.extract.ownership import Ownership
from layerfs.extract.remembered import Remembered
from layerfs.extract.removal import remove
from layerfs.extract.ring import RingSource
from layerfs.layer.budgets import Budgets
from layerfs.layer.escaping import Spelling, unchanged
from layerfs.layer.member import Member, Type
from layerfs.layer.paths import clean, is_plain, join, shown, split
from layerfs.layer.whiteout import WH_PREFIX, is_marker, markers_in

_WARNINGS_MAX: Final = 100
_MARKERS: Final = frozenset({Type.FILE, Type.DIRECTORY, Type.SYMLINK})
"""Types that a marker may have on the disk."""
_TARGET_MAX: Final = 4096
"""Bytes of a symlink's target that no filesystem holds (PATH_MAX)."""
_PARENTS_MAX: Final = 1024
_PREFIX_MAX: Final = 4096
"""Bytes of the longest text in front of a name that is kept."""
_CREATE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Placer:
    """Writes one tree.

    Raises subclasses of InvalidLayer for what the archive does wrong, OSError for the disk.
    """

    def __init__(
        self,
        source: RingSource,
        directories: Directories,
        ownership: Ownership,
        budgets: Budgets,
        remembered: Remembered,
        spelled: Spelling = unchanged,
    ) -> None:
        """*spelled* says how the disk writes a path: that of all but `markers` here and in *directories*."""
        self.markers: list[bytes] = []
        """Paths of names that begin with ``.wh.``, repeated if the archive repeats them."""
        self.links = LateLinks()
        self.warnings: list[str] = []
        self.files = self.file_bytes = 0
        self._source = source
        self._directories = directories
        self._ownership = ownership
        self._remembered = remembered
        self._spelled = spelled
        self._max_depth = budgets.max_depth
        self._max_bytes = budgets.max_layer_bytes
        self._file_mode = ownership.file_mode
        self._parents: dict[bytes, Directory] = {}
        """Directories by what the archive writes in front of a name."""
        self._skipped: set[bytes] = set()
        """For hard links to them."""

    def place(self, member: Member) -> None:
        """Put *member* in its place; for a file, take its content from the source."""
        if member.type and WH_PREFIX in member.name:
            self._simplified(member)
        try:
            _PLACE[member.type](self, member)
        except OSError as exc:
            if exc.errno == ENAMETOOLONG:  # names were measured
                if member.type is Type.SYMLINK and len(member.link) >= _TARGET_MAX:
                    raise InvalidArchive(f"{shown(member.name)}: {exc.strerror}") from None
                what = "a name longer than the filesystem of the store takes"
                raise StoreError(f"{shown(member.name)}: {what}; use another --store") from None
            exc.filename = shown(member.name)
            raise

    def _locate(self, name: bytes) -> tuple[Directory, bytes]:
        """Return the open directory for *name*, made where it is missing, and the last component.

        The text before the last slash, once judged, is not judged again while its directory is open. The
        descriptor is good until another directory is asked for: this one may be the next to be closed.
        """
        raw_parent, _, leaf = name.rpartition(b"/")
        known = self._parents.get(raw_parent)
        if known is not None and known.fd >= 0 and is_plain(leaf):
            return known, leaf
        path = self._named(name)
        parent_path, leaf = split(path)
        if is_marker(leaf) or WH_PREFIX in parent_path:
            self._note_markers(path)
        parent_path, leaf = split(self._spelled(path))
        parent = self._directories.get(parent_path)
        if name.endswith(leaf):
            self._know(raw_parent, parent)
        return parent, leaf

    def _know(self, text: bytes, directory: Directory) -> None:
        """Remember that *text* in front of a name means *directory*."""
        if len(text) <= _PREFIX_MAX:
            if len(self._parents) >= _PARENTS_MAX:
                self._parents.clear()
            self._parents[text] = directory

    def _named(self, name: bytes) -> bytes:
        path = clean(name, self._max_depth)
        if not path:
            raise InvalidArchive(f"{shown(name)}: the layer's root (expected a directory, or another name)")
        return path

    def _note_markers(self, path: bytes) -> None:
        """Remember what is a marker in *path*. Raises InvalidWhiteout."""
        for marker in markers_in(path):
            self._remembered.add(marker)
            self.markers.append(marker)

    def _file(self, member: Member) -> None:
        if self.file_bytes + member.size > self._max_bytes:  # in sum: holes cost an archive nothing
            what = f"{shown(member.name)}: {member.size} bytes after {self.file_bytes}"
            raise BudgetExceeded(f"{what} (max_layer_bytes is {self._max_bytes})")
        raw_parent, _, leaf = member.name.rpartition(b"/")
        parent = self._parents.get(raw_parent)
        if parent is None or parent.fd < 0 or not is_plain(leaf):  # else as `_locate` would say
            parent, leaf = self._locate(member.name)
        mode = (member.mode | self._file_mode) & 0o777
        try:
            fd = os.open(leaf, _CREATE, mode, dir_fd=parent.fd)
        except FileExistsError:
            self._remove(parent, leaf)
            fd = os.open(leaf, _CREATE, mode, dir_fd=parent.fd)
        try:
            if member.extents is not None:
                self._sparse_content(fd, member)
            elif member.stored:
                self._source.copy(member.stored, fd)
            self._ownership.finish_file(fd, member, parent, leaf)
        finally:
            os.close(fd)
        self.files += 1
        self.file_bytes += member.size

    def _sparse_content(self, fd: int, member: Member) -> None:
        """Write the stored pieces where they belong; what was never written is a hole."""
        os.truncate(fd, member.size)
        for offset, length in member.extents or ():
            os.lseek(fd, offset, os.SEEK_SET)
            self._source.copy_piece(length, fd)
        self._source.pad(member.stored)

    def _directory(self, member: Member) -> None:
        directory, is_new = self._made(member)
        if not is_new:
            self._directories.implied.discard(directory.path)
            directory.reset()
            self._ownership.forget(directory.path)
        if member.xattrs:
            self._directories.acls_seen = True
        self._ownership.finish_directory(directory, member, is_new=is_new)

    def _made(self, member: Member) -> tuple[Directory, bool]:
        """Return the open directory that *member* is about, and whether it was made now."""
        name = member.name.rstrip(b"/")
        if not name.strip(b"./") and not clean(member.name, self._max_depth):
            return self._directories.root, False
        parent, leaf = self._locate(name)
        mode = (member.mode | self._ownership.directory_mode) & 0o777
        try:
            directory, is_new = self._directories.make(parent, leaf, mode)
        except FileExistsError:
            self._remove(parent, leaf)
            directory, is_new = self._directories.make(parent, leaf, mode)
        if name.endswith(leaf) and directory.path.count(b"/") + 2 <= self._max_depth:
            self._know(name, directory)  # what is in it comes next
        return directory, is_new

    def _symlink(self, member: Member) -> None:
        if not member.link or b"\0" in member.link:
            raise InvalidArchive(
                f"{shown(member.name)}: a symlink to nothing (expected a target without NUL)"
            )
        self._name(member, lambda leaf, fd: os.symlink(member.link, leaf, dir_fd=fd), has_mode=False)

    def _fifo(self, member: Member) -> None:
        mode = S_IFIFO | member.mode & 0o777
        self._name(member, lambda leaf, fd: os.mknod(leaf, mode, dir_fd=fd))

    def _device(self, member: Member) -> None:
        if member.type is Type.CHARACTER and member.major == member.minor == 0:
            self._skip(member, "a 0:0 device, which would be a whiteout")
            return
        kind = S_IFCHR if member.type is Type.CHARACTER else S_IFBLK
        number = os.makedev(member.major, member.minor)

        def make(leaf: bytes, fd: int) -> None:
            try:
                os.mknod(leaf, kind | member.mode & 0o777, number, dir_fd=fd)
            except PermissionError as exc:
                if exc.errno != EPERM or self._ownership.is_privileged:
                    raise
                path = self._spelled(clean(member.name, self._max_depth))
                self._ownership.lose_device(path, kind | member.mode, member.major, member.minor)
                os.mknod(leaf, S_IFREG | 0o600, dir_fd=fd)

        self._name(member, make)

    def _name(self, member: Member, make: Callable[[bytes, int], None], *, has_mode: bool = True) -> None:
        """Make what has no content, in place of what stands there."""
        parent, leaf = self._locate(member.name)
        try:
            make(leaf, parent.fd)
        except FileExistsError:
            self._remove(parent, leaf)
            make(leaf, parent.fd)
        self._ownership.finish_name(parent, leaf, member, has_mode=has_mode)

    def _hardlink(self, member: Member) -> None:
        """Link to what the target is now; one that is not there yet is waited for until the end."""
        if not member.link:
            raise InvalidArchive(f"{shown(member.name)}: a hard link to nothing")
        target = self._spelled(clean(member.link, self._max_depth))
        parent, leaf = self._locate(member.name)
        path = join(parent.path, leaf)
        if target == path and self._exists(parent, leaf):
            return  # another name of itself
        if target != path and link(self._directories, target, path, self._remove):
            self._ownership.share(target, path)
            return
        if target in self._skipped:
            self._skip(member, f"a hard link to {shown(target)}, which was skipped")
        else:
            self._remove(self._directories.get(parent.path), leaf)
            self._remembered.add(path, len(target))
            self.links.add(path, target)

    def _simplified(self, member: Member) -> None:
        """Make a marker an empty file, whatever its type (AUFS has devices, links to nothing)."""
        if member.type not in _MARKERS and is_marker(split(clean(member.name, self._max_depth))[1]):
            self._source.skip(member.stored)
            member.type, member.size, member.stored = Type.FILE, 0, 0

    def _socket(self, member: Member) -> None:
        self._skip(member, "a socket")

    def _skip(self, member: Member, what: str) -> None:
        """Make nothing, but like any later member of a name leave nothing that was called so before."""
        path = self._spelled(self._named(member.name))
        parent_path, leaf = split(path)
        parent = self._directories.find(parent_path)
        if parent is not None:
            self._remove(parent, leaf)
        if path not in self._skipped:
            self._remembered.add(path)
            self._skipped.add(path)
        if len(self.warnings) < _WARNINGS_MAX:
            self.warnings.append(f"{shown(path)}: skipped, {what}")
        self._source.skip(member.stored)

    def _exists(self, parent: Directory, leaf: bytes) -> bool:
        try:
            os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def _remove(self, parent: Directory, leaf: bytes) -> None:
        """Remove whatever is called *leaf*, and what is remembered of it."""
        remove(parent.fd, join(parent.path, leaf), leaf, self._forget)

    def _forget(self, path: bytes) -> None:
        self._directories.forget(path)
        self._ownership.forget(path)
        self.links.forget(path)


_PLACE: Final[dict[Type, Callable[[Placer, Member], None]]] = {
    Type.FILE: Placer._file,
    Type.HARDLINK: Placer._hardlink,
    Type.SYMLINK: Placer._symlink,
    Type.CHARACTER: Placer._device,
    Type.BLOCK: Placer._device,
    Type.DIRECTORY: Placer._directory,
    Type.FIFO: Placer._fifo,
    Type.SOCKET: Placer._socket,
}
"""Not bound to a placer: that would be a circle, and no collector runs in the writer."""
