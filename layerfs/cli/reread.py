"""What files said when a daemon read them, beside what they say to a command; logins alone are read anew."""

import logging
from typing import TYPE_CHECKING

import msgspec
import trio

from layerfs.cli.trusted import Consulted
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.supervision import Asked, InForce

log = logging.getLogger(__name__)


class FilesInForce:
    """What the downloader of a daemon has read."""

    def __init__(self, in_force: "InForce") -> None:
        self._in_force = in_force
        self._consulted: Consulted | None = None
        self._consult(in_force.settings)
        in_force.tell(self._consult)

    def difference(self, found: Consulted) -> str:
        """Say which files are other ones than were read here; logins that have changed are read. Blocking."""
        mine, asked = self._consulted, self._in_force.asked
        if mine is None or asked is None:
            return "what files say is not known (SIGHUP has the daemon read them)"
        if why := mine.elsewhere(found) or found.unclear:
            return why
        if found.logins != mine.logins:
            now = Consulted.of(asked.settings, self._in_force.settings)
            if now.unclear or found.logins != now.logins:
                return now.unclear or "other logins"
            current = msgspec.structs.replace(mine, logins=now.logins)
            trio.from_thread.run_sync(self._log_in_anew, asked, current)
        return ""

    def _log_in_anew(self, asked: "Asked", now: Consulted) -> None:
        """Have the downloader know the logins that are there *now*, and nothing else anew."""
        if asked is self._in_force.asked:  # since then all may have been read
            asked.again()
            self._consulted = now

    def _consult(self, settings: Settings) -> None:
        """Remember what files say that were read. Raises nothing: it is asked in the middle of a reload."""
        self._consulted = None
        asked = self._in_force.asked
        try:
            if asked is not None:
                self._consulted = Consulted.of(asked.settings, settings, since=asked.read)
        except Exception:
            log.exception("unexpected failure of what is looked at for commands")
