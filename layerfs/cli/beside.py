"""A mount that serves its store to other nodes: by a process beside the daemon, so that no lookup waits."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from layerfs.errors import LayerfsError
from layerfs.host import readiness
from layerfs.host.beside import beside
from layerfs.settings import Settings

log = logging.getLogger(__name__)


@contextmanager
def served_beside(settings: Settings, mountpoint: Path) -> Iterator[None]:
    """Serve the store that is mounted at *mountpoint* during the block, if the configuration says where.

    What goes wrong with that is a line in the log: the mount goes on.
    """
    with ExitStack() as held:
        if settings.serve.listen is not None:
            try:
                held.enter_context(beside(lambda owner: _serve(settings, owner, mountpoint), _logs()))
            except OSError as exc:
                log.error("the store is not served: %s", exc.strerror)
        yield


def _serve(settings: Settings, owner: int, mountpoint: Path) -> None:
    from layerfs.cli import interrupts
    from layerfs.cli.opening import open_store
    from layerfs.serving import serve

    os.environ.pop("NOTIFY_SOCKET", None)  # the mount is what systemd waits for
    if sys.stderr.fileno() not in _logs():  # in the background: who started it waits for its end of file
        readiness.leave_terminal()
    try:
        storage = open_store(settings)
        interrupts.run(
            lambda: serve(
                settings,
                storage,
                lambda places: log.info("serving %s at %s", settings.store, ", ".join(map(str, places))),
                owner=owner,
                mount=mountpoint,
            )
        )
    except LayerfsError as exc:
        log.error("the store is not served: %s", exc)
    except interrupts.Interrupted:
        return


def _logs() -> set[int]:
    """Return the descriptors of the log."""
    streams = (getattr(handler, "stream", None) for handler in logging.getLogger().handlers)
    return {stream.fileno() for stream in streams if stream is not None}
