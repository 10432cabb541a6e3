"""The daemon dies, containers live; on FUSE lowers they wait for a new mount."""

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.errors import StoreError
from layerfs.store import ImageStorage
from tests.overlay.scene import BUSYBOX, ROOT
from tests.support import clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

LOOP = """
n=0
while [ ! -e /tmp/stop ]; do
    [ "$(cat /data)" = content ] && [ "$(/bin/busybox echo ran)" = ran ] && ls -R /bin /many >/dev/null \
        && ! cat /gone 2>/dev/null || { echo failed in round $n; exit 1; }
    n=$((n + 1))
    echo $n > /tmp/new && /bin/busybox mv /tmp/new /tmp/round
done
echo no error
"""


class Container:
    """A process that reads and executes without pause in a container."""

    def __init__(self, root: Path, process: subprocess.Popen[str]) -> None:
        self._root = root
        self._process = process

    def goes_on(self) -> None:
        """Return after two rounds that began after the call. Raises AssertionError, Hanging."""
        wanted = self._round() + 2
        clients.wait_until(lambda: self._process.poll() is not None or self._round() >= wanted)
        assert self._process.poll() is None, self._process.communicate()

    def end(self) -> str:
        """Ask it to stop; return what it said."""
        (self._root / "tmp/stop").touch()
        return self._process.communicate(timeout=60)[0]

    def _round(self) -> int:
        with contextlib.suppress(FileNotFoundError):
            return int((self._root / "tmp/round").read_text())
        return 0


@contextlib.contextmanager
def container(root: Path) -> Iterator[Container]:
    process = subprocess.Popen(
        ["chroot", root, "/bin/sh", "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield Container(root, process)
    finally:
        process.kill()
        process.communicate()


def test_a_container_on_native_lowers_outlives_daemons_pulls_and_sweeps(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    base = images.layer(
        *BUSYBOX, images.file("gone"), *(images.file(f"many/{n}", b"%d" % n) for n in range(200))
    )
    first = images.image(base, images.layer(ROOT, images.whiteout("gone"), images.file("data", b"content")))
    second = images.image(base, images.layer(ROOT, images.file("data", b"another")))
    reference = str(registry.push("overlay/survivor", "latest", first))
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(daemon.running(store, mountpoint))
        lowerdir = clients.read(old.images / reference / "lowerdir").decode().strip()
        merged = stack.enter_context(mounts.overlay(lowerdir, tmp_path))
        running = stack.enter_context(container(merged))
        running.goes_on()

        old.kill()
        running.goes_on()
        mounts.clear(mountpoint)
        running.goes_on()
        new = stack.enter_context(daemon.running(store, mountpoint))
        running.goes_on()

        registry.push("overlay/survivor", "latest", second)
        daemon.layerfs("pull", reference, store=store)
        assert clients.read(new.images / reference / "rootfs/data") == b"another"
        running.goes_on()

        with ImageStorage(store) as storage:
            for layer in first.layers:
                with pytest.raises(StoreError, match="in use"):
                    storage.remove_layer(layer.digest)
            with pytest.raises(StoreError, match="in use"):
                storage.discard_cover([layer.digest for layer in first.layers])
            storage.sweep(max_age=0)
        running.goes_on()
        new.kill()
        running.goes_on()

        assert running.end() == "no error\n"


def test_a_container_on_fuse_lowers_needs_a_new_overlay(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    layers = [images.layer(ROOT, images.file("data", b"content")), images.layer(ROOT, images.file("more"))]
    reference = str(registry.push("overlay/fuse-only", "latest", images.image(*layers)))
    with contextlib.ExitStack() as stack:
        old = stack.enter_context(daemon.running(store, mountpoint))
        clients.names(old.images / reference / "rootfs/")
        lowers = [mountpoint / "layers" / layer.digest.name / "lower" for layer in reversed(layers)]
        with mounts.overlay(lowers, tmp_path, upper=False) as merged:
            old.kill()
            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                (merged / "data").read_bytes()

            mounts.clear(mountpoint)
            stack.enter_context(daemon.running(store, mountpoint))

            with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)):
                (merged / "data").read_bytes()
        with mounts.overlay(lowers, tmp_path, upper=False) as merged:
            assert (merged / "data").read_bytes() == b"content"
