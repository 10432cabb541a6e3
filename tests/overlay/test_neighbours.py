"""What other users of this machine can do with an overlay, and with the directory that it is mounted at."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.overlay.scene import Scene
from tests.store.helpers import shared_place
from tests.support import images, mounts

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
