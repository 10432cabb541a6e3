"""Where attacks take place: a layer directory, what lies around it, and a process that extracts."""

import hashlib
import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from layerfs.extract.job import ExtractJob
from layerfs.layer.budgets import Budgets
from tests.bad_layers.attack import Attack
from tests.support import canary

_ROOT_OF_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What one extraction said and did."""

    error: str
    message: str
    leaves: frozenset[str]
    damage: list[str]
    """What changed outside the layer directory."""


class Arena:
    """Runs attacks, one after another, in a worker that has the rights of *user*. A context manager."""

    def __init__(self, directory: Path, *, user: int, worker: str = "layerfs.extract.worker") -> None:
        self._directory = directory
        self._user = user
        self._number = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bad_layers.driver", worker],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=_ROOT_OF_PROJECT,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=60)

    def try_(self, attack: Attack) -> Outcome:
        """Extract the archive of *attack* in new surroundings."""
        self._number += 1
        top = self._directory / str(self._number)
        outside, target = top / "outside", top / "store" / "extracted" / "layer"
        self._furnish(top, outside, target)
        blob = attack.build(os.fsencode(outside))
        (top / "store" / "blob").write_bytes(blob)
        before = _around(top, target)
        answer = self._ask(
            ExtractJob(
                blob=str(top / "store" / "blob"),
                target=str(target),
                digest=f"sha256:{hashlib.sha256(blob).hexdigest()}",
                size=len(blob),
                owner="root" if self._user == 0 else "user",
                budgets=Budgets(**attack.budgets),
            )
        )
        damage = canary.differences(before[0], (after := _around(top, target))[0])
        damage += [f"{path!r}: linked to" for path in before[1] if before[1][path] != after[1].get(path)]
        return Outcome(answer["error"], answer["message"], _names(target), damage)

    def _furnish(self, top: Path, outside: Path, target: Path) -> None:
        target.mkdir(parents=True)
        (outside / "d" / "e" / "f").mkdir(parents=True)
        (outside / "victim").write_bytes(b"untouched")
        (outside / "d" / "e" / "f" / "x").write_bytes(b"untouched")
        (outside / "link").symlink_to("victim")
        for path in (top, *top.rglob("*")):
            os.chown(path, self._user, self._user, follow_symlinks=False)
            os.utime(path, ns=(10**18, 10**18), follow_symlinks=False)

    def _ask(self, job: ExtractJob) -> dict[str, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(msgspec.json.encode(job) + b"\n")
        self._process.stdin.flush()
        answer: dict[str, str] = json.loads(self._process.stdout.readline())
        return answer


def _around(top: Path, target: Path) -> tuple[canary.Snapshot, dict[bytes, int]]:
    """Describe all but the layer directory itself, and count the links of each file."""
    layer = os.path.relpath(os.fsencode(target), os.fsencode(top))
    found = {
        path: fact
        for path, fact in canary.snapshot(top).items()
        if path != layer and not path.startswith(layer + b"/")
    }
    status = {path: os.lstat(os.path.join(os.fsencode(top), path)) for path in found}
    return found, {path: one.st_nlink for path, one in status.items() if not stat.S_ISDIR(one.st_mode)}


def _names(target: Path) -> frozenset[str]:
    return frozenset(os.fsdecode(path) for path in canary.snapshot(target) if path)
