"""Where log lines go when the log is moved away, as logrotate does it."""

import subprocess
import sys
from pathlib import Path

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
