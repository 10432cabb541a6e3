"""Which boot of this machine is running: what was only in the page cache is gone in the next one."""

from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@cache
def boot_id() -> str:
    """Return the kernel's random identifier of this boot, a UUID in lower case. Raises OSError."""
    return _BOOT_ID.read_text(encoding="ascii").strip()
