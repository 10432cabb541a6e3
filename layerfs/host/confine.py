"""What a helper process gives up before it meets foreign bytes: privileges, system calls, places to write to.

The kernel decides how much of it there is; what it lacks is left out, and said by what the functions return.
Each of them also holds for whatever the process starts later, and cannot be taken back. Sources: prctl(2),
seccomp(2), landlock(7), capabilities(7).
"""

import ctypes
import errno
import os
import signal
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from layerfs.host.descriptors import closing_fd
from layerfs.host.libc import call, syscall

_PR_SET_PDEATHSIG: Final = 1
_PR_CAPBSET_DROP: Final = 24
_PR_SET_SECCOMP: Final = 22
_MODE_FILTER: Final = 2

# Numbers of capabilities(7).
CAP_CHOWN: Final = 0
CAP_DAC_OVERRIDE: Final = 1
CAP_DAC_READ_SEARCH: Final = 2
CAP_FOWNER: Final = 3
CAP_FSETID: Final = 4
CAP_SYS_ADMIN: Final = 21
CAP_MKNOD: Final = 27
CAP_SETFCAP: Final = 31
_CAP_VERSION: Final = 0x20080522

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION: Final = 1
_PATH_BENEATH: Final = 1
_SCOPES: Final = 0b11
"""Abstract sockets and signals; ABI 6."""
_SCOPES_ABI: Final = 6
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_WRITES: Final = 1 << 1 | sum(1 << bit for bit in range(4, 13)) | _REFER
"""WRITE_FILE, REMOVE_*, MAKE_*, REFER."""
_LINKS_ABI: Final = 2
"""Before it no link or rename between directories can be allowed."""
_TRUNCATE_ABI: Final = 3

CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # name: number on x86_64, on aarch64 (None: it does not exist there)
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "pidfd_getfd": (438, 438),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsmount": (432, 432),
    "mount_setattr": (442, 442),
    "unshare": (272, 97),
    "setns": (308, 268),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "acct": (163, 89),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "fchown": (93, 55),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "utime": (132, None),
    "utimes": (235, None),
    "utimensat": (280, 88),
}
NETWORK: Final = ("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4")
PROGRAMS: Final = ("execve", "execveat")
METADATA: Final = tuple(
    name for name in CALLS if "chmod" in name or "chown" in name or "xattr" in name or name.startswith("utim")
)
SYSTEM: Final = tuple(name for name in CALLS if name not in (*NETWORK, *PROGRAMS, *METADATA))
"""What no helper needs: other processes' memory, mounts, namespaces, modules, clocks, keys."""

_MACHINES: Final = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""AUDIT_ARCH of audit.h, and the column of `CALLS`."""
_X32: Final = 0x40000000
_ALLOW: Final = 0x7FFF0000
_REFUSE: Final = 0x00050000 | errno.EPERM


def end_with_parent(parent: int) -> None:
    """Be killed when the process *parent* ends, which forked this one; exit if it has ended already."""
    call("prctl", _PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def keep_capabilities(kept: Iterable[int]) -> None:
    """Give up all capabilities but those *kept* that the process has."""
    mask = sum(1 << number for number in kept)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_bytes())
    for number in range(last + 1):
        if not mask >> number & 1:
            with suppress(OSError):  # only with CAP_SETPCAP; without it there is nothing to gain either
                call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
    header = struct.pack("=Ii", _CAP_VERSION, 0)
    data = ctypes.create_string_buffer(24)
    call("capget", header, data)
    words = struct.unpack("=6I", data.raw)
    low, high = mask & 0xFFFFFFFF, mask >> 32
    # The word for capabilities that a program inherits is emptied: nothing is started that would need one.
    kept_words = (words[0] & low, words[1] & low, 0, words[3] & high, words[4] & high, 0)
    call("capset", header, struct.pack("=6I", *kept_words))


def refuse_calls(names: Sequence[str]) -> bool:
    """Have the system calls *names*, of `CALLS`, fail with EPERM; False where that is not possible.

    Needs no_new_privs (`layerfs.host.priority`), and has to come before any thread is started.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    audit, column = machine
    numbers = [number for name in names if (number := CALLS[name][column]) is not None]
    program = _filter(audit, numbers)
    buffer = ctypes.create_string_buffer(program, len(program))
    described = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    try:
        call("prctl", _PR_SET_SECCOMP, _MODE_FILTER, described, 0, 0)
    except OSError as exc:
        if exc.errno in (errno.EINVAL, errno.ENOSYS, errno.EACCES):  # a kernel without filters
            return False
        raise
    return True


def write_only_below(*directories: int) -> bool:
    """Let nothing be written, made or removed but below *directories* (descriptors); False if not possible.

    Files that are open already stay as they are. Needs no_new_privs (`layerfs.host.priority`).
    """
    try:
        abi = syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION)
    except OSError:
        return False
    if abi < _LINKS_ABI:
        return False
    rights = _WRITES | (_TRUNCATE if abi >= _TRUNCATE_ABI else 0)
    attributes = struct.pack("=QQQ", rights, 0, _SCOPES) if abi >= _SCOPES_ABI else struct.pack("=Q", rights)
    made = syscall("landlock_create_ruleset", _CREATE_RULESET, attributes, len(attributes), 0)
    with closing_fd(made) as ruleset:
        for directory in directories:
            rule = struct.pack("=Qi", rights, directory)
            syscall("landlock_add_rule", _ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
        syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    return True


def _filter(audit: int, refused: Sequence[int]) -> bytes:
    """Return a program of classic BPF that refuses other machines' calls, x32's, and *refused*."""
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06
    count = len(refused)
    steps = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 0, count + 3, audit),
        (load, 0, 0, 0),  # seccomp_data.nr
        (at_least, count + 1, 0, _X32),
        *((equal, count - index, 0, number) for index, number in enumerate(refused)),
        (answer, 0, 0, _ALLOW),
        (answer, 0, 0, _REFUSE),
    ]
    return b"".join(struct.pack("=HBBI", *step) for step in steps)
