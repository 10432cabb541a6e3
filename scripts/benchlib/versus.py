"""`scripts/bench versus REVISION COMMAND ...`: this checkout against an older one, in turn, on one machine.

Each round runs the whole bench of either checkout once, in a process and a `.venv` of its own; they take
turns in being first. Rows are matched by their names; a row that only one of them has is left out.
"""

import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from benchlib.results import ALONE, Measurement, Row, Sample

_ROOT = Path(__file__).parents[2]

Samples = dict[tuple[str, str, str], list[float]]
"""Values by title, unit and row."""


def measurements(
    revision: str, command: Sequence[str], rounds: int, progress: Callable[[str], None]
) -> list[Measurement]:
    """Return a table for each row that both checkouts have: the older one's samples, and this one's."""
    checkouts = {"this checkout": _ROOT, revision: _checkout(revision)}
    found: dict[str, Samples] = {name: {} for name in checkouts}
    for number in range(rounds):
        order = list(checkouts.items())
        for name, checkout in order if number % 2 else reversed(order):
            progress(f"{' '.join(command)}: round {number + 1} of {rounds}, {name}")
            _run(checkout, command, found[name])
    mine, theirs = (found[name] for name in checkouts)
    return [
        _table(key, {revision: theirs[key], "this checkout": samples})
        for key, samples in mine.items()
        if samples and theirs.get(key)
    ]


def _checkout(revision: str) -> Path:
    """Return a checkout of *revision*, made beside the bench's inputs when it is first asked for."""
    resolved = _git("rev-parse", "--verify", f"{revision}^{{commit}}")
    path = Path(os.environ["LAYERFS_BENCH_CACHE"], "versions", resolved)
    if not path.exists():
        _git("worktree", "prune")
        _git("worktree", "add", "--detach", str(path), resolved)
    return path


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", _ROOT, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"scripts/bench: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def _run(checkout: Path, command: Sequence[str], samples: Samples) -> None:
    with tempfile.NamedTemporaryFile(suffix=".json") as result:
        done = subprocess.run(
            [checkout / "scripts" / "bench", *command, "--rounds", "1", "--json", result.name],
            cwd=checkout,  # where `python -m` looks first
            env=_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"scripts/bench: {checkout}: {' '.join(command)} failed:\n{done.stdout}")
        document = json.loads(Path(result.name).read_bytes())
    for measurement in document["measurements"]:
        for row in measurement["rows"]:
            key = (measurement["title"], measurement["unit"], row["contender"])
            samples.setdefault(key, []).extend(sample["value"] for sample in row["samples"])


def _environment() -> dict[str, str]:
    # The other checkout finds its own modules and programs, not those of this bench.
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    own = f"{_ROOT}/.venv/bin"
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part != own)
    return kept | {ALONE: "1"}


def _table(key: tuple[str, str, str], samples: Mapping[str, Sequence[float]]) -> Measurement:
    title, unit, row = key
    medians = {name: statistics.median(values) for name, values in samples.items()}
    old = next(iter(medians.values()))
    rows = [
        Row(
            name, samples=[Sample(value, {"new/old": medians[name] / old} if old else {}) for value in values]
        )
        for name, values in samples.items()
    ]
    return Measurement(f"{title}: {row}", unit, "less", rows)
