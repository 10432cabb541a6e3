"""Which user namespace this process is in: it decides which overlay attributes it may set and see.

Called before something is mounted, and by whoever asks whether root is the machine's root.
"""

from functools import cache
from pathlib import Path
from typing import Final

_UID_MAP = Path("/proc/self/uid_map")
_GID_MAP = Path("/proc/self/gid_map")
_ALL_IDS: Final = ["0", "0", "4294967295"]


@cache
def in_initial_user_namespace() -> bool:
    """Say whether no ids are mapped here, so that root is the machine's root.

    Elsewhere an overlay sees ``user.overlay.`` attributes only, and only with the option ``userxattr``.
    Without /proc the answer is yes.
    """
    try:
        return _UID_MAP.read_text(encoding="ascii").split() == _ALL_IDS
    except FileNotFoundError:
        return True


def id_mapping() -> str:
    """Describe which ids this user namespace has: ``0:1000:1,1:100000:65536 0:1000:1``, users then groups.

    Each part is the first id here, the first one outside, and how many. Raises OSError.
    """
    return f"{_ranges(_UID_MAP)} {_ranges(_GID_MAP)}"


def _ranges(path: Path) -> str:
    lines = path.read_text(encoding="ascii").splitlines()
    return ",".join(":".join(line.split()) for line in lines)
