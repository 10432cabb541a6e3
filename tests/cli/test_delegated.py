"""Pulls that a running mount of the store does: whose it takes, and that nobody can tell but by the time."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from layerfs.delegation import places
from layerfs.oci import Platform
from layerfs.store.layout import StoreLayout
from tests.cli.conftest import CommandLine, Done
from tests.support import clients
from tests.support.daemon import Daemon, running
from tests.support.faulty_registry import PASSWORD, USER, FaultyRegistry
from tests.support.forkserver import ForkServer
from tests.support.images import file, image, index, layer, to_json
from tests.support.registry import Registry

pytestmark = pytest.mark.needs_root


def socket_of(daemon: Daemon) -> Path:
    """Return where *daemon* listens, once it does."""
    directory = Path(str(places.directory(daemon_environment(daemon), os.geteuid())))

    def found() -> list[Path]:
        return list(directory.glob(f"[!.]*-{daemon.pid}-*")) if directory.is_dir() else []

    clients.wait_until(lambda: bool(found()))
    return found()[0]


def daemon_environment(daemon: Daemon) -> dict[str, str]:
    raw = Path(f"/proc/{daemon.pid}/environ").read_bytes()
    return dict(os.fsdecode(one).split("=", 1) for one in raw.split(b"\0") if b"=" in one)


@contextmanager
def serving(layerfs: CommandLine, *arguments: str) -> Iterator[Daemon]:
    """Run a mount of the store of *layerfs* that takes its pulls."""
    mountpoint = layerfs.home.parent / "mount"
    with running(layerfs.store, mountpoint, *arguments, environment=layerfs.environment) as daemon:
        socket_of(daemon)
        yield daemon


def pulls(daemon: Daemon) -> int:
    """Return how many pulls *daemon* has taken."""
    return daemon.log().count("a pull for process")


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory, _fork_server: ForkServer) -> CommandLine:
    home = tmp_path_factory.mktemp("delegated") / "home"
    home.mkdir()
    return CommandLine(home, _fork_server)


@pytest.fixture(scope="module")
def mounted(commands: CommandLine) -> Iterator[Daemon]:
    """A mount of the store of all tests of this module that change nothing but what is in it."""
    with serving(commands, "--log-level", "debug") as daemon:
        yield daemon


PULLS = {
    "an image": "REGISTRY/one:1",
    "only its digest": "-q REGISTRY/one:1",
    "as JSON": "--json REGISTRY/one:1",
    "by its digest": "REGISTRY/one@DIGEST",
    "by a tag and its digest": "REGISTRY/one:1@DIGEST",
    "one of several platforms": "REGISTRY/many:1",
    "all platforms": "--all-platforms REGISTRY/many:1",
    "twice the same": "REGISTRY/one:1 REGISTRY/one:1",
    "two of which one is not there": "REGISTRY/one:1 REGISTRY/none:1 REGISTRY/two:1",
    "two of which one is not there, as JSON": "--json REGISTRY/one:1 REGISTRY/none:1",
    "two of which one is no reference": "-q a/B REGISTRY/two:1",
    "an image for another machine": "REGISTRY/foreign:1",
    "an artifact": "REGISTRY/artifact:1",
    "a digest that nobody has": f"REGISTRY/one@sha256:{'0' * 64}",
    "a registry that is not there": "127.0.0.1:1/one:1",
    "a tag that moved": "REGISTRY/moves:1",
}


def both_ways(commands: CommandLine, line: str) -> list[Done]:
    """Run ``layerfs pull`` without a daemon, into another store, then with one."""
    return [
        commands("pull", *line.split(), *more, environment={"LAYERFS_STORE": str(store)}, code=None)
        for store, more in ((commands.home / "other", ["--no-daemon"]), (commands.store, []))
    ]


def said(done: Done) -> tuple[str, str, int]:
    """Return all that a command said, but for how long it took."""
    return done.stdout, re.sub(r"after \d+ s", "after N s", done.stderr), done.returncode


_SLOW = ("a registry that is not there",)


@pytest.mark.parametrize(
    "asked", [pytest.param(one, marks=[pytest.mark.long] if one in _SLOW else []) for one in PULLS]
)
def test_a_pull_says_the_same_with_a_daemon_and_without(
    commands: CommandLine, registry: Registry, mounted: Daemon, asked: str
) -> None:
    number = list(PULLS).index(asked)
    one, two = (image(layer(file("file", f"{number} {which}".encode()))) for which in (1, 2))
    other = image(layer(file("file", f"{number}".encode())), platform=Platform.parse("linux/s390x"))
    name = str(registry.push(f"delegated/{number}/one", "1", one)).rpartition("/")[0]
    document = json.loads(one.manifest) | {"artifactType": "application/vnd.example.sbom"}
    document["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
    artifact = replace(one, manifest=to_json(document))
    registry.push(f"delegated/{number}/many", "1", index(one, other))
    for repository, built in {"two": two, "foreign": other, "artifact": artifact}.items():
        registry.push(f"delegated/{number}/{repository}", "1", built)
    before = pulls(mounted)
    if asked == "a tag that moved":
        registry.push(f"delegated/{number}/moves", "1", two)
        both_ways(commands, f"-q {name}/moves:1")
        registry.push(f"delegated/{number}/moves", "1", one)
        before += 1

    line = PULLS[asked].replace("REGISTRY", name).replace("DIGEST", str(one.digest))
    alone, asking = both_ways(commands, line)

    assert said(asking) == said(alone)
    assert alone.stdout or alone.returncode
    assert pulls(mounted) == before + 1


def test_what_a_daemon_has_pulled_is_durable_when_the_command_returns(
    commands: CommandLine, registry: Registry, mounted: Daemon
) -> None:
    before = pulls(mounted)
    commands("pull", str(registry.push("delegated/durable", "1", image(layer(file("a", b"durable"))))))
    assert pulls(mounted) == before + 1
    records = [path.read_bytes() for path in commands.store.rglob("*.json")]
    assert any(b'"durable"' in record for record in records)
    assert not [record for record in records if b'"pending"' in record]


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


_OWN: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "told to": ({}, "--no-daemon", {}),
    "told to by a variable": ({"LAYERFS_DAEMON": "no"}, "", {}),
    "of another store": ({"LAYERFS_STORE": "/nonexistent/store"}, "", {}),
    "of another store, by an option": ({}, "--store /nonexistent/store", {}),
    "for another platform": ({}, "--platform linux/s390x", {}),
    "for another platform, by a variable": ({"LAYERFS_PLATFORM": "linux/s390x"}, "", {}),
    "with another proxy": ({"https_proxy": "http://127.0.0.1:1"}, "", {}),
    "with other authorities": ({"SSL_CERT_FILE": "/dev/null"}, "", {}),
    "with other logins": ({"DOCKER_CONFIG": "HOME/other"}, "", {"other/config.json": '{"auths": {}}'}),
    "with logins beside it": ({"DOCKER_CONFIG": "other"}, "", {"other/config.json": '{"auths": {}}'}),
    "with another file of settings": ({"LAYERFS_CONFIG": "HOME/a.toml"}, "", {"a.toml": "streams = 2\n"}),
    "with logins that programs give": ({}, "", {".docker/config.json": '{"credsStore": "none"}'}),
    "with logins that cannot be read": ({}, "", {".docker/config.json": "{"}),
    "with a mirror that is new": (
        {}, "", {".config/containers/registries.conf": '[[registry]]\nlocation = "a.b"\nblocked = true\n'}
    ),
    "with certificates that are new": ({}, "", {".config/containerd/certs.d/a.b/ca.crt": "x"}),
    "with a file of settings that is new": ({}, "", {".config/layerfs/config.toml": "streams = 3\n"}),
    "with a file that names a variable": ({}, "", {".config/layerfs/config.toml": 'authfile = "/$A"\n'}),
    "with an option that only it reads": ({}, "--retry 0", {}),
}  # fmt: skip


@pytest.mark.parametrize("which", _OWN)
def test_a_pull_that_would_be_another_is_the_commands_own(
    commands: CommandLine, mounted: Daemon, which: str
) -> None:
    environment, words, files = _OWN[which]
    before = pulls(mounted)
    commands("pull", "a/B", code=2)
    assert pulls(mounted) == before + 1
    written = [commands.home / name for name in files]
    for path, text in zip(written, files.values(), strict=True):
        _write(path, text)
    try:
        meant = {name: value.replace("HOME", str(commands.home)) for name, value in environment.items()}
        commands("pull", *words.split(), "a/B", environment=meant, code=None)
    finally:
        for path in written:
            path.unlink()
            for parent in path.parents:
                if parent != commands.home and commands.home in parent.parents and not os.listdir(parent):
                    parent.rmdir()
    assert pulls(mounted) == before + 1


def test_variables_that_lead_to_the_same_files_are_the_same(commands: CommandLine, mounted: Daemon) -> None:
    """As those of a service, which has no HOME and names its file of settings."""
    before = pulls(mounted)
    (commands.home / "a.toml").write_text(f'store = "{commands.store}"\n')
    environment = {
        "HOME": "/nonexistent",
        "LAYERFS_CONFIG": str(commands.home / "a.toml"),
        "LAYERFS_STORE": "",
    }
    commands("pull", "a/B", environment=environment, code=2)
    assert pulls(mounted) == before + 1


def test_a_login_counts_at_once(commands: CommandLine, faulty: FaultyRegistry, mounted: Daemon) -> None:
    faulty.push("a/b", "1", image(layer(file("a", b"login"))))
    faulty.faults.auth, faulty.faults.anonymous = "basic", False
    reference = f"{faulty.host}/a/b:1"
    before = pulls(mounted)
    alone, asking = both_ways(commands, reference)
    assert said(asking) == said(alone)
    assert alone.returncode == 4
    commands("login", "--username", USER, "--password-stdin", faulty.host, stdin=PASSWORD)
    commands("pull", reference)
    assert pulls(mounted) == before + 2
    assert "goes on by itself" in mounted.log()
    commands("logout", faulty.host)
    faulty.push("a/b", "1", image(layer(file("a", b"logout"))))
    commands("pull", reference, code=4)
    assert pulls(mounted) == before + 3


def test_a_warning_is_said_to_the_command(commands: CommandLine, registry: Registry, mounted: Daemon) -> None:
    reference = registry.push("delegated/warned", "1", image(layer(file("a", b"warned"))))
    both_ways(commands, f"-q {reference}")
    for store in (commands.home / "other", commands.store):
        StoreLayout(store).ref(reference).write_text("damaged")
    alone, asking = both_ways(commands, f"-q {reference}")
    assert "treated as unknown" in alone.stderr
    assert asking.stderr == alone.stderr.replace(str(commands.home / "other"), str(commands.store))


def test_a_command_whose_pull_a_daemon_does_imports_next_to_nothing(
    commands: CommandLine, registry: Registry, mounted: Daemon
) -> None:
    reference = str(registry.push("delegated/imports", "1", image(layer(file("a", b"imports")))))
    listed = commands.home / "modules"
    code = (
        "import atexit, sys; from layerfs.cli import main\n"
        f"atexit.register(lambda: open({str(listed)!r}, 'w').write(' '.join(sys.modules)))\n"
        "main()"
    )
    before = pulls(mounted)
    argv = [sys.executable, "-c", code, "pull", "-q", reference]
    subprocess.run(argv, check=True, env=commands.environment, stdout=subprocess.DEVNULL)
    assert pulls(mounted) == before + 1
    found = set(listed.read_text().split())
    ours = {name for name in found if name.startswith("layerfs")}
    assert ours == {
        "layerfs", "layerfs.cli", "layerfs.cli.delegating", "layerfs.cli.interrupts", "layerfs.delegation",
        "layerfs.delegation.asking", "layerfs.delegation.places", "layerfs.delegation.wire",
    }  # fmt: skip
    assert not found & {
        "click",
        "json",
        "logging",
        "msgspec",
        "pathlib",
        "socket",
        "struct",
        "threading",
        "trio",
    }
