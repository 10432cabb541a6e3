"""Hard links: made at once where the target exists, kept until the end where it comes later in the archive.

Follows no link.
"""

import os
from collections.abc import Callable
from stat import S_ISDIR

from layerfs.errors import InvalidArchive
from layerfs.extract.directories import Directories, Directory
from layerfs.layer.paths import shown, split

Remove = Callable[[Directory, bytes], None]


def link(directories: Directories, target: bytes, path: bytes, remove: Remove) -> bool:
    """Make *path* another name of *target*, in place of what stands there; False if there is no target.

    Raises InvalidArchive for a directory as target, PathEscape for a way through a symlink, OSError.
    """
    found = _find(directories, target)
    if found is None:
        return False
    source, source_leaf, status = found
    if S_ISDIR(status.st_mode):
        raise InvalidArchive(f"{shown(path)}: a hard link to the directory {shown(target)}")
    parent_path, leaf = split(path)
    parent = directories.get(parent_path)
    try:
        os.link(source_leaf, leaf, src_dir_fd=source.fd, dst_dir_fd=parent.fd, follow_symlinks=False)
    except FileExistsError:
        there = os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False)
        if (there.st_dev, there.st_ino) == (status.st_dev, status.st_ino):
            return True
        remove(parent, leaf)
        return link(directories, target, path, remove)
    return True


def exists(directories: Directories, path: bytes) -> bool:
    """Say whether anything stands at *path*. Raises PathEscape and InvalidArchive like `link`."""
    return _find(directories, path) is not None


def _find(directories: Directories, path: bytes) -> tuple[Directory, bytes, os.stat_result] | None:
    if not path:
        return directories.root, b".", os.fstat(directories.root.fd)
    parent_path, leaf = split(path)
    parent = directories.find(parent_path)
    if parent is None:
        return None
    try:
        return parent, leaf, os.stat(leaf, dir_fd=parent.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None


class LateLinks:
    """Links whose target is still to come, by path; the last one of a name counts."""

    def __init__(self) -> None:
        self._targets: dict[bytes, bytes] = {}
        self._in_directory: dict[bytes, set[bytes]] = {}
        """Paths that wait, by the directory that they will be in, which exists."""

    def add(self, path: bytes, target: bytes) -> None:
        """Wait for *target*."""
        self._targets[path] = target
        self._in_directory.setdefault(split(path)[0], set()).add(path)

    def forget(self, path: bytes) -> None:
        """Drop what waits at *path*, and in *path* if that was a directory: it is replaced."""
        if self._targets:
            self._targets.pop(path, None)
            for known in self._in_directory.pop(path, ()):
                self._targets.pop(known, None)

    def make(self, directories: Directories, made: Callable[[bytes, bytes], None]) -> None:
        """Make all links that wait, and call *made* with the target and the path of each.

        Raises InvalidArchive for one whose target never came, and like `link`.
        """
        for path in tuple(self._targets):
            if path in self._targets:
                self._make_chain(directories, path, made)

    def _make_chain(
        self, directories: Directories, path: bytes, made: Callable[[bytes, bytes], None]
    ) -> None:
        """Make *path*, the link that it waits for first; a circle of links has no first."""
        chain = []
        while path in self._targets and not exists(directories, path):
            chain.append((path, self._targets.pop(path)))
            path = chain[-1][1]
        self._targets.pop(path, None)  # a later member has the name
        for name, target in reversed(chain):
            if not link(directories, target, name, _keep):
                raise InvalidArchive(f"{shown(name)}: a hard link to {shown(target)}, which does not exist")
            made(target, name)


def _keep(parent: Directory, leaf: bytes) -> None:
    raise AssertionError(f"{shown(leaf)} appeared in {shown(parent.path)} while nobody writes")
