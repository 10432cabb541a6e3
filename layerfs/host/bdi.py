"""The read-ahead of a mount: 128 KiB as FUSE negotiates it, 1 MiB if we may write to sysfs.

Called by the kernel edge once its mount answers, in a thread.
"""

import os
from pathlib import Path
from typing import Final

READ_AHEAD_KIB: Final = 1024
"""FUSE requests grow up to 1 MiB; more read-ahead gains little (facts/fuse-and-overlay.md section 3)."""

_BDI = Path("/sys/class/bdi")


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
