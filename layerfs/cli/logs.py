"""Where log lines go: stderr in the foreground, a file or the journal in the background.

One event is one line. Without help a log stays bounded: a file is set aside once it is large, and of many
lines with one cause some are left out, which is said. One format for people, one for machines. Under systemd
lines carry the ``<N>`` prefix that journald reads as the priority (sd-daemon(3)), and no time, which the
journal adds itself.
"""

import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Final

from layerfs.foreign import OneLine
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.places import xdg
from layerfs.spared import without

with without(late=["pickle"]):  # for those who log to a server
    import logging.handlers

MAX_BYTES: Final = 16 << 20
"""How large a log file becomes; as much is kept of what was before."""
MAX_LINES: Final = 100
"""How many lines with one cause are written in each `WINDOW_SECONDS`."""
WINDOW_SECONDS: Final = 60.0
_CAUSES: Final = 1000

_SYSTEM_LOG: Final = Path("/var/log/layerfs.log")
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))


def default_log_file(environ: Mapping[str, str], uid: int) -> Path:
    """Say where a daemon in the background logs: /var/log/layerfs.log, or below $XDG_STATE_HOME.

    Root of a user namespace may not write the system's log. Without $HOME the user database names the home.
    """
    if uid == 0 and in_initial_user_namespace():
        return _SYSTEM_LOG
    base = xdg(environ, "state") or Path.home() / ".local" / "state"
    return base / "layerfs" / "layerfs.log"


def log_to_stderr(level: str, *, as_json: bool = False) -> None:
    """Log to stderr, for a foreground process or systemd."""
    _install(logging.StreamHandler(sys.stderr), level, as_json=as_json, journal=_stderr_is_journal())


def log_to_file(path: Path, level: str, *, as_json: bool = False) -> None:
    """Log to *path*, made if absent; a file moved away by logrotate is opened anew. Raises OSError.

    Nobody has to: beyond `MAX_BYTES` it is set aside as ``PATH.1``, in the place of what was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _install(_LogFile(path, encoding="utf-8"), level, as_json=as_json)


def _install(handler: logging.Handler, level: str, *, as_json: bool, journal: bool = False) -> None:
    if as_json:
        handler.setFormatter(_JsonFormatter())
    elif journal:
        handler.setFormatter(_JournalFormatter("%(name)s: %(message)s"))
    else:
        handler.setFormatter(OneLine(_TEXT))
    handler.addFilter(_Sparing())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


def _stderr_is_journal() -> bool:
    """Say whether stderr is the stream that systemd announced in $JOURNAL_STREAM (systemd.exec(5))."""
    try:
        stat = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"


class _Sparing(logging.Filter):
    """Leaves lines out of which there are too many with one cause, and says how many with the next one.

    A cause is the format of a message and the level: what names vary in is the same event again and again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._windows: dict[tuple[str, int, str], list[float]] = {}
        """For a cause when its minute began, its lines of that minute, and those that were left out."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the line is written."""
        if record.levelno < logging.INFO:
            return True  # whoever debugs wants all
        if len(self._windows) > _CAUSES:
            self._windows.clear()
        cause = (record.name, record.levelno, str(record.msg))
        window = self._windows.setdefault(cause, [record.created, 0, 0])
        began, lines, left_out = window
        if record.created - began >= WINDOW_SECONDS:
            window[:] = [record.created, 1, 0]
            if left_out:
                record.msg = f"{record.msg} (and {left_out:.0f} more of this kind before, left out)"
            return True
        window[1] += 1
        window[2] += lines >= MAX_LINES
        return lines < MAX_LINES


class _LogFile(logging.handlers.WatchedFileHandler):
    """A file that others cannot read: it says who asked for what, and with which login."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line. What a full disk does not take is lost: it must not fail what the line is about."""
        try:
            super().emit(record)
            self._set_aside()
        except OSError:  # the directory is gone
            self.handleError(record)

    def _set_aside(self) -> None:
        """Move a file that is too large away, unless another process just did; the next line makes one."""
        if self.stream is None or os.fstat(self.stream.fileno()).st_size < MAX_BYTES:
            return
        with suppress(FileNotFoundError):
            path = Path(self.baseFilename)
            if os.path.samestat(path.stat(), os.fstat(self.stream.fileno())):
                path.replace(f"{path}.1")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        """Say nothing of an OSError: there is no better place for lines than this file."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)

    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(open(self.baseFilename, "ab", opener=_open_closed), encoding=self.encoding)


def _open_closed(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


class _JournalFormatter(OneLine):
    """Prefix the line with its syslog priority."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{super().format(record)}"


class _JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": self.formatTime(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        import json  # most logs are text

        return json.dumps(entry)
