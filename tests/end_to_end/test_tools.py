"""The tools that people use, let loose on a mount whose store knows images and has fetched no layer."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import skip_for_lack_of
from tests.support import clients, daemon, images
from tests.support.daemon import Daemon
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

# Each runs in the directory that the mount is in; MOUNT, IMAGE and OUT stand for paths.
TOOLS: dict[str, list[str]] = {
    "ls -lR": ["ls", "-lR", "MOUNT"],
    "ls -l --color": ["ls", "-l", "--color=always", "IMAGE"],
    "find": ["find", "MOUNT", "-ls"],
    "grep -r": ["grep", "-rs", "manifest", "MOUNT"],
    "tar": ["tar", "--create", "--sparse", "--xattrs", "--file=OUT", "MOUNT"],
    "cp -a": ["cp", "-a", "MOUNT", "OUT"],
    "rsync": ["rsync", "-aHAX", "MOUNT/", "OUT"],
    "du": ["du", "-sh", "MOUNT"],
    "df": ["df", "MOUNT"],
    "stat": ["sh", "-c", "stat IMAGE IMAGE/* IMAGE/layers/*"],
    "getfattr": ["getfattr", "-R", "-h", "-d", "-m-", "MOUNT"],
    "diff -r": ["diff", "-r", "--no-dereference", "IMAGE", "IMAGE"],
    "git status above": ["sh", "-c", "git init -q . && git status --porcelain"],
    "updatedb": ["updatedb", "-l", "no", "-U", "MOUNT", "-o", "OUT", "--prunefs", "", "--prunepaths", ""],
    "completion": ["bash", "-c", "compgen -f IMAGE/ && compgen -f IMAGE/layers/"],
    "completion of a reference": ["bash", "-c", "compgen -f IMAGE && compgen -d REPOSITORY/"],
}
"""Commands that follow no links where they have the choice: those that do ask for it."""

PACKAGES = {"updatedb": "plocate", "getfattr": "attr", "rsync": "rsync", "git": "git"}


@dataclass(frozen=True)
class Scene:
    """One mount, the registry behind it, and an image that is known by its documents."""

    daemon: Daemon
    registry: Registry
    image: Path


@pytest.fixture(scope="module")
def scene(_session_registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    built = images.image(images.layer(images.file("a", b"a")), images.layer(images.whiteout("a")))
    reference = _session_registry.push("e2e/tools", "latest", built)
    digest = _session_registry.push("e2e/more", "1", images.index(built))
    place = tmp_path_factory.mktemp("tools")
    with daemon.running(place / "store", place / "work" / "mount") as running:
        clients.read(running.images / str(reference) / "manifest.json")
        clients.read(running.images / str(digest) / "index.json")
        yield Scene(running, _session_registry, (running.images / str(reference)).resolve())


@pytest.mark.parametrize("name", TOOLS)
def test_a_walk_asks_for_nothing_and_stores_nothing(scene: Scene, tmp_path: Path, name: str) -> None:
    mountpoint = scene.daemon.mountpoint
    stands_for = {
        "MOUNT": mountpoint,
        "IMAGE": scene.image,
        "REPOSITORY": scene.image.parent,
        "OUT": tmp_path / "out",
    }
    command = TOOLS[name]
    for word, path in stands_for.items():
        command = [argument.replace(word, str(path)) for argument in command]
    if shutil.which(command[0]) is None:
        skip_for_lack_of(f"{command[0]} (package {PACKAGES.get(command[0], command[0])})")
    Path("/proc/sys/vm/drop_caches").write_text("2")  # what the kernel still knows would not be asked for
    before, since = _files(scene.daemon.store), scene.registry.mark()

    done = subprocess.run(command, cwd=mountpoint.parent, capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.replace(b"tar: Removing leading `/' from member names\n", b"") == b""
    assert scene.registry.requests(since) == []
    assert _files(scene.daemon.store) == before


def _files(store: Path) -> set[Path]:
    return set(store.rglob("*"))
