"""The recipes of docs/runtimes.md run as they are written; `inspect --runtime` says how an image starts."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.oci import Platform
from tests.conftest import skip_for_lack_of
from tests.overlay.scene import BUSYBOX, ROOT, Scene
from tests.support import daemon, images, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

_TEXT = (Path(__file__).parents[2] / "docs/runtimes.md").read_text()
_RECIPE = re.compile(r"<!-- recipe: (?P<name>[^\n]+) -->\n```sh\n(?P<script>.+?)```", re.DOTALL)
RECIPES = {found["name"]: found["script"] for found in _RECIPE.finditer(_TEXT)}

RUNTIME = {
    "Entrypoint": ["sh", "-c"],
    "Cmd": ["cat /etc/os-release; id -u; id -g; pwd; echo $GREETING"],
    "Env": ["PATH=/bin:/usr/bin", "GREETING=hello there"],
    "WorkingDir": "/tmp",
    "User": "1000:1000",
    "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
    "Volumes": {"/data": {}},
    "StopSignal": "SIGINT",
}
AS_THE_IMAGE_SAYS = ["ID=test", "1000", "1000", "/tmp", "hello there"]
PROGRAMS = {"bubblewrap": "bwrap", "as the image says": "chroot"}

# What they miss in a machine without systemd: control groups of one kind, and the right to raise limits.
_LEGACY_CGROUPS = "if [ -d /sys/fs/cgroup/unified ]; then umount -l /sys/fs/cgroup/unified; fi"
_CONTAINERS_CONF = """
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
"""


@pytest.fixture
def environment(scene: Scene) -> Iterator[dict[str, str]]:
    """What the recipes find: layerfs with the store of the mount, podman with a storage of its own.

    Its path is short: in a longer one conmon has no room for its socket, and podman waits 20 seconds for it.
    `python3` is the distribution's: one in a virtual environment has more modules loaded when it starts.
    """
    base = Path(tempfile.mkdtemp(prefix="lf", dir="/tmp"))
    (base / "containers.conf").write_text(_CONTAINERS_CONF)
    (base / "storage.conf").write_text(
        f'[storage]\ndriver = "vfs"\ngraphroot = "{base}/graph"\nrunroot = "{base}/run"\n'
    )
    (base / "bin").mkdir()
    (base / "bin/python3").symlink_to("/usr/bin/python3")
    try:
        yield daemon.clean_environment() | {
            "LAYERFS_STORE": str(scene.store),
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "PATH": f"{base}/bin:{Path(daemon.LAYERFS[0]).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "CONTAINERS_CONF": str(base / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(base / "storage.conf"),
        }
    finally:
        mounts.clear(base)
        shutil.rmtree(base)


def require(program: str, path: str) -> None:
    found = subprocess.run(["sh", "-c", f"command -v {program}"], env={"PATH": path}, capture_output=True)
    if found.returncode:
        skip_for_lack_of(program)


@pytest.mark.parametrize(
    ("name", "user"),
    [
        *((name, "1000:1000") for name in RECIPES),
        *((name, user) for name in RECIPES if "--runtime" in RECIPES[name] for user in ("user", "1000:user")),
    ],
)
def test_a_recipe_runs_as_it_is_written(
    scene: Scene, environment: dict[str, str], tmp_path: Path, name: str, user: str
) -> None:
    require(PROGRAMS.get(name, name), environment["PATH"])
    place = scene.place(
        "recipe", images.layer(*BUSYBOX), images.layer(ROOT), runtime=RUNTIME | {"User": user}
    )
    work = tmp_path / "work"
    work.mkdir()
    try:
        done = subprocess.run(
            [
                "unshare",
                "-m",
                "sh",
                "-euc",
                f"{_LEGACY_CGROUPS}\n{RECIPES[name]}\ncat /proc/self/mountinfo >&2",
            ],
            cwd=work,
            env=environment | {"image": str(place.reference)},
            capture_output=True,
            text=True,
            errors="surrogateescape",  # names of other mounts of this machine
            timeout=100,
        )
    finally:
        mounts.clear(work)

    assert done.returncode == 0, done.stderr
    assert "ID=test\n" in done.stdout
    if "--runtime" in RECIPES[name]:
        assert done.stdout.splitlines() == AS_THE_IMAGE_SAYS
    assert str(work) not in done.stderr
    assert os.listdir(scene.store / "overlays") == []


def test_every_runtime_that_was_asked_for_has_a_recipe() -> None:
    assert {"chroot", "bubblewrap", "systemd-nspawn", "crun", "podman"} <= RECIPES.keys()


# layerfs inspect --runtime


def runtime(scene: Scene, reference: object) -> dict[str, object]:
    done = daemon.layerfs("inspect", str(reference), "--runtime", store=scene.store)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_inspect_runtime_says_how_a_container_starts_and_fetches_no_layer(scene: Scene) -> None:
    layer = images.layer(images.file("not fetched"))
    ours = images.image(layer, runtime=RUNTIME)
    others = images.image(layer, runtime={"Cmd": ["other"]}, platform=Platform.parse("linux/s390x"))
    reference = scene.registry.push("overlay/runtime", "latest", images.index(others, ours))

    found = runtime(scene, reference)

    assert found == {
        "argv": [*RUNTIME["Entrypoint"], *RUNTIME["Cmd"]],
        "env": RUNTIME["Env"],
        "cwd": "/tmp",
        "user": "1000:1000",
        "exposed_ports": found["exposed_ports"],
        "volumes": ["/data"],
        "stop_signal": "SIGINT",
    }
    assert set(RUNTIME["ExposedPorts"]) == set(found["exposed_ports"])  # type: ignore[call-overload]  # JSON
    assert scene.storage.open_layer(layer.digest) is None


def test_inspect_runtime_of_a_config_that_says_nothing_has_defaults(scene: Scene) -> None:
    place = scene.place("defaults", images.layer(ROOT), runtime={"Labels": {"only": "a label"}})

    assert runtime(scene, place.reference) == {
        "argv": [],
        "env": [],
        "cwd": "/",
        "user": "",
        "exposed_ports": [],
        "volumes": [],
        "stop_signal": None,
    }
