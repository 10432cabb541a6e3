"""Checks of the machine: FUSE, overlayfs, limits, the clock."""

import os
import resource
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from layerfs.doctor.observation import Observation, failure, ok, warning
from layerfs.host.clock import is_synchronised
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.trials import fuse_version, namespace_refusal, overlay_refusal

_FUSE: Final = Path("/dev/fuse")
_FUSE_CONF: Final = Path("/etc/fuse.conf")
_FILES: Final = 1024
"""Open files that a daemon should be able to have."""
_SWITCHES: Final = {
    "kernel.unprivileged_userns_clone": ("0", "1"),  # Debian's
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),  # Ubuntu's
    "user.max_user_namespaces": ("0", "10000"),
}
"""What of sysctl(8) forbids user namespaces: the value that does, and one that does not."""


def kernel() -> Iterator[Observation]:
    """Say which kernel this is: what it can is tried by the checks that follow."""
    system = os.uname()
    yield ok("kernel", f"{system.sysname} {system.release}, {system.machine}")


def fuse_device() -> Iterator[Observation]:
    """Open /dev/fuse; as root, ask for the version of its protocol."""
    check = "FUSE device"
    try:
        os.close(os.open(_FUSE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        yield failure(check, f"{_FUSE}: not there", "modprobe fuse; for a container: --device /dev/fuse")
        return
    except OSError as exc:
        mend = "modprobe fuse" if not isinstance(exc, PermissionError) else f"chmod 666 {_FUSE}, as root"
        yield failure(check, f"{_FUSE}: {exc.strerror}", mend)
        return
    yield ok(check, f"{_FUSE} can be opened")
    if os.geteuid():
        return
    with tempfile.TemporaryDirectory(prefix="layerfs-doctor.") as scratch:
        try:
            major, minor = fuse_version(Path(scratch))
        except OSError as exc:
            why = f"root may not mount FUSE here: {exc.strerror}"
            yield failure("FUSE mount", why, "for a container: --cap-add SYS_ADMIN, or --privileged")
        else:
            yield ok("FUSE mount", f"protocol {major}.{minor}")


def fusermount() -> Iterator[Observation]:
    """Look for what mounts FUSE for those who are not root."""
    check = "fusermount3"
    found = shutil.which(check)
    if found is None:
        mend = "apt install fuse3 (or the package of that name elsewhere)"
        if os.geteuid():
            yield failure(check, "not installed; only root can mount", mend)
        else:
            yield warning(check, "not installed; users who are not root cannot mount", mend)
        return
    status = Path(found).stat()
    if os.geteuid() and in_initial_user_namespace() and (status.st_uid or not status.st_mode & stat.S_ISUID):
        yield failure(check, f"{found}: not setuid root", f"chmod u+s {found}, as root")
        return
    yield ok(check, found)
    if os.geteuid() and not _allows_others():
        yield warning(
            "allow_other",
            "mounts of this user can be seen by this user alone",
            f"echo user_allow_other >> {_FUSE_CONF}, as root",
        )


def _allows_others() -> bool:
    try:
        lines = _FUSE_CONF.read_text(errors="replace").splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)


def overlays() -> Iterator[Observation]:
    """Mount an overlay, here if this is root, and in a user namespace."""
    with tempfile.TemporaryDirectory(prefix="layerfs-doctor.") as name:
        scratch = Path(name)
        if os.geteuid() == 0:
            refusal = overlay_refusal(scratch)
            if refusal:
                yield warning("overlay", refusal, "modprobe overlay; layerfs mount works without")
            else:
                yield ok("overlay", "can be mounted")
        inner = scratch / "namespace"
        inner.mkdir()
        refusal = namespace_refusal(inner)
        if refusal:
            yield warning("overlay of users", f"no overlay in a user namespace: {refusal}", _allowing())
        else:
            yield ok("overlay of users", "can be mounted in a user namespace")


def _allowing() -> str:
    """Return what allows user namespaces again; empty if no switch forbids them."""
    for name, (forbidding, allowing) in _SWITCHES.items():
        try:
            value = Path("/proc/sys", name.replace(".", "/")).read_text()
        except OSError:
            continue
        if value.strip() == forbidding:
            return f"sysctl -w {name}={allowing}, as root"
    return ""


def limits() -> Iterator[Observation]:
    """Look how many files a daemon may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FILES:
        enough = hard == resource.RLIM_INFINITY or hard >= _FILES
        mend = (
            f"ulimit -n {_FILES}" if enough else "raise nofile in /etc/security/limits.conf, and log in again"
        )
        yield warning("open files", f"at most {soft} (expected {_FILES} or more)", mend)
    else:
        yield ok("open files", "no limit" if soft == resource.RLIM_INFINITY else f"at most {soft}")


def clock() -> Iterator[Observation]:
    """Ask whether the clock is kept right: certificates and tokens are judged by it."""
    known = is_synchronised()
    if known is False:
        yield warning(
            "clock", "nothing keeps it right", "timedatectl set-ntp true (package systemd-timesyncd)"
        )
    else:
        yield ok("clock", "kept right" if known else "not shown to this process")
