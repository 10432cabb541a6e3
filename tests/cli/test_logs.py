"""Where log lines go when the log is moved away, as logrotate does it, and how many do."""

import logging
import subprocess
import sys
from pathlib import Path

from layerfs.cli import logs

_SCRIPT = """
import logging, sys
from pathlib import Path
from layerfs.cli.logs import log_to_file

log = Path(sys.argv[1])
log_to_file(log, "info")
logging.info("before")
log.rename(log.with_suffix(".1"))
logging.info("after")
"""


def test_a_log_that_was_moved_away_is_made_anew_with_the_next_line(tmp_path: Path) -> None:
    """In a process of its own: it is the logging of all of one."""
    log = tmp_path / "layerfs.log"
    subprocess.run([sys.executable, "-c", _SCRIPT, log], check=True, timeout=60)
    assert [path.read_text().split(": ")[-1] for path in (log.with_suffix(".1"), log)] == [
        "before\n",
        "after\n",
    ]


_LARGE = """
import logging, sys
from pathlib import Path
from layerfs.cli import logs

logs.MAX_BYTES = 4000
logs.log_to_file(Path(sys.argv[1]), "info")
for number in range(200):
    logging.info("line %d of process %s" % (number, sys.argv[2]))
"""


def test_a_large_log_is_set_aside_also_by_several_processes(tmp_path: Path) -> None:
    log = tmp_path / "layerfs.log"
    processes = [subprocess.Popen([sys.executable, "-c", _LARGE, log, name]) for name in "abc"]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    files = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert files.keys() <= {"layerfs.log", "layerfs.log.1"}
    assert all(status.st_size < 6000 and status.st_mode & 0o777 == 0o600 for status in files.values())
    last = (tmp_path / "layerfs.log.1").read_text() + (log.read_text() if log.exists() else "")
    assert "line 199 of process" in last


def record(text: str, when: float, level: int = logging.WARNING) -> logging.LogRecord:
    made = logging.LogRecord("layerfs.a", level, __file__, 1, text, (), None)
    made.created = when
    return made


def test_of_many_lines_with_one_cause_the_rest_is_counted() -> None:
    sparing = logs._Sparing()
    kept = [sparing.filter(record("%s is gone", number / 100)) for number in range(500)]
    assert kept == [True] * logs.MAX_LINES + [False] * (500 - logs.MAX_LINES)
    assert sparing.filter(record("another cause", 5.0))
    assert all(sparing.filter(record("%s is gone", 5.0, logging.DEBUG)) for _ in range(500))

    later = record("%s is gone", logs.WINDOW_SECONDS + 1)
    assert sparing.filter(later)
    assert later.msg == "%s is gone (and 400 more of this kind before, left out)"
    again = record("%s is gone", logs.WINDOW_SECONDS + 2)
    assert sparing.filter(again)
    assert again.msg == "%s is gone"
