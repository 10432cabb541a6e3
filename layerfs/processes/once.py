"""A helper for one question: asked on standard input, answers on standard output, and ends. Blocks."""

import sys
from collections.abc import Callable

from layerfs.errors import WorkerDied
from layerfs.host.priority import give_way, limit_memory
from layerfs.processes import spawning


def ask_once(module: str, question: bytes) -> bytes:
    """Return what *module* answers. Raises WorkerDied if it ends without an answer."""
    import subprocess  # the command or daemon that has this module hardly ever asks

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
    limit_memory()
    sys.stdout.buffer.write(answer(sys.stdin.buffer.read()))
