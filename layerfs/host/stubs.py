"""Whether files of overlays get their bytes from data-only directories on this kernel: tried, not guessed.

Linux 6.5 and later mostly can, for root of the machine; `layerfs.host.overlay` says what else it takes.
"""

import os
from pathlib import Path
from typing import Final

from layerfs.errors import MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.overlay import Overlay, mount_overlay

_CONTENT: Final = b"rung"


def stub_refusal(scratch: Path, metacopy: str, redirect: str) -> str:
    """Say why files without content cannot be read in overlays here; empty if they can.

    Tried in *scratch*, an empty directory on the filesystem in question, which is left with something in it;
    *metacopy* and *redirect* are the attributes of such files.
    """
    upper, lower, data, merged = (scratch / name for name in ("upper", "lower", "data", "merged"))
    try:
        for directory in (upper, lower, data / "ab", merged):
            directory.mkdir(parents=True)
        (data / "ab" / "object").write_bytes(_CONTENT)
        (upper / "stub").touch()
        os.truncate(upper / "stub", len(_CONTENT))
        os.setxattr(upper / "stub", metacopy, b"")
        os.setxattr(upper / "stub", redirect, b"/ab/object")
        with Mountpoint.open(merged) as target:
            lowers = [os.fsencode(upper), os.fsencode(lower)]  # in any but the last it takes metacopy=on
            mount_overlay(Overlay(lowers, data=[os.fsencode(data)]), target)
            try:
                found = (merged / "stub").read_bytes()
            finally:
                target.unmount()
    except MountError as exc:
        return str(exc)
    except OSError as exc:
        return f"this kernel follows no redirects to data-only directories: {exc.strerror}"
    return "" if found == _CONTENT else "this kernel reads other bytes than those of a redirect"
