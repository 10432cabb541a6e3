"""What the kernel says and does about disks: the boot, write-back, read-ahead."""

import os
from functools import cache
from pathlib import Path
from typing import Final

from layerfs.host.libc import call
from layerfs.host.oserrors import disk_errors

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_BDI: Final = Path("/sys/class/bdi")
"""A directory for each filesystem by its device number (Linux, Documentation/ABI/testing/sysfs-class-bdi)."""

READ_AHEAD_KIB: Final = 1024
"""FUSE begins with 128. Requests grow up to 1 MiB with this; more gains little (docs/performance.md)."""


@cache
def boot_id() -> str:
    """Return the kernel's random identifier of this boot, a UUID in lower case. Raises StoreError.

    What was only in the page cache is gone in the next boot.
    """
    with disk_errors(f"{_BOOT_ID}: cannot be read (expected /proc, as mount -t proc proc /proc makes it)"):
        return _BOOT_ID.read_bytes().decode().strip()


def syncfs(fd: int) -> None:
    """Write everything that is dirty on the filesystem of *fd* to its disk; returns when it is there.

    Since Linux 5.8 an error of the write-back since the last call is reported (syncfs(2)). Raises OSError.
    """
    call("syncfs", fd)


def raise_read_ahead(device: int, kib: int = READ_AHEAD_KIB) -> bool:
    """Set the read-ahead of the filesystem whose files have st_dev *device*; say whether that was permitted.

    Only real root may: in a user namespace the file belongs to nobody.
    """
    setting = _BDI / f"{os.major(device)}:{os.minor(device)}" / "read_ahead_kb"
    try:
        if int(setting.read_text()) < kib:
            setting.write_text(str(kib))
    except (OSError, ValueError):
        return False
    return True
