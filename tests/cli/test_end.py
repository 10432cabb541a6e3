"""The end of a command takes no time: its memory goes with the process."""

import re
import subprocess
import sys
from pathlib import Path

from layerfs.store import ImageStorage

_COUNTED = "import gc; gc.set_debug(gc.DEBUG_STATS); from layerfs.cli import main; main()"
_LOOKED_AT = re.compile(r"gc: objects in each generation: (\d+) (\d+) (\d+)")


def test_nothing_is_looked_through_for_garbage_when_a_command_has_ended(tmp_path: Path) -> None:
    ImageStorage(tmp_path / "store").close()
    done = subprocess.run(
        [sys.executable, "-c", _COUNTED, "images", "--store", tmp_path / "store"],
        check=True,
        capture_output=True,
        text=True,
    )
    *_, last = (sum(map(int, counts)) for counts in _LOOKED_AT.findall(done.stderr))
    assert last < 5000
