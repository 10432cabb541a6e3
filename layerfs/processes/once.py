"""A helper for one question: asked on standard input, answers on standard output, and ends. Blocks."""

import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Final

from layerfs.errors import WorkerDied
from layerfs.host.priority import give_way
from layerfs.processes import spawning

MEMORY_MAX: Final = 1 << 30
"""Bytes: a question that needs more ends its helper, not the machine."""


def ask_once(module: str, question: bytes) -> bytes:
    """Return what *module* answers. Raises WorkerDied if it ends without an answer."""
    done = subprocess.run(
        spawning.command(module),
        input=question,
        stdout=subprocess.PIPE,
        cwd="/",
        env=spawning.bare_environment(),
        start_new_session=True,
        check=False,
    )
    if done.returncode or not done.stdout:
        raise WorkerDied(f"{module}: {spawning.how_it_ended(done.returncode)} (expected an answer)")
    return done.stdout


def answer_once(answer: Callable[[bytes], bytes]) -> None:
    """Be the helper: let *answer* have the question."""
    give_way()
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_MAX, MEMORY_MAX))
    sys.stdout.buffer.write(answer(sys.stdin.buffer.read()))
