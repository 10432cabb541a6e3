"""A file of this machine as the bytes of a blob, without copying them: a reflink, else a hard link.

Decides when sharing is safe. Verifies nothing: `StagedDownload.commit` judges the bytes, as after a download.
"""

import fcntl
import os
import stat
from pathlib import Path
from typing import Final

from layerfs.store.download import StagedDownload

_FICLONE: Final = 0x40049409
"""ioctl_ficlonerange(2): share all extents; btrfs, XFS, bcachefs and overlays of them."""


def adopt(staged: StagedDownload, source: Path, size: int) -> bool:
    """Make the *size* bytes of the file *source* those of *staged*; only `commit` may follow.

    False if nothing can be shared: then nothing has changed, and the bytes have to be written. After a hard
    link the descriptor of *staged* can only read. Raises StoreError.
    """
    if staged.offset or staged.pieces:
        return False  # an earlier attempt has a part; it goes on there
    target, _ = staged.descriptors
    try:
        fd = os.open(source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        if not _clone(fd, target) and not (_is_ours(status) and _link(fd, target, staged.staged_path)):
            return False
    finally:
        os.close(fd)
    staged.take_over()
    return True


def _is_ours(status: os.stat_result) -> bool:
    """Say whether nobody else may write to the file: a hard link stays theirs."""
    return status.st_uid == os.geteuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _clone(fd: int, target: int) -> bool:
    try:
        fcntl.ioctl(target, _FICLONE, fd)
    except OSError:  # another filesystem, or one that does not share
        return False
    return True


def _link(fd: int, target: int, staged_path: Path) -> bool:
    """Put the file *fd* in the place of the staged one, and of its descriptor *target*."""
    temporary = staged_path.with_name(f"{staged_path.name.partition('.')[0]}.{os.urandom(16).hex()}.writing")
    try:
        # Any src_dir_fd makes Python call linkat(2), which alone can follow the link in /proc.
        os.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
    except OSError:  # another filesystem
        return False
    try:
        os.rename(temporary, staged_path)
    except OSError:
        os.unlink(temporary)
        return False
    os.dup2(fd, target, inheritable=False)
    return True
