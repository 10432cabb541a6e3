"""Owner, mode and extended attributes of what was made, in the order that keeps them: as far as one may.

Moves metadata to open files or to names in open directories; follows no link. What the writer is not
allowed to set, or the filesystem cannot hold, is collected as the text of a `layerfs.layer.lost.Lost`.

Owner first: chown(2) clears setuid bits and file capabilities. Then mode, then xattrs, then times.
"""

import os
from errno import E2BIG, EINVAL, ENOSPC, EOPNOTSUPP, EPERM, ERANGE
from typing import Final

from layerfs.errors import InvalidArchive
from layerfs.extract.directories import Directory
from layerfs.extract.remembered import Remembered
from layerfs.layer.lost import Lost
from layerfs.layer.member import Member
from layerfs.layer.metadata import ACL_DEFAULT, is_acl, kept_xattrs
from layerfs.layer.paths import join, shown
from layerfs.layer.record import OwnerKind

_SPECIAL: Final = 0o7000
_DIRECTORY_MIN: Final = 0o700
_FILE_MIN: Final = 0o600
_NOT_CARRIED: Final = frozenset({EPERM, EOPNOTSUPP, E2BIG, ERANGE})
"""What setxattr(2) says of an attribute that this filesystem, file type or writer cannot have."""
_ENTRY_BYTES: Final = 24
"""What ext4 needs for an attribute beside name and value (struct ext4_xattr_entry, and padding)."""
_SPARE_BYTES: Final = 512
"""In a block of attributes for those that a security module adds."""


class Ownership:
    """What one kind of writer may do. *lost* collects the rest, by path, and *remembered* counts it."""

    def __init__(self, kind: OwnerKind, remembered: Remembered) -> None:
        self.lost: dict[bytes, str] = {}
        self._remembered = remembered
        self.is_privileged = kind == "root"
        self._chowns = kind != "user"
        self._given = (os.geteuid(), os.getegid()) if self.is_privileged else None
        """The owner that a new file has and may keep; else there is something to set, or to note."""
        self.directory_mode = 0 if self.is_privileged else _DIRECTORY_MIN
        """Bits that each directory has, so that its owner can read and remove it."""
        self.file_mode = 0 if self.is_privileged else _FILE_MIN

    def begin(self, root_fd: int) -> None:
        """Give the root of the tree, open and empty, to root if one may; see what becomes of groups."""
        if self.is_privileged:
            if _inherits_groups(root_fd):
                self._given = None
            os.chown(root_fd, 0, 0)

    def finish_file(self, fd: int, member: Member, parent: Directory, leaf: bytes) -> None:
        """Set everything but the content of a new regular file, which has its permission bits."""
        if member.xattrs or member.mode & _SPECIAL or (member.uid, member.gid) != self._given:
            self._finish_uncommon_file(fd, member, join(parent.path, leaf))
        os.utime(fd, ns=(member.mtime_ns, member.mtime_ns))

    def _finish_uncommon_file(self, fd: int, member: Member, path: bytes) -> None:
        self._own(fd, None, member, path)
        mode = member.mode | self.file_mode
        if mode & _SPECIAL:
            os.chmod(fd, mode)
        if mode != member.mode:
            self._lose_mode(path, member.mode)
        if member.xattrs:
            self._set_xattrs(fd, member.xattrs, path)

    def finish_directory(self, directory: Directory, member: Member, *, is_new: bool) -> None:
        """Set everything of an open directory, what must come late when it is closed.

        A new one has its permission bits.
        """
        path = directory.path
        mode = member.mode | self.directory_mode
        if not is_new or mode & _SPECIAL or (member.uid, member.gid) != self._given:
            self._own(directory.fd, None, member, path)
            directory.set_mode(mode)
        if mode != member.mode:
            self._lose_mode(path, member.mode)
        if member.xattrs:
            self._set_xattrs(directory.fd, member.xattrs, path)
            if ACL_DEFAULT in member.xattrs:
                directory.hold_back_acl()
        directory.mtime_ns = member.mtime_ns

    def finish_name(self, parent: Directory, leaf: bytes, member: Member, *, has_mode: bool) -> None:
        """Set everything of a new symlink, fifo or device; *has_mode* for all but symlinks."""
        if member.xattrs or member.mode & _SPECIAL or (member.uid, member.gid) != self._given:
            path = join(parent.path, leaf)
            self._own(parent.fd, leaf, member, path)
            if has_mode and member.mode & _SPECIAL:
                os.chmod(leaf, member.mode, dir_fd=parent.fd, follow_symlinks=False)
            if member.xattrs:
                # No xattr call takes a directory descriptor; this path leads through one, not through the
                # leaf.
                self._set_xattrs(b"/proc/self/fd/%d/%b" % (parent.fd, leaf), member.xattrs, path)
        os.utime(leaf, ns=(member.mtime_ns, member.mtime_ns), dir_fd=parent.fd, follow_symlinks=False)

    def lose_device(self, path: bytes, mode: int, major: int, minor: int) -> None:
        """Remember a device whose place an empty file has."""
        self._note(path, mode=mode, device=(major, minor))

    def share(self, target: bytes, path: bytes) -> None:
        """Remember of *path* what is remembered of *target*: it is another name of the same file."""
        if self.lost and (known := self.lost.get(target)) is not None:
            self._keep(path, known)

    def forget(self, path: bytes) -> None:
        """Drop what is remembered of *path* itself: it is replaced, or a directory that is listed again."""
        if self.lost:
            self.lost.pop(path, None)

    def _own(self, fd: int, leaf: bytes | None, member: Member, path: bytes) -> None:
        owner = (member.uid, member.gid)
        if self._chowns:
            try:
                if leaf is None:
                    os.chown(fd, *owner)
                else:
                    os.chown(leaf, *owner, dir_fd=fd, follow_symlinks=False)
            except OSError as exc:
                # A user namespace without this number says EINVAL.
                if self.is_privileged or exc.errno not in (EPERM, EINVAL):
                    raise
            else:
                return
        if owner != (0, 0):
            self._note(path, owner=owner)

    def _set_xattrs(self, target: int | bytes, xattrs: dict[bytes, bytes], path: bytes) -> None:
        follow = isinstance(target, int)
        lost = {}
        for name, value in kept_xattrs(xattrs, path).items():
            if not self._chowns and is_acl(name):
                # Its ids are not this user's, and its mask may take away what the owner needs to remove it.
                lost[name] = value
                continue
            try:
                os.setxattr(target, name, value, follow_symlinks=follow)
            except OSError as exc:
                refused = exc.errno in _NOT_CARRIED or (exc.errno == EINVAL and not self.is_privileged)
                if refused or (exc.errno == ENOSPC and _is_too_large(target, xattrs)):
                    lost[name] = value
                elif exc.errno == EINVAL:
                    raise InvalidArchive(f"{shown(path)}: xattr {shown(name)} is malformed") from None
                else:
                    raise
        if lost:
            self._note(path, xattrs=lost)

    def _lose_mode(self, path: bytes, mode: int) -> None:
        self._note(path, mode=mode)

    def _note(
        self,
        path: bytes,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
        device: tuple[int, int] | None = None,
        xattrs: dict[bytes, bytes] | None = None,
    ) -> None:
        text = self.lost.get(path)
        known = Lost() if text is None else Lost.parse(text)
        now = Lost(
            known.mode if mode is None else mode,
            owner or known.owner,
            device or known.device,
            known.xattrs | (xattrs or {}),
        )
        self._keep(path, str(now))

    def _keep(self, path: bytes, text: str) -> None:
        self._remembered.lose(path, len(text))
        self.lost[path] = text


def _inherits_groups(fd: int) -> bool:
    """Say whether what is made in a directory, open and empty, gets its group: ``grpid`` of ext4 and XFS.

    True also where that cannot be tried.
    """
    mine = os.getegid()
    try:
        os.chown(fd, -1, 1 if mine == 0 else 0)
        os.mkdir(b"group", dir_fd=fd)
        found = os.stat(b"group", dir_fd=fd, follow_symlinks=False).st_gid
        os.rmdir(b"group", dir_fd=fd)
    except OSError:
        return True
    return found != mine


def _is_too_large(target: int | bytes, xattrs: dict[bytes, bytes]) -> bool:
    """Say whether ENOSPC is about the attributes and not about the disk.

    ext4 and btrfs say it, too, of attributes of one file that together are larger than they can ever hold, a
    block or more; any other is of the moment.
    """
    disk = os.statvfs(target if isinstance(target, int) else os.path.dirname(target))
    size = sum(len(name) + len(value) + _ENTRY_BYTES for name, value in xattrs.items())
    full = disk.f_bfree == 0 or (disk.f_files > 0 and disk.f_ffree == 0)
    return size > disk.f_bsize - _SPARE_BYTES and not full
