"""`layerfs events`: what a mount did, and what it does while somebody follows."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support import clients, daemon
from tests.support.daemon import LAYERFS
from tests.support.images import file, image, layer
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


def test_events_are_told_once_and_followed(
    layerfs: CommandLine, registry: Registry, mountpoint: Path
) -> None:
    blob = layer(file("a", os.urandom(2000)))
    first = registry.push("events/first", "1", image(blob))
    bad = layer(file("b", os.urandom(16)))
    second = registry.push("events/second", "1", image(bad))
    registry.corrupt(bad.digest)
    with daemon.running(layerfs.store, mountpoint) as running:
        assert clients.read(running.images / str(first) / "rootfs/a")
        started, fetched = (
            json.loads(line) for line in layerfs("events", "--json", mountpoint).stdout.splitlines()
        )
        assert (started["kind"], started["what"]) == ("start", str(layerfs.store))
        name = f"{first.repository}@{blob.digest}"
        assert (fetched["kind"], fetched["what"], fetched["number"]) == ("fetch", name, 2)
        assert fetched["size"] == len(blob.blob)
        assert fetched["mountpoint"] == str(mountpoint)
        line = layerfs("events", mountpoint).stdout.splitlines()[1]
        assert line.endswith(f"  {mountpoint}  fetch  {name}  {len(blob.blob) / 1000:.1f} kB")

        follower = subprocess.Popen(
            [*LAYERFS, "events", "-f", "--json", mountpoint], stdout=subprocess.PIPE, env=layerfs.environment
        )
        with follower:
            assert follower.stdout is not None
            assert [json.loads(follower.stdout.readline())["number"] for _ in range(2)] == [1, 2]
            clients.run("ls", running.images / str(second) / "rootfs/")
            failed = json.loads(follower.stdout.readline())
            follower.terminate()
            assert follower.stdout.read() == b"", "each is told once"
        assert (failed["kind"], failed["error"]) == ("failure", "DigestMismatch")
        assert str(bad.digest) in failed["message"]
    assert f"layerfs.events: fetch {name}, {len(blob.blob)} bytes" in running.log()


def test_without_a_mount_there_is_nothing_to_tell(layerfs: CommandLine, mountpoint: Path) -> None:
    done = layerfs("events", mountpoint, code=1)
    assert done.stderr == f"layerfs: {mountpoint}: no layerfs mount (layerfs status lists them)\n"
