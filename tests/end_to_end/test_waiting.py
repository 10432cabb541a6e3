"""Who waits, and how a wait ends: with a registry that accepts connections and answers nothing."""

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import clients, daemon, images
from tests.support.daemon import Daemon
from tests.support.images import BuiltImage
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_AT_ONCE = 40.0
"""Long before the daemon gives a silent registry up: what is answered by then did not wait for it."""


@dataclass(frozen=True)
class Scene:
    """A mount with one image fetched, one known by its manifest alone, and a frozen registry."""

    daemon: Daemon
    registry: Registry
    ready: Path
    cold: Path
    built: BuiltImage


@pytest.fixture
def scene(own_registry: Registry, store: Path, mountpoint: Path) -> Iterator[Scene]:
    ready = own_registry.push("ready", "latest", images.image(images.layer(images.file("file", b"ready"))))
    built = images.image(images.layer(images.file("file", b"cold")), images.layer(images.file("other")))
    cold = own_registry.push("cold", "latest", built)
    with daemon.running(store, mountpoint) as running:
        found = Scene(running, own_registry, running.images / str(ready), running.images / str(cold), built)
        clients.read(found.ready / "layers/00/diff/file")
        clients.read(found.cold / "manifest.json")
        with own_registry.paused():
            yield found


@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["INT", "TERM", "KILL"]
)
def test_a_signal_ends_a_waiting_cat_at_once(scene: Scene, number: int) -> None:
    with clients.started("cat", scene.cold / "layers/00/diff/file") as cat:
        scene.daemon.wait_for_callers(1)

        cat.send_signal(number)

        assert clients.finish(cat, _AT_ONCE).returncode == -number


def test_what_does_not_need_the_registry_answers_at_once_beside_a_waiting_cat(scene: Scene) -> None:
    with clients.started("cat", scene.cold / "layers/00/diff/file") as cat:
        scene.daemon.wait_for_callers(1)

        assert clients.read(scene.ready / "layers/00/diff/file", _AT_ONCE) == b"ready"
        assert clients.read(scene.cold / "manifest.json", _AT_ONCE) == scene.built.manifest
        assert clients.names(scene.cold, _AT_ONCE) >= {"layers", "lowerdir", "rootfs"}
        assert clients.names(scene.cold / "layers", _AT_ONCE) == {"00", "01"}
        assert clients.names(scene.cold.parent, _AT_ONCE) >= {"cold:latest", "ready:latest"}
        assert clients.names(scene.cold / "layers/00", _AT_ONCE) >= {"diff", "lower"}
        assert cat.poll() is None


def test_an_unknown_tag_waits_and_its_directory_does_not(scene: Scene) -> None:
    with clients.started("cat", scene.cold.parent / "unknown:latest/manifest.json") as cat:
        scene.daemon.wait_for_callers(1)

        assert clients.names(scene.cold.parent, _AT_ONCE) >= {"cold:latest", "ready:latest"}
        assert clients.read(scene.ready / "manifest.json", _AT_ONCE)
        cat.send_signal(signal.SIGINT)
        assert clients.finish(cat, _AT_ONCE).returncode == -signal.SIGINT


def test_an_interrupted_wait_leaves_the_download_to_others(scene: Scene) -> None:
    since = scene.registry.mark()
    with clients.started("cat", scene.cold / "layers/00/diff/file") as impatient:
        scene.daemon.wait_for_callers(1)
        with clients.started("cat", scene.cold / "layers/00/diff/file") as patient:
            impatient.send_signal(signal.SIGINT)
            clients.finish(impatient, _AT_ONCE)

            scene.registry.resume()

            assert clients.finish(patient).stdout == b"cold"
    assert scene.registry.blob_requests(since) == [scene.built.layers[0].digest]


def test_sigterm_ends_the_daemon_while_somebody_waits(scene: Scene) -> None:
    with clients.started("cat", scene.cold / "layers/00/diff/file") as cat:
        scene.daemon.wait_for_callers(1)

        assert scene.daemon.stop() == 0, scene.daemon.log()

        assert clients.finish(cat).returncode != 0
        assert not os.path.ismount(scene.daemon.mountpoint)


def test_callers_of_a_downloader_that_is_killed_get_eio_and_the_next_access_tries_again(scene: Scene) -> None:
    file = scene.cold / "layers/00/diff/file"
    with clients.started("cat", file) as cat:
        scene.daemon.wait_for_callers(1)
        victim = ["pkill", "-KILL", "-P", str(scene.daemon.pid), "-f", "layerfs.fetch.downloader"]
        clients.wait_until(  # one that was not asked yet is replaced without anybody's notice
            lambda: subprocess.run(victim, check=False).returncode in (0, 1) and cat.poll() is not None
        )
        finished = clients.finish(cat, _AT_ONCE)
    assert finished.returncode == 1
    assert os.strerror(errno.EIO).encode() in finished.stderr
    assert "killed by signal 9" in scene.daemon.log()

    with clients.started("cat", file) as cat:
        scene.daemon.wait_for_callers(1)
        scene.registry.resume()
        assert clients.finish(cat, _AT_ONCE).stdout == b"cold"
