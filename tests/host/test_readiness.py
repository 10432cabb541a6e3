"""Into the background and word back: what is left of a child that failed."""

import subprocess
import sys

_FAILING = """
import os
from layerfs.host.readiness import run_in_background

def fail(ready):
    raise ValueError(os.getpid())

child = run_in_background(fail)
print(os.path.exists(f"/proc/{child}"))
"""


def test_a_child_that_failed_has_ended_when_it_is_told_of() -> None:
    done = subprocess.run([sys.executable, "-c", _FAILING], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
