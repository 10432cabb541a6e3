"""An honest registry beside many hostile ones: what its images need goes on as if it were alone.

Prints how long it took beside them, against alone (``-rP`` shows it); only whether it ends is judged.
"""

import contextlib
import os
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.oci import Repository
from tests.support import clients, daemon, images
from tests.support.daemon import Daemon
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import BuiltImage

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

OF_EACH_KIND = 20
ROUNDS = 3
SHARED = images.layer(images.file("shared", os.urandom(2 << 20)))
"""A base layer that everybody's images have."""


def of(*layers: images.BuiltLayer) -> BuiltImage:
    return images.image(*layers, images.layer(images.file("own", os.urandom(2 << 20))))


@contextlib.contextmanager
def hostile_registries(address: str) -> Iterator[list[FaultyRegistry]]:
    """Run registries that are all to become hostile, at *address* for each number."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(FaultyRegistry(address=address.format(number)))
            for number in range(3 * OF_EACH_KIND)
        ]


def turn(registry: FaultyRegistry, number: int) -> None:
    """Make a registry silent, trickling or lying."""
    if number % 3 == 0:
        registry.faults.hold_blobs = threading.Event()
    elif number % 3 == 1:
        registry.faults.trickle_blobs = True
    else:
        registry.faults.wrong_bytes = True


@contextlib.contextmanager
def readers(running: Daemon, hostile: list[FaultyRegistry]) -> Iterator[list[Repository]]:
    """Have somebody read in both layers of an image of each; the documents are as they should be."""
    repositories = [registry.push("evil/image", "latest", of(SHARED)) for registry in hostile]
    for number, repository in enumerate(repositories):
        clients.names(running.images / f"{repository}:latest" / "layers")
        turn(hostile[number], number)
    started = [
        subprocess.Popen(
            ["cat", f"{running.images}/{one}:latest/layers/{layer}/diff/x"], stderr=subprocess.DEVNULL
        )
        for one in repositories
        for layer in ("00", "01")
    ]
    try:
        clients.wait_until(lambda: running.waiting() >= 2 * OF_EACH_KIND)
        yield repositories
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def rounds(running: Daemon, honest: FaultyRegistry, name: str) -> dict[str, float]:
    """Look into images that are not here, and pull some; return the medians in seconds."""
    seconds: dict[str, list[float]] = {"ls": [], "pull": []}
    for number in range(ROUNDS):
        for what in seconds:
            repository = honest.push(f"{name}/{what}{number}", "latest", of())
            began = time.monotonic()
            if what == "ls":
                assert clients.names(running.images / f"{repository}:latest/layers/00/diff") == {"own"}
            else:
                daemon.layerfs("pull", f"{repository}:latest", store=running.store)
            seconds[what].append(time.monotonic() - began)
    return {what: statistics.median(times) for what, times in seconds.items()}


@pytest.mark.allow_warnings
@pytest.mark.parametrize("address", ["127.0.0.2", pytest.param("127.0.1.{}", marks=pytest.mark.long)])
def test_an_honest_registry_beside_hostile_ones(store: Path, mountpoint: Path, address: str) -> None:
    with (
        FaultyRegistry() as honest,
        hostile_registries(address) as hostile,
        daemon.running(store, mountpoint, "--fetch-timeout", "300") as running,
    ):
        alone = rounds(running, honest, "alone")
        with readers(running, hostile) as repositories:
            beside = rounds(running, honest, "beside")
            shared = honest.push("honest/shared", "latest", of(SHARED))
            began = time.monotonic()
            daemon.layerfs("pull", f"{shared}:latest", store=store)
            beside["pull of what they hold"] = time.monotonic() - began
            assert running.waiting() >= OF_EACH_KIND, (
                "the hostile registries held nobody up: nothing was tried"
            )
            # What is here now is here for those who waited for it elsewhere, too.
            first = running.images / f"{repositories[0]}:latest/layers/00/diff"
            assert clients.names(first) == {"shared"}
    for what, took in beside.items():
        print(  # noqa: T201 - what this is for
            f"{what}: {took:.2f} s beside {3 * OF_EACH_KIND}, {alone.get(what, alone['pull']):.2f} s alone"
        )
