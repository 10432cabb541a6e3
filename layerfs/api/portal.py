"""A thread with a loop of trio, in which other threads and loops have calls made.

One for each open store. A call that its caller gives up is cancelled there, and has ended before the caller
goes on; what it has made by then is closed. Why a bridge, and not one code for both kinds of loop: everything
below runs on trio (`layerfs.fetch`), and so does the daemon; a second kind would be a second set of faults.
"""

import asyncio
import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Generic, ParamSpec, TypeVar

import trio

from layerfs.api.images import Closing
from layerfs.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_CLOSED = "the store is closed (expected calls before close, or within its with)"

log = logging.getLogger(__name__)


class PortalCall(Generic[T]):
    """One call in the loop."""

    def __init__(self, work: Callable[[], Awaitable[T]], seconds: float | None) -> None:
        self.result: Future[T] = Future()
        self._work = work
        self._seconds = seconds
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        """Make it. Raises nothing but what ends the loop."""
        try:
            with self.scope:
                self._settle(await self._outcome())
        finally:
            self.fail(UsageError(_CLOSED))

    async def _outcome(self) -> T | BaseException:
        try:
            if self._seconds is None:
                return await self._work()
            with trio.fail_after(self._seconds):
                return await self._work()
        except trio.Cancelled:
            raise
        except trio.TooSlowError:
            return TimeoutError(f"not done within {self._seconds:g} s; what was downloaded stays")
        except BaseException as exc:  # noqa: BLE001 - the caller gets it
            return exc

    def _settle(self, found: T | BaseException) -> None:
        if isinstance(found, BaseException):
            self.fail(found)
        else:
            self.result.set_result(found)

    def fail(self, error: BaseException) -> None:
        """Tell the caller of *error*, unless it knows an outcome."""
        if not self.result.done():
            self.result.set_exception(error)


class Portal(Generic[R]):
    """The thread of one resource, which *opening* opens in it; returns once that is open.

    Raises what opening raises. Thread-safe.
    """

    def __init__(self, opening: Callable[[], AbstractAsyncContextManager[R]]) -> None:
        self._opening = opening
        self.opened: Future[R] = Future()
        self._pid = os.getpid()
        self._calls: set[PortalCall[Any]] = set()
        self._lock = threading.Lock()
        self._is_closing = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stop = trio.Event()
        self._thread = threading.Thread(target=self._run, name="layerfs", daemon=True)
        self._thread.start()

    def call(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call and block until it has ended. Raises what it raises."""
        return self.call_within(None, partial(work, *args, **kwargs))

    def call_within(self, seconds: float | None, work: Callable[[], Awaitable[T]]) -> T:
        """Do as `call`, and raise TimeoutError once *seconds* have passed."""
        made = self._submit(work, seconds)
        try:
            return made.result.result()
        except BaseException:
            if not made.result.done():  # Ctrl-C, for instance
                self._cancel(made)
                wait([made.result])
                wait(self._undone(made))
            raise

    async def acall(self, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Make a call, and wait for its end in a loop of asyncio. Raises what it raises."""
        made = self._submit(partial(work, *args, **kwargs), None)
        try:
            await ended(made.result)
        except asyncio.CancelledError:
            self._cancel(made)
            await _surely_ended(made.result)
            for undone in self._undone(made):
                await _surely_ended(undone)
            raise
        return made.result.result()

    def close(self) -> None:
        """Close the resource and end the thread; calls under way raise UsageError. Harmless a second time."""
        if self._pid == os.getpid() and threading.current_thread() is not self._thread:
            self.stop()
            self._thread.join()

    def stop(self) -> None:
        """Have the thread end, and do not wait for it."""
        with self._lock:
            self._is_closing = True
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)

    async def aclose(self) -> None:
        """Do as `close` in a loop of asyncio."""
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def _submit(self, work: Callable[[], Awaitable[T]], seconds: float | None) -> PortalCall[T]:
        if os.getpid() != self._pid:
            raise UsageError("the store was opened before fork(2) (expected one that this process opened)")
        if threading.current_thread() is self._thread:
            raise UsageError("a callback called the store that calls it (expected another thread to do it)")
        made = PortalCall(work, seconds)
        with self._lock:
            if self._is_closing or self._token is None:
                raise UsageError(_CLOSED)
            self._calls.add(made)
            self._token.run_sync_soon(self._begin, made)
        made.result.add_done_callback(lambda _: self._calls.discard(made))
        return made

    def _begin(self, made: PortalCall[Any]) -> None:
        if self._nursery is None:
            made.fail(UsageError(_CLOSED))
        else:
            self._nursery.start_soon(made.run)

    def _cancel(self, made: PortalCall[Any]) -> None:
        if self._token is not None:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(made.scope.cancel)

    def _undone(self, made: PortalCall[Any]) -> list[Future[None]]:
        """Close what a call made that nobody waits for any more; return what to wait for."""
        if made.result.exception() is None and isinstance(found := made.result.result(), Closing):
            with contextlib.suppress(UsageError):
                return [self._submit(found.close, None).result]
        return []

    def _run(self) -> None:
        try:
            trio.run(self._main)
        except BaseException as exc:
            if self.opened.done():
                log.exception("the loop of a store ended by an error")
            else:
                self.opened.set_exception(exc)
        finally:
            with self._lock:
                self._is_closing = True
                left = list(self._calls)
            for made in left:
                made.fail(UsageError(_CLOSED))

    async def _main(self) -> None:
        async with self._opening() as resource, trio.open_nursery() as nursery:
            self._token, self._nursery = trio.lowlevel.current_trio_token(), nursery
            self.opened.set_result(resource)
            if not self._is_closing:
                await self._stop.wait()
            self._nursery = None
            nursery.cancel_scope.cancel()


async def ended(result: "Future[Any]") -> None:
    """Wait until *result* is done, whatever it is."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake(_: object) -> None:
        with contextlib.suppress(RuntimeError):  # that loop has ended
            loop.call_soon_threadsafe(done.set)

    result.add_done_callback(wake)
    await done.wait()


async def _surely_ended(result: "Future[Any]") -> None:
    """Wait until *result* is done, whoever cancels that."""
    while not result.done():
        with contextlib.suppress(asyncio.CancelledError):
            await ended(result)
