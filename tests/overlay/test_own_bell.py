"""Lazy overlays without a mount of the user's: one is started for them, replaced when it dies, and ends."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from layerfs.bells import bell_directory
from layerfs.delegation import places
from layerfs.oci import Tag
from layerfs.status import parse_status
from tests.overlay.test_bell import BASE, FILES, IMAGE, NOISE, PLAIN
from tests.support import clients, daemon, mounts
from tests.support.images import image
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]


@dataclass(frozen=True)
class Place:
    """A store that no daemon serves, and where overlays of its images go."""

    path: Path

    @property
    def store(self) -> Path:
        """Its directory."""
        return self.path / "store"

    @property
    def bell(self) -> Path:
        """Where a mount for lazy overlays would be."""
        return bell_directory(self.store)

    def target(self, name: str) -> Path:
        """Return an empty directory."""
        path = self.path / name
        path.mkdir()
        return path

    def argv(self, *arguments: object) -> list[str]:
        """Return the command ``layerfs overlay``."""
        return [*daemon.LAYERFS, "overlay", "--store", str(self.store), *map(str, arguments)]

    def environment(self) -> dict[str, str]:
        """Return one whose daemon logs here and completes nothing behind those who look."""
        return daemon.clean_environment() | {"LAYERFS_CONFIG": str(self.path / "layerfs.toml")}

    def overlay(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run ``layerfs overlay``."""
        argv = self.argv(*arguments)
        return subprocess.run(argv, capture_output=True, text=True, env=self.environment(), timeout=100)

    def pid(self) -> int:
        """Return the process that serves."""
        return parse_status(clients.read(self.bell / ".layerfs/status.json")).pid

    def log(self) -> str:
        """Return what daemons of this store have logged."""
        return (self.path / "log").read_text()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    log = tmp_path / "log"
    (tmp_path / "layerfs.toml").write_text(f'background = "never"\n[log]\nfile = "{log}"\n')
    try:
        yield made
    finally:
        for name in ("a", "b"):
            mounts.clear(tmp_path / name)
        if daemon.answers(made.bell):
            with suppress(OSError):  # it ended by itself meanwhile
                os.kill(made.pid(), signal.SIGTERM)
            clients.wait_until(lambda: mounts.mount_at(made.bell) is None)
        mounts.clear(made.bell)


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("overlay/own-bell", "1", IMAGE)


def test_a_mount_is_started_for_an_overlay_and_ends_with_it(place: Place, pushed: Tag) -> None:
    root = place.target("a")
    done = place.overlay(pushed, root)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    assert not (place.store / "extracted" / BASE.digest.name).exists(), "it is lazy"
    assert clients.read(root / "large") == NOISE
    said = daemon.layerfs("status", place.bell).stdout
    assert f"{place.bell}: serving {place.store} to lazy overlays, until none is mounted (pid " in said

    pid, desks = place.pid(), places.directory(os.environ, 0) or ""
    clients.wait_until(lambda: any(f"-{pid}-" in path for path in places.sockets(desks)))
    pulled = [*daemon.LAYERFS, "pull", "--quiet", "--store", str(place.store), str(pushed)]
    subprocess.run(pulled, check=True, env=place.environment(), stdout=subprocess.DEVNULL)
    assert place.log().count("a pull for process") == 1, "it pulls as any mount does"
    assert (place.store / "extracted" / BASE.digest.name).exists()

    mounts.clear(root)
    clients.wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert mounts.mount_at(place.bell) is None


def test_it_goes_on_for_an_overlay_that_was_detached(place: Place, pushed: Tag) -> None:
    """No list of mounts has it any more: the kernel alone knows that a process is in it."""
    root = place.target("a")
    assert place.overlay(pushed, root).returncode == 0
    pid = place.pid()
    inside = subprocess.Popen(
        ["sh", "-c", "read line; cat other"], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        subprocess.run(["umount", "--lazy", root], check=True)
        clients.wait_until(lambda: mounts.mount_at(place.bell) is None)
        another = place.target("b")
        assert place.overlay(pushed, another).returncode == 0
        assert place.pid() != pid, "it has a mount of its own"

        assert inside.communicate(b"\n", timeout=100)[0] == b"other"
    finally:
        inside.kill()
        inside.wait()
    clients.wait_until(lambda: not Path(f"/proc/{pid}").exists())
    assert clients.read(another / "large") == NOISE


def test_two_overlays_at_once_start_one(place: Place, pushed: Tag) -> None:
    roots = [place.target(name) for name in "ab"]
    started = [subprocess.Popen(place.argv(pushed, root), env=place.environment()) for root in roots]
    assert [process.wait(100) for process in started] == [0, 0]

    for root in roots:
        assert clients.read(root / "other") == b"other"
    assert place.log().count(f"store {place.store}") == 1


def test_one_that_died_is_replaced_by_the_next_overlay_and_all_go_on(place: Place, pushed: Tag) -> None:
    root, another = place.target("a"), place.target("b")
    assert place.overlay(pushed, root).returncode == 0
    assert clients.read(root / "etc/motd") == b"content"
    first = place.pid()
    os.kill(first, signal.SIGKILL)
    clients.wait_until(lambda: not Path(f"/proc/{first}").exists())
    with pytest.raises(OSError, match="not connected"):
        clients.read(root / "other")

    done = place.overlay("--lazy", "always", pushed, another)

    assert done.returncode == 0, done.stderr
    assert place.pid() != first
    assert clients.read(another / "other") == b"other"
    clients.wait_until(lambda: all(clients.run("cat", root / name).returncode == 0 for name in FILES))


def test_none_is_started_for_an_image_that_has_no_toc(place: Place, registry: Registry) -> None:
    root = place.target("a")
    plain = registry.push("overlay/plain-bell", "1", image(PLAIN))
    assert place.overlay(plain, root).returncode == 0
    assert clients.read(root / "plain") == b"plain"
    assert not (place.path / "log").exists()
    assert mounts.mount_at(place.bell) is None


def test_always_says_why_not(place: Place, pushed: Tag) -> None:
    root = place.target("a")
    done = place.overlay("--lazy", "always", "--creds", "user:password", pushed, root)
    assert done.returncode == 2
    assert f"no mount serves {place.store}, and none can be made: --creds" in done.stderr
    done = place.overlay("--creds", "user:password", pushed, root)
    assert done.returncode == 0, "the image is fetched whole then"
    assert (root / "large").read_bytes() == NOISE
    assert (place.store / "extracted" / BASE.digest.name).is_dir()
