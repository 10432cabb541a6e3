"""What other users of this machine can do with an overlay, and with the directory that it is mounted at."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.overlay.scene import Scene
from tests.store.helpers import shared_place
from tests.support import clients, daemon, images, mounts
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

NEIGHBOUR = 65534


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody can reach."""
    with shared_place() as path:
        try:
            yield path
        finally:
            mounts.clear(path)


@pytest.fixture(scope="module")
def harmful(tmp_path_factory: pytest.TempPathFactory) -> images.BuiltLayer:
    """A layer with a setuid program that says as whom it runs, and a device."""
    made = tmp_path_factory.mktemp("probe") / "probe"
    source = Path(__file__).with_name("probe.c")
    subprocess.run(["gcc", "-static", "-O1", "-o", made, source], check=True)
    return images.layer(
        images.directory("."),
        images.file("setuid", made.read_bytes(), mode=0o4755),
        images.chardev("zero", 1, 5, mode=0o666),
    )


def as_neighbour(*command: str | Path) -> subprocess.CompletedProcess[bytes]:
    identity = ["setpriv", f"--reuid={NEIGHBOUR}", f"--regid={NEIGHBOUR}", "--clear-groups"]
    # setpriv itself keeps capabilities until it starts something.
    return subprocess.run([*identity, "sh", "-c", '"$@"', "sh", *command], capture_output=True)


@pytest.mark.parametrize("writable", [[], ["--rw"]], ids=["read-only", "writable"])
def test_overlay_suid_for_all(
    scene: Scene, place: Path, harmful: images.BuiltLayer, writable: list[str]
) -> None:
    image = scene.place("harmful", harmful)
    target = place / "target"
    target.mkdir()

    done = scene.overlay(str(image.reference), target, *writable)

    assert as_neighbour(target / "setuid").stdout.startswith(b"%d " % NEIGHBOUR)
    assert as_neighbour("head", "-c1", target / "zero").returncode
    mount = mounts.mount_at(target)
    assert mount is not None
    assert {"nosuid", "nodev"} <= mount.options
    assert done.stderr == ""
    scene.overlay("--umount", target)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        pytest.param(["--suid"], "can enter it, and run set-user-id programs of the image", id="suid"),
        pytest.param(["--dev"], "can enter it, and open devices of the image", id="dev"),
        pytest.param(["--suid", "--dev"], "run set-user-id programs and open devices of", id="both"),
    ],
)
def test_set_user_id_programs_and_devices_count_when_asked_for_and_others_are_named(
    scene: Scene, place: Path, harmful: images.BuiltLayer, flags: list[str], said: str
) -> None:
    image = scene.place("trusted", harmful)
    target = place / "target"
    target.mkdir()

    done = scene.overlay(str(image.reference), target, *flags)

    ran = as_neighbour(target / "setuid").stdout
    assert ran.startswith(b"0 ") if "--suid" in flags else ran.startswith(b"%d " % NEIGHBOUR)
    assert as_neighbour("head", "-c1", target / "zero").stdout == (b"\0" if "--dev" in flags else b"")
    assert said in done.stderr
    assert "expected a directory that they cannot reach" in done.stderr
    scene.overlay("--umount", target)


def test_nothing_is_said_of_a_directory_that_others_cannot_enter(
    scene: Scene, place: Path, harmful: images.BuiltLayer
) -> None:
    image = scene.place("closed", harmful)
    target = place / "closed/target"
    target.mkdir(parents=True)
    target.parent.chmod(0o700)

    done = scene.overlay(str(image.reference), target, "--suid", "--dev")

    assert done.stderr == ""
    assert as_neighbour(target / "setuid").returncode
    scene.overlay("--umount", target)


# A mountpoint below a directory of somebody else's


class Swap:
    """A directory of a neighbour's with a mountpoint in it, and what he would have root mount over."""

    def __init__(self, place: Path) -> None:
        self.parent = place / "theirs"
        self.named = self.parent / "mnt"
        self.aside = place / "aside/mnt"
        self.victim = place / "victim/mnt"
        for path in (self.named, self.victim):
            path.mkdir(parents=True)
        os.chown(self.parent, NEIGHBOUR, NEIGHBOUR)
        (self.victim / "precious").touch()

    def do(self) -> None:
        """Put a link in the place of the directory: the same path leads to the victim."""
        self.parent.rename(self.aside.parent)
        self.parent.symlink_to(self.victim.parent)


def opened(pid: int) -> list[str]:
    """Return what a process has open."""
    with contextlib.suppress(OSError):
        return [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    return []


def test_mountpoint_swapped_while_an_overlay_is_fetched(
    place: Path, own_registry: Registry, tmp_path: Path
) -> None:
    reference = own_registry.push("swapped", "1", images.image(images.layer(images.file("motd", b"hello"))))
    swap = Swap(place)
    command: list[str | Path] = [
        *daemon.LAYERFS,
        "overlay",
        "--store",
        tmp_path / "store",
        str(reference),
        swap.named,
    ]
    with own_registry.paused(), clients.started(*command) as process:
        clients.wait_until(lambda: any(name.startswith("socket:") for name in opened(process.pid)))
        swap.do()
        own_registry.resume()
        done = clients.finish(process)

    assert done.returncode == 0, done.stderr
    assert os.listdir(swap.victim) == ["precious"]
    assert (swap.aside / "motd").read_bytes() == b"hello"


def test_mountpoint_swapped_while_a_mount_is_made(place: Path, store: Path) -> None:
    swap = Swap(place)
    with clients.started(*daemon.LAYERFS, "mount", "-f", "--store", store, swap.named) as process:
        clients.wait_until(lambda: str(swap.named) in opened(process.pid) or daemon.answers(swap.named))
        swap.do()

        clients.wait_until(lambda: daemon.answers(swap.aside) or process.poll() is not None)

        assert os.listdir(swap.victim) == ["precious"]
        assert "images" in clients.names(swap.aside)
        process.terminate()
        assert clients.finish(process).returncode == 0
    assert mounts.mount_at(swap.aside) is None
