"""What the one who started a daemon may ask of it, and is told: a reload at SIGHUP, signs of life.

A reload reads the configuration, logins and certificates again, and unmounts nothing. What can change while a
mount is there is a table; of the rest a warning says that it holds from the next mount on.
"""

import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

import msgspec
import trio

from layerfs.errors import LayerfsError, MountError
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.supervisor import Supervisor
from layerfs.registry import RegistrySettings
from layerfs.settings import ROWS, Settings
from layerfs.status import Fetching

log = logging.getLogger(__name__)

CHANGEABLE: Final = frozenset(
    {
        "authfile", "evict", "forward_credentials", "hosts_dir", "insecure_registries", "log_level",
        "max_size", "min_free", "mirror_only", "offline", "pin", "reachable_networks", "registries",
        "registries_conf",
    }
)  # fmt: skip
"""Fields of `Settings` that a reload puts in force."""

HelperKind = Literal["downloader", "extractor"]


class Asked(msgspec.Struct, frozen=True):
    """How the downloader of a daemon asks registries."""

    settings: RegistrySettings
    read: int
    """Nanoseconds since 1970, by the clock of files: before what they say was read."""
    again: Callable[[], None]
    """Has another process ask in the same way, which knows no login and no certificate of before."""


_COARSE: Final = 5
"""``CLOCK_REALTIME_COARSE`` of ``linux/time.h``."""

STATUS_SECONDS: Final = 10.0
"""Between two lines about what a daemon does, unless its watchdog wants them more often."""


class InForce:
    """The settings of a running daemon, and who has to know when they change."""

    def __init__(self, settings: Settings, again: Callable[[], Settings] | None = None) -> None:
        self.settings = settings
        self._again = again or (lambda: settings)
        self._said = self._again()
        """As they were last read; a mount of a local image, for instance, has another store than they say."""
        self._users: list[Callable[[Settings], None]] = []
        self._starts: dict[HelperKind, Callable[[], Awaitable[None]]] = {}
        self.asked: Asked | None = None
        """None where no registry is asked."""
        self.answers = trio.Event()
        """Set once the mount answers, and this process has left the terminal."""

    def tell(self, user: Callable[[Settings], None]) -> None:
        """Call *user* with the settings at each reload, changed or not: the files that they name may be.

        A LayerfsError of it ends the reload; who was told before keeps to the new ones.
        """
        self._users.append(user)

    def at_need(self, helper: HelperKind, start: Callable[[], Awaitable[None]]) -> None:
        """Say what starts the process *helper*, unless one runs."""
        self._starts[helper] = start

    async def start(self, helper: HelperKind) -> None:
        """Have the process *helper* run, for work that is about to come. Failures are told to who has it."""
        if helper in self._starts:
            await self._starts[helper]()

    def reload(self) -> None:
        """Read all again, and put in force what can be. Raises LayerfsError; then all is as it was."""
        said = self._again()
        changed = [name for name in ROWS if getattr(said, name) != getattr(self._said, name)]
        changed += [name for name in ("budgets", "serve") if getattr(said, name) != getattr(self._said, name)]
        now = msgspec.structs.replace(
            self.settings, **{name: getattr(said, name) for name in changed if name in CHANGEABLE}
        )
        for user in self._users:
            user(now)
        self._said, self.settings = said, now
        logging.getLogger().setLevel(now.log_level.upper())
        taken = [name for name in changed if name in CHANGEABLE]
        log.info("configuration, logins and certificates were read again; changed: %s", _listed(taken))
        if left := [name for name in changed if name not in CHANGEABLE]:
            log.warning("%s: changed, and in force from the next mount on", _listed(left))


def clock_of_files() -> int:
    """Return nanoseconds since 1970, no more than a file would have that changed now."""
    return time.clock_gettime_ns(_COARSE)


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "nothing"


class Supervised:
    """A daemon's side of its supervisor."""

    def __init__(self, supervisor: Supervisor, in_force: InForce, statistics: Callable[[], Fetching]) -> None:
        self._supervisor = supervisor
        self._in_force = in_force
        self._statistics = statistics

    async def hang_up(self) -> None:
        """Reload, as SIGHUP asks for; what goes wrong is logged, and the old settings stay in force."""
        with _unless_it_has_gone():
            self._supervisor.reloading()
        try:
            self._in_force.reload()
        except LayerfsError as exc:
            log.error("%s; the configuration was not read again, and what was in force stays", exc)
        finally:
            with _unless_it_has_gone():
                self._supervisor.ready()

    def announcing(
        self, nursery: trio.Nursery, mountpoint: Mountpoint, ready: Callable[[], None]
    ) -> Callable[[], None]:
        """Return what calls *ready*, lets others know, and begins to `watch` in a task of *nursery*."""

        def announce() -> None:
            ready()
            self._in_force.answers.set()
            nursery.start_soon(self.watch, mountpoint)

        return announce

    async def watch(self, mountpoint: Mountpoint) -> None:
        """Say what is done, and that the mount answers, for as long as it does, until cancelled."""
        if not self._supervisor.address:
            return
        watchdog = self._supervisor.watchdog
        period = STATUS_SECONDS if watchdog is None else min(STATUS_SECONDS, watchdog / 3)
        with _unless_it_has_gone():
            while True:
                # In a thread, because this process is the one that answers.
                await trio.to_thread.run_sync(os.statvfs, mountpoint.inside, abandon_on_cancel=True)
                self._supervisor.alive(summary(str(mountpoint), self._statistics()))
                await trio.sleep(period)

    def stop(self) -> None:
        """Say that the end has begun."""
        with _unless_it_has_gone():
            self._supervisor.stopping()


def summary(mountpoint: str, now: Fetching) -> str:
    """Say in a line what a daemon does."""
    doing = f"{len(now.fetching)} downloads and extractions, {now.waiting} callers wait"
    failed = f", {now.failed} failed" if now.failed else ""
    return f"Serving {mountpoint}: {doing}; {now.fetched} blobs fetched{failed}"


@contextmanager
def _unless_it_has_gone() -> Iterator[None]:
    """Log that nobody hears us any more; a mount goes on without."""
    try:
        yield
    except MountError as exc:
        log.warning("%s; systemd was not told", exc)
