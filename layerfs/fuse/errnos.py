"""Which errno a caller sees for which error: one table, and the decorator that applies it to a request.

Everything that is not in the table is a bug of ours: it is logged with the operation and answered with EIO,
so that no single request can end the mount.
"""

import logging
from collections.abc import Callable, Coroutine, Mapping
from errno import (
    EACCES,
    EAGAIN,
    EFBIG,
    EHOSTUNREACH,
    EINTR,
    EIO,
    ENETDOWN,
    ENOENT,
    ENOMEM,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPROTO,
    EROFS,
    ETIMEDOUT,
)
from functools import wraps
from time import monotonic
from types import CoroutineType
from typing import Any, Final, ParamSpec, TypeVar

import trio
from pyfuse3 import FUSEError

from layerfs import errors
from layerfs.fuse.tallies import tally_of

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")

ERRNOS: Final[Mapping[type[Exception], int]] = {
    errors.LayerfsError: EIO,
    errors.UsageError: ENOENT,
    errors.PlatformMissing: ENOENT,
    errors.UnsupportedImage: EOPNOTSUPP,
    errors.BudgetExceeded: EFBIG,
    errors.NotFound: ENOENT,
    errors.Denied: EACCES,
    errors.RateLimited: EAGAIN,
    errors.Unreachable: EHOSTUNREACH,
    errors.RegistryTimeout: ETIMEDOUT,
    errors.RegistryMisbehaved: EPROTO,
    errors.NoRanges: EPROTO,
    errors.Offline: ENETDOWN,
    errors.StoreFull: ENOSPC,
    errors.StoreReadOnly: EROFS,
    errors.StoreUnfit: EOPNOTSUPP,
    errors.NotInStore: ENOENT,
    errors.OutOfMemory: ENOMEM,
    errors.WaitInterrupted: EINTR,
    errors.WaitTimedOut: ETIMEDOUT,
    errors.WaitRefused: EAGAIN,
    trio.TooSlowError: ETIMEDOUT,
}
"""The nearest class in an error's hierarchy counts: everything unnamed here is EIO, by its family."""

_ORDINARY = frozenset({ENOENT, EINTR})
"""Answers that are no event: a name that is not there, a caller that left."""

_LAST_ERRNO = 511
"""The kernel takes a reply with a larger number for malformed, and the caller would wait forever."""

_QUIET_SECONDS = 2.0


def errno_of(error: Exception) -> int | None:
    """Return the errno for *error*, None for one that nobody foresaw."""
    for cls in type(error).__mro__:
        if cls in ERRNOS:
            return ERRNOS[cls]
    if isinstance(error, OSError):
        return _passable(error.errno)
    return None


def _passable(number: int | None) -> int:
    # The kernel takes ENOSYS for "never ask this again": with getxattr, overlays would stop seeing opaque
    # directories of the whole mount.
    if number is None or not 0 < number <= _LAST_ERRNO or number == ENOSYS:
        return EIO
    return number


class _Reports:
    """Log lines of failed requests; the same failure of many callers at once is one line."""

    def __init__(self) -> None:
        self._recent: dict[str, float] = {}

    def failed(self, operation: str, error: Exception) -> None:
        """Log *error* of *operation* with its text."""
        text = f"{operation}: {type(error).__name__}: {error}"
        if self._is_news(text):
            log.warning("%s", text)

    def surprised(self, operation: str, error: Exception) -> None:
        """Log an *error* that nobody foresaw, with its traceback."""
        kind = type(error).__name__
        if self._is_news(f"{operation}: {kind}: {error}"):
            log.error("%s: unexpected %s (a bug, please report it)", operation, kind, exc_info=error)

    def _is_news(self, text: str) -> bool:
        now = monotonic()
        if now - self._recent.get(text, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return False
        self._recent = {seen: at for seen, at in self._recent.items() if now - at < _QUIET_SECONDS}
        self._recent[text] = now
        return True


_reports = _Reports()


def translate(operation: str, error: Exception) -> FUSEError:
    """Return what to raise for *error* of *operation*; logs whatever the caller's errno does not tell."""
    number = errno_of(error)
    if number is None:
        _reports.surprised(operation, error)
        return FUSEError(EIO)
    if number not in _ORDINARY or not isinstance(error, (OSError, errors.WaitInterrupted)):
        _reports.failed(operation, error)
    return FUSEError(number)


def fuse_request(
    handler: Callable[P, T | Coroutine[Any, Any, T]],
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a request handler of a function that answers at once, or returns the coroutine that will.

    So that a request costs one coroutine. It raises FUSEError only; trio's Cancelled is no Exception: the end
    of the mount passes through.
    """
    operation: str = getattr(handler, "__name__", "request")
    tally = tally_of(operation)

    @wraps(handler)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        tally.asked += 1
        try:
            answer = handler(*args, **kwargs)
            if type(answer) is CoroutineType:
                began = monotonic()
                try:
                    return await answer  # type: ignore[no-any-return]  # of T
                finally:
                    tally.waited(monotonic() - began)
            return answer  # type: ignore[return-value]  # no coroutine
        except FUSEError as error:
            tally.refused(error.errno)
            raise
        except Exception as error:  # the one catch-all of the edge; logs what is unexpected
            refusal = translate(operation, error)
            tally.refused(refusal.errno)
            raise refusal from error

    return wrapper
