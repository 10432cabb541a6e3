"""Mounting an overlay: by the new mount API with file descriptors, by mount(2) on kernels without it.

The new API has no option page that truncates silently at 4095 bytes, no escaping, and says what is wrong
in a message. Knows nothing of layers.
"""

import contextlib
import os
from collections.abc import Sequence
from errno import EBUSY, EINVAL, ELOOP, ENOPROTOOPT, ENOSYS, EPERM
from typing import Final

import msgspec

from layerfs.errors import MountError
from layerfs.host.descriptors import closing_fd
from layerfs.host.libc import call, syscall
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.layer.overlayfs import directory_option, lowerdir_option

MAX_LOWERS: Final = 500
"""In both APIs; the kernel's OVL_MAX_STACK."""

MAX_OPTION_BYTES: Final = 4095
"""mount(2) cuts what is longer, and then mounts the wrong directories."""

SOURCE: Final = b"layerfs"
"""The source column of our overlays, in mount(8) and mountinfo: it tells them from those of others."""

_MAX_STRING_BYTES: Final = 255

# Numbers of linux/unistd.h, the same on every architecture, and of linux/mount.h.
_MOVE_MOUNT, _FSOPEN, _FSCONFIG, _FSMOUNT = 429, 430, 431, 432
_CLOEXEC: Final = 1
_SET_FLAG, _SET_STRING, _SET_FD, _CREATE = 0, 1, 5, 6
_MOVE_EMPTY_PATHS: Final = 0x4 | 0x40
"""MOVE_MOUNT_F_EMPTY_PATH and MOVE_MOUNT_T_EMPTY_PATH."""
_ATTRIBUTES: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 16}
_FLAGS: Final = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 1024}

_NOT_HERE: Final = frozenset({ENOSYS, EINVAL, ENOPROTOOPT, EPERM})
"""What a kernel or a sandbox says that lacks the new API, or descriptors in it (before Linux 6.13)."""


class Overlay(msgspec.Struct, frozen=True):
    """What to mount. Paths are absolute; *lowers* are topmost first."""

    lowers: Sequence[bytes]
    upper: bytes | None = None
    work: bytes | None = None
    """Empty, on the filesystem of *upper*; there if and only if *upper* is."""
    data: Sequence[bytes] = ()
    """Data-only lower directories, asked in this order for what a file with a redirect holds (Linux 6.5).

    Such files may lie in any lower directory where ``metacopy=on`` can be said, which `userxattr` excludes.
    Without it the kernel follows those of the last one alone.
    """
    options: frozenset[str] = frozenset()
    """Some of ro, nosuid, nodev, noexec and noatime; without *upper* it is read-only anyway."""
    userxattr: bool | None = None
    """Whether markers are ``user.overlay.`` attributes; None: as this user namespace needs it."""

    def __post_init__(self) -> None:
        if not 1 <= len(self.lowers) + len(self.data) <= MAX_LOWERS:
            raise MountError(f"overlay: {len(self.lowers)} lower directories (expected 1 to {MAX_LOWERS})")
        if len(self.lowers) == 1 and self.upper is None:
            raise MountError(
                "overlay: one lower directory without an upper one (expected two; one may be empty)"
            )
        if (self.upper is None) != (self.work is None):
            raise MountError("overlay: an upper directory needs a work directory, and the other way round")
        unknown = self.options - set(_ATTRIBUTES)
        if unknown:
            raise MountError(f"overlay: unknown options {sorted(unknown)} (expected {sorted(_ATTRIBUTES)})")

    @property
    def words(self) -> frozenset[str]:
        """The options, with what follows from the rest."""
        return self.options | ({"ro"} if self.upper is None else set())

    @property
    def marks_by_user(self) -> bool:
        """Whether to mount with ``userxattr``."""
        return not in_initial_user_namespace() if self.userxattr is None else self.userxattr


def mount_overlay(overlay: Overlay, target: Mountpoint) -> None:
    """Mount *overlay* at *target*. Raises MountError with the kernel's reason."""
    try:
        by_descriptors(overlay, target)
    except NotImplementedError:
        by_option_string(overlay, target)


def by_descriptors(overlay: Overlay, target: Mountpoint) -> None:
    """Mount by fsopen(2) and its family. Raises NotImplementedError where they are missing, MountError."""
    try:
        context = syscall("fsopen", _FSOPEN, b"overlay", _CLOEXEC)
    except OSError as error:
        if error.errno in _NOT_HERE:
            raise NotImplementedError from error
        raise MountError(f"{target}: no overlay: {error.strerror}") from error
    with closing_fd(context):
        _set_directories(context, overlay)
        try:
            _fsconfig(context, _SET_STRING, b"source", SOURCE)
            if "ro" in overlay.words:  # the filesystem, too: else umount(2) would sync the upper one
                _fsconfig(context, _SET_FLAG, b"ro")
            if overlay.marks_by_user:
                _fsconfig(context, _SET_FLAG, b"userxattr")
            elif overlay.data:
                _fsconfig(context, _SET_STRING, b"metacopy", b"on")
            _fsconfig(context, _CREATE)
            attributes = sum(_ATTRIBUTES[word] for word in overlay.words)
            with closing_fd(syscall("fsmount", _FSMOUNT, context, _CLOEXEC, attributes)) as mount:
                syscall("move_mount", _MOVE_MOUNT, mount, b"", target.fd, b"", _MOVE_EMPTY_PATHS)
        except OSError as error:
            raise MountError(_refusal(target, error, _messages(context))) from error


def is_in_use(upper: bytes, aside: tuple[bytes, bytes] | None = None) -> bool:
    """Say whether some overlay has *upper* as its upper directory, be it mounted, detached or out of sight.

    The kernel marks the directory as long as that filesystem lives (fs/overlayfs, ovl_inuse_trylock), which
    is as long as any process has anything of it, and with ``index=on`` refuses a second one before it looks
    at the rest. If none has it, an overlay of it comes to be for a moment, with *aside*: a work directory and
    an empty lower one, on the same filesystem. Without them nothing is made, for that fails, but the kernel
    logs why, as it logs that the directory is in use. Raises OSError if this process may not ask, or this
    kernel cannot be asked.
    """
    with (
        closing_fd(syscall("fsopen", _FSOPEN, b"overlay", _CLOEXEC)) as context,
        contextlib.ExitStack() as held,
    ):
        work, lower = aside or (upper, upper)
        for key, path in ((b"lowerdir", lower), (b"upperdir", upper), (b"workdir", work)):
            fd = held.enter_context(closing_fd(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)))
            # The path itself may be longer than a value.
            _fsconfig(context, _SET_STRING, key, b"/proc/self/fd/%d" % fd)
        _fsconfig(context, _SET_STRING, b"index", b"on")
        _fsconfig(context, _SET_FLAG, b"ro")  # else its end would sync the disk
        try:
            _fsconfig(context, _CREATE)
        except OSError as error:
            if error.errno == EPERM:
                raise
            return error.errno == EBUSY
    return False


def _set_directories(context: int, overlay: Overlay) -> None:
    """Name the directories. Raises NotImplementedError if this kernel takes neither descriptor nor text."""
    for key, path in [
        *((b"lowerdir+", path) for path in overlay.lowers),
        *((b"datadir+", path) for path in overlay.data),
        *((key, path) for key, path in ((b"upperdir", overlay.upper), (b"workdir", overlay.work)) if path),
    ]:
        try:
            directory = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise MountError(f"{os.fsdecode(path)}: {error.strerror} (expected a directory)") from error
        with closing_fd(directory):
            try:
                _fsconfig(context, _SET_FD, key, None, directory)
            except OSError as error:
                _set_text(context, key, path, error)


def _set_text(context: int, key: bytes, path: bytes, refused: OSError) -> None:
    """Name one directory by text, as kernels 6.5 to 6.12 want it: raw for lower ones, escaped for others."""
    text = path if key.endswith(b"+") else path.replace(b"\\", b"\\\\")
    if refused.errno not in _NOT_HERE or len(text) > _MAX_STRING_BYTES:
        raise NotImplementedError from refused
    try:
        _fsconfig(context, _SET_STRING, key, text)
    except OSError as error:
        raise NotImplementedError from error


def by_option_string(overlay: Overlay, target: Mountpoint) -> None:
    """Mount by mount(2). Raises MountError, also when the options do not fit in its page."""
    data = option_string(overlay)
    if len(data) > MAX_OPTION_BYTES:
        raise MountError(
            f"{target}: {len(data)} bytes of options (expected at most {MAX_OPTION_BYTES}); "
            "this kernel has no other way (Linux 6.13 has): shorten the path of the store"
        )
    flags = sum(_FLAGS[word] for word in overlay.words)
    try:
        call("mount", SOURCE, target.target, b"overlay", flags, data)
    except OSError as error:
        raise MountError(_refusal(target, error)) from error


def option_string(overlay: Overlay) -> bytes:
    """Write the options as mount(2) wants them."""
    words = [lowerdir_option(overlay.lowers, overlay.data)]
    if overlay.upper is not None and overlay.work is not None:
        words += [directory_option(b"upperdir", overlay.upper), directory_option(b"workdir", overlay.work)]
    if overlay.marks_by_user:
        words.append(b"userxattr")
    elif overlay.data:
        words.append(b"metacopy=on")
    return b",".join(words)


def _fsconfig(
    context: int, command: int, key: bytes | None = None, value: bytes | None = None, aux: int = 0
) -> None:
    syscall("fsconfig", _FSCONFIG, context, command, key, value, aux)


def _messages(context: int) -> str:
    """Read what the kernel says about the last failure: one message a read, of the kinds e, w and i.

    Overlayfs puts many into the kernel log only.
    """
    found = []
    try:
        while text := os.read(context, 4096):
            found.append(text.decode(errors="replace").strip().partition(" ")[2])
    except OSError:  # ENODATA: that was all
        pass
    return "; ".join(found)


def _refusal(target: Mountpoint, error: OSError, words: str = "") -> str:
    if error.errno == ELOOP:  # of which the kernel says no more
        words = "a directory is given twice, or one is inside another"
    elif error.errno == EPERM and not words and os.geteuid() != 0:
        words = "root may, and root of a user namespace: podman unshare, or unshare -Urm --map-auto"
    reason = words or "the kernel log says why: dmesg"
    return f"{target}: cannot mount the overlay: {error.strerror} ({reason})"
