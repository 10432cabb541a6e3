"""Daemons that share a store, and readers that share a download."""

import contextlib
import os
from pathlib import Path

import pytest

from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_READERS = 20


def test_two_daemons_with_twenty_readers_each_fetch_each_blob_once(
    own_registry: Registry, store: Path, tmp_path: Path
) -> None:
    content = os.urandom(3_000_000)
    built = images.image(images.layer(images.file("file", content)))
    reference = own_registry.push("shared", "latest", built)

    with contextlib.ExitStack() as stack:
        daemons = [stack.enter_context(daemon.running(store, tmp_path / name)) for name in ("one", "two")]
        since = own_registry.mark()
        with own_registry.paused():
            readers = [
                stack.enter_context(
                    clients.started("cat", running.images / str(reference) / "layers/00/diff/file")
                )
                for running in daemons
                for _ in range(_READERS)
            ]
            for running in daemons:
                running.wait_for_callers(_READERS)
        printed = clients.finish_all(readers)

    assert all(content == one for one in printed)
    asked = own_registry.blob_requests(since)
    assert sorted(asked) == sorted([built.config_digest, built.layers[0].digest])


def test_two_hundred_readers_of_a_cold_layer_wait_for_one_download_and_all_get_the_bytes(
    own_registry: Registry, store: Path, mountpoint: Path
) -> None:
    contents = [os.urandom(10_000) for _ in range(200)]
    built = images.image(
        images.layer(*(images.file(f"f{number}", one) for number, one in enumerate(contents)))
    )
    reference = own_registry.push("crowd", "latest", built)
    with daemon.running(store, mountpoint) as running, contextlib.ExitStack() as stack:
        layer = running.images / str(reference) / "layers/00/diff"
        clients.names(layer.parent.parent)  # the documents are here, the layer is not
        since = own_registry.mark()
        with own_registry.paused():
            # Of those who look a name up the kernel asks for one at a time, of those who list for each.
            commands = {0: 'cat "$1/$2"', 1: 'ls "$1" > /dev/null && exec cat "$1/$2"'}
            readers = [
                stack.enter_context(
                    clients.started("sh", "-c", commands[number % 2], "sh", layer, f"f{number}")
                )
                for number in range(200)
            ]
            running.wait_for_callers(101)
            assert all(reader.poll() is None for reader in readers)
        assert clients.finish_all(readers) == contents

    assert own_registry.blob_requests(since) == [built.layers[0].digest]


def test_what_one_daemon_fetched_the_other_serves_without_asking(
    registry: Registry, store: Path, tmp_path: Path
) -> None:
    built = images.image(images.layer(images.file("file", b"content")))
    reference = registry.push("e2e/passed-on", "latest", built)
    with daemon.running(store, tmp_path / "one") as one, daemon.running(store, tmp_path / "two") as two:
        assert clients.read(one.images / str(reference) / "layers/00/diff/file") == b"content"
        since = registry.mark()

        assert clients.read(two.images / str(reference) / "layers/00/diff/file") == b"content"

    assert registry.requests(since) == []
