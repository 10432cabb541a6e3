"""Files that change while a mount pulls for commands: none ends the mount, and none lends others anything."""

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.app import registries_of
from layerfs.cli.reread import FilesInForce
from layerfs.cli.trusted import Consulted
from layerfs.registry import RegistrySettings
from layerfs.settings import Settings
from layerfs.supervision import Asked, InForce, clock_of_files
from tests.cli.conftest import CommandLine
from tests.cli.test_delegated import pulls, serving
from tests.support import clients
from tests.support.daemon import Daemon
from tests.support.faulty_registry import PASSWORD, USER, FaultyRegistry
from tests.support.images import file, image, layer
from tests.support.registry import Registry

STRANGER = 65534
LOGINS = {
    "a program": '{"credsStore": "none"}',
    "programs": '{"credHelpers": {"a.b": "none"}}',
    "nonsense": "{nonsense",
    "nests": '{"a":' * 5000,
}


def written(home: Path, name: str, text: str) -> Path:
    path = home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)
    return path


def hung_up(daemon: Daemon) -> None:
    """Have *daemon* read its files again, and return once it has."""
    before = daemon.log().count("were read again")
    daemon.process.send_signal(signal.SIGHUP)
    clients.wait_until(lambda: daemon.log().count("were read again") > before or not clients.runs(daemon.pid))


@pytest.mark.needs_root
@pytest.mark.parametrize(
    "which", [pytest.param(one, marks=[pytest.mark.long] if one == "programs" else []) for one in LOGINS]
)
def test_no_login_file_ends_a_mount_or_half_of_a_reload(
    layerfs: CommandLine, registry: Registry, which: str
) -> None:
    reference = str(registry.push("delegated/files", "1", image(layer(file("a", b"files")))))
    logins = written(layerfs.home, ".docker/config.json", LOGINS[which])
    with serving(layerfs) as daemon:
        layerfs("pull", "-q", reference)
        hung_up(daemon)
        layerfs("pull", "-q", reference)
        assert pulls(daemon) == 0
        logins.write_text('{"auths": {}}')
        layerfs("pull", "-q", reference)
        assert pulls(daemon) == 1
        logins.write_text(LOGINS[which])
        written(layerfs.home, ".config/layerfs/config.toml", "offline = true\n")
        hung_up(daemon)
        assert b'"offline":true' in clients.read(daemon.mountpoint / ".layerfs/status.json").replace(
            b" ", b""
        )
        assert clients.runs(daemon.pid)


@pytest.fixture
def reachable(layerfs: CommandLine) -> Iterator[CommandLine]:
    """A command line whose mounts other users reach: each session of pytest closes the directories of all."""
    with tempfile.TemporaryDirectory(prefix="lfs-") as directory:
        Path(directory).chmod(0o755)
        home = Path(directory, "home")
        home.mkdir(mode=0o755)
        yield CommandLine(home, layerfs.server)


def looks(daemon: Daemon, path: str) -> int:
    """Return how another user fares who looks at an image."""
    argv = ["cat", str(daemon.images / path / "config.json")]
    done = subprocess.run(argv, user=STRANGER, group=STRANGER, extra_groups=[], capture_output=True)
    return errno.EACCES if b"Permission denied" in done.stderr else done.returncode


@pytest.mark.needs_root
@pytest.mark.parametrize("configured", [False, True], ids=["by the mount alone", "by a file for both"])
def test_no_pull_lets_others_fetch_more(
    reachable: CommandLine, faulty: FaultyRegistry, registry: Registry, configured: bool
) -> None:
    """What a login lends to others it lends at a reload, which somebody asks for."""
    names = [
        str(registry.push(f"delegated/others-{one}", "1", image(layer(file("a", b"o"))))) for one in "abc"
    ]
    if configured:
        written(reachable.home, ".config/layerfs/config.toml", "allow_other = true\n")
    faulty.push("a/b", "1", image(layer(file("a", b"others"))))
    reachable("login", "--username", USER, "--password-stdin", faulty.host, stdin=PASSWORD)
    logins = reachable.home / "run/containers/auth.json"
    assert logins.exists()
    with serving(reachable, "--allow-other") as daemon:
        assert looks(daemon, names[0]) == errno.EACCES
        before = logins.read_text()
        logins.write_text(before.replace("{", '{"auths2":{},', 1))  # changed, and says the same
        reachable("pull", "-q", f"{faulty.host}/a/b:1", code=None)
        assert pulls(daemon) == configured
        logins.write_text(f'{{"auths": {{"{registry.host}": {{"auth": "dTpw"}}, "{faulty.host}": {{}}}}}}')
        written(
            reachable.home,
            ".config/containers/registries.conf",
            '[[registry]]\nlocation = "a.b"\nblocked = true\n',
        )
        reachable("pull", "-q", "127.0.0.1:1/none", code=None)
        reachable("pull", "-q", f"{faulty.host}/a/b:1", code=None)
        assert pulls(daemon) == configured
        assert looks(daemon, names[1]) == errno.EACCES
        assert "others-b" in daemon.log()
        hung_up(daemon)
        assert looks(daemon, names[2]) == 0


def later_than(path: Path) -> int:
    """Return a time after the last change of *path*, of which a kernel may know more than its steps."""
    while (now := clock_of_files()) <= path.stat().st_ctime_ns:
        pass
    return now


def test_what_changed_while_it_was_read_is_not_taken_for_what_was_read(tmp_path: Path) -> None:
    certificate = written(tmp_path, "certs/a.b/ca.crt", "x")
    login = written(tmp_path, "auth.json", "{}")
    settings = Settings(store=tmp_path, authfile=login, hosts_dir=tmp_path / "none")
    registries = RegistrySettings(authfile=login, certs_dirs=(tmp_path / "certs",))
    read = later_than(login)
    fine = Consulted.of(registries, settings, since=read)
    assert fine == Consulted.of(registries, settings)
    assert fine.elsewhere(fine) == ""
    certificate.write_text("y")
    late = Consulted.of(registries, settings, since=read)
    assert late.certificates is None
    assert late.logins == fine.logins
    assert "certificates" in late.elsewhere(Consulted.of(registries, settings))
    os.utime(login, ns=(0, 0))  # as who restores an older file does
    assert Consulted.of(registries, settings, since=read).logins is None


def test_what_the_downloader_was_given_counts_and_not_what_files_say_by_now(tmp_path: Path) -> None:
    login = written(tmp_path, "auth.json", "{}")
    conf = written(tmp_path, "registries.conf", "")
    (tmp_path / "hosts").mkdir()
    settings = Settings(store=tmp_path, authfile=login, registries_conf=conf, hosts_dir=tmp_path / "hosts")
    in_force = InForce(settings)
    in_force.asked = Asked(registries_of(settings), later_than(tmp_path / "hosts"), lambda: None)
    conf.write_text('[[registry]]\nlocation = "a.b"\nblocked = true\n')
    files = FilesInForce(in_force)  # a mount has one once it answers
    assert "registries" in files.difference(Consulted.of(registries_of(settings), settings))
    conf.write_text("")
    assert files.difference(Consulted.of(registries_of(settings), settings)) == ""
