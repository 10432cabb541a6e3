"""One system call of a pull fails, in any of its processes and threads: strace injects the error.

Whatever the errno, the command ends by itself, with an error in words if with one, no tree is other than its
layer, and the next pull has everything.
"""

import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.attacks import ground
from tests.attacks.ground import Ground

pytestmark = [pytest.mark.needs_root]

_DISK = ("ENOSPC", "EIO", "EDQUOT", "EROFS")
_NAMES = ("ENOSPC", "EIO", "EACCES")
_MANY = ("EMFILE", "ENFILE", "ENOMEM")
FAULTS: Final[dict[str, tuple[str, ...]]] = {
    # content
    "write": ("ENOSPC", "EIO", "EDQUOT", "EINTR"),
    "pwrite64": _DISK,
    "read": ("EIO", "EINTR"),
    "pread64": ("EIO",),
    "lseek": ("EIO",),
    "mmap": ("ENOMEM",),
    "madvise": ("ENOMEM",),
    # names
    "openat": (*_MANY, "EIO", "ENOSPC", "EACCES"),
    "mkdir": _DISK,
    "mkdirat": _DISK,
    "mknodat": (*_DISK, "EPERM"),
    "symlinkat": _DISK,
    "linkat": (*_DISK, "EMLINK", "EPERM"),
    "link": (*_DISK, "EMLINK"),
    "rename": _DISK,
    "unlink": ("EIO", "EROFS", "EACCES"),
    "unlinkat": ("EIO", "EROFS"),
    "rmdir": ("EIO", "EBUSY"),
    "newfstatat": ("EIO", "ENOMEM", "EACCES"),
    "getdents64": ("EIO", "ENOMEM"),
    "readlink": ("EIO",),
    # attributes
    "utimensat": ("EIO", "EPERM"),
    "fchmod": ("EIO", "EPERM"),
    "fchown": ("EIO", "EPERM"),
    "chmod": ("EIO", "EPERM"),
    "fsetxattr": ("EIO", "EPERM"),
    "setxattr": ("EIO", "EPERM", "EOPNOTSUPP"),
    "flistxattr": ("EIO", "ENOMEM"),
    "fstatfs": ("EIO",),
    # durability and locks
    "fsync": ("EIO", "ENOSPC"),
    "syncfs": ("EIO", "ENOSPC"),
    "fcntl": ("EAGAIN", "EINTR", "EIO", "ENOLCK"),
    # processes
    "clone3": ("EAGAIN", "ENOMEM"),
    "clone": ("EAGAIN", "ENOMEM"),
    "vfork": ("EAGAIN", "ENOMEM"),
    "execve": ("ENOMEM", "EACCES"),
    "pipe2": _MANY,
    "socketpair": _MANY,
    "dup2": ("EMFILE",),
    "prctl": ("EPERM", "EINVAL"),
    "capset": ("EPERM",),
    "prlimit64": ("EPERM",),
    "landlock_create_ruleset": ("ENOSYS", "EOPNOTSUPP"),
    "landlock_add_rule": ("EINVAL",),
    "landlock_restrict_self": ("EPERM", "E2BIG"),
    # network
    "socket": _MANY,
    "connect": ("ECONNREFUSED", "ENETUNREACH", "EADDRNOTAVAIL"),
    "sendto": ("ECONNRESET", "EPIPE", "ENOBUFS"),
    "recvfrom": ("ECONNRESET", "ETIMEDOUT", "ENOMEM"),
    "setsockopt": ("EINVAL", "ENOBUFS"),
    "epoll_ctl": ("ENOMEM", "ENOSPC"),
    "epoll_wait": ("EINTR",),
    "poll": ("EINTR", "ENOMEM"),
}
IN_EACH_RUN: Final = {("write", "ENOSPC"), ("rename", "EIO"), ("clone3", "EAGAIN")}
"""The others take minutes."""

_TRACEBACK: Final = re.compile(r"^[ |+-]*(Exception Group )?Traceback", re.MULTILINE)
"""Of the command; what a helper reports of itself is one line."""


@dataclass(frozen=True)
class Profile:
    """How often the threads of an undisturbed pull make each call, at most."""

    at_start: Counter[str]
    """Before the command looks at its store: what Python does there is not ours."""
    at_all: Counter[str]

    def position(self, call: str, choose: random.Random) -> int:
        """Return the number of a call, counted from 1 in each thread."""
        first = self.at_start[call] + 1
        return choose.randint(first, max(first, self.at_all[call]))


def _strace(log: Path, expression: str) -> list[str]:
    return ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(log), "-e", expression]


@pytest.fixture(scope="module")
def profile(_session_ground: Ground) -> Iterator[Profile]:
    with tempfile.TemporaryDirectory(prefix="layerfs-test-", dir="/dev/shm") as path:
        store, log = Path(path) / "store", Path(path) / "log"
        done = ground.pull(store, _session_ground.names[0], before=_strace(log, f"trace={','.join(FAULTS)}"))
        assert done.returncode == 0, done.stderr
        counts: dict[str, Counter[str]] = {}
        at_start: Counter[str] | None = None
        for line in log.read_text(errors="replace").splitlines():
            thread, _, rest = line.partition(" ")
            call, opened, _ = rest.strip().partition("(")
            if at_start is None and str(store) in rest and call != "execve":
                at_start = Counter(counts[thread])
            if opened:
                counts.setdefault(thread, Counter())[call] += 1
        assert at_start is not None
        at_all: Counter[str] = Counter()
        for count in counts.values():
            at_all |= count
        yield Profile(at_start, at_all)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        pytest.param(call, error, marks=[] if (call, error) in IN_EACH_RUN else pytest.mark.long)
        for call, errors in FAULTS.items()
        for error in errors
    ],
)
def test_a_failing_call_harms_nothing(
    attacked: Ground,
    profile: Profile,
    memory: Path,
    call: str,
    error: str,
    tried: Callable[[int], None],
) -> None:
    position = profile.position(call, random.Random(f"{call} {error}"))
    store, log = memory / "store", memory / "log"

    strace = _strace(log, f"inject={call}:error={error}:when={position}")
    done = ground.pull(store, attacked.names[0], before=strace)

    said = f"call {position} of a thread: exit {done.returncode}\n{done.stderr}"
    attacked.nothing_runs()
    found = attacked.compare(store)
    if done.returncode == 0:
        assert found == len(attacked.images[0].layers), said
    assert 0 <= done.returncode <= 6, said
    assert not _TRACEBACK.search(done.stderr), said
    attacked.heal(store, first=1)
    tried(int("(INJECTED)" in log.read_text(errors="replace")))
