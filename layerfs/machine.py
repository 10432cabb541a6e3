"""What this machine lacks or fails in, told from a bug by what Python raises. Pure."""

from errno import EAGAIN, EDQUOT, EIO, EMFILE, ENFILE, ENOBUFS, ENOMEM, ENOSPC, EROFS
from typing import Final

from layerfs.errors import LayerfsError

_NO_THREAD: Final = "can't start new thread"
"""What a RuntimeError of Python says for EAGAIN of clone(2)."""
_LACKS: Final = {
    EMFILE: "raise the limit of descriptors (ulimit -n)",
    ENFILE: "raise fs.file-max, or end what holds so many files",
    EAGAIN: "raise the limit of processes and threads (ulimit -u, pids.max)",
    **dict.fromkeys((ENOMEM, ENOBUFS), "end something, or raise the limit of memory"),
    **dict.fromkeys((ENOSPC, EDQUOT), "make room"),
    EROFS: "mount it writable",
    EIO: "see dmesg: a disk may fail",
}
"""What helps where a system call fails for lack of something, wherever in the program that is."""


def machine_fault(error: BaseException) -> LayerfsError | None:
    """Return what this machine lacks or fails in, if *error* says that and nothing else; else it is a bug."""
    found = [_fault(leaf) for leaf in _leaves(error)]
    return next((one for one in found if one), None) if all(found) else None


def _leaves(error: BaseException) -> list[BaseException]:
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    return [leaf for one in error.exceptions for leaf in _leaves(one)]


def _fault(error: BaseException) -> LayerfsError | None:
    match error:
        case LayerfsError():
            return error
        case MemoryError():
            return LayerfsError(f"not enough memory; {_LACKS[ENOMEM]}")
        case RuntimeError(args=(text, *_)) if text == _NO_THREAD:
            return LayerfsError(f"{_NO_THREAD}; {_LACKS[EAGAIN]}")
        case OSError(errno=int(number)) if number in _LACKS:
            where = f"{error.filename}: " if error.filename else ""
            return LayerfsError(f"{where}{error.strerror}; {_LACKS[number]}")
    return None
