"""Which user namespace this process is in: it decides which overlay attributes it may set and see.

Called by the command line before it mounts an overlay.
"""

from pathlib import Path
from typing import Final

_UID_MAP = Path("/proc/self/uid_map")
_ALL_IDS: Final = ["0", "0", "4294967295"]


def in_initial_user_namespace() -> bool:
    """Say whether no ids are mapped here, so that root is the machine's root.

    Elsewhere an overlay sees ``user.overlay.`` attributes only, and only with the option ``userxattr``.
    Without /proc the answer is yes.
    """
    try:
        return _UID_MAP.read_text(encoding="ascii").split() == _ALL_IDS
    except FileNotFoundError:
        return True
