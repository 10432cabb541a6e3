"""What the command line says of mirrors: who will be asked for an image, and who was asked in vain."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine
from tests.support.faulty_registry import Answer, FaultyRegistry
from tests.support.images import file, image, layer

BUILT = image(layer(file("a", b"content")))
REGISTRIES_CONF = """
[[registry]]
prefix = "quay.io/team"
location = "quay.io/team"
[[registry.mirror]]
location = "cache.lan:5000/quay"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "127.0.0.1:4001/quay"
insecure = true

[[registry]]
location = "evil.io"
blocked = true
"""
HOSTS_TOML = """
server = "https://registry-1.docker.io"
[host."https://hub.lan/v2/proxy"]
capabilities = ["pull"]
override_path = true
skip_verify = true
header = {Authorization = "Basic cGxhbnRlZDpwbGFudGVk"}
"""


@pytest.fixture
def mirror() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


@pytest.fixture
def configured(layerfs: CommandLine) -> CommandLine:
    """Have both files in a user's usual places."""
    write(layerfs.home, "containers/registries.conf", REGISTRIES_CONF)
    write(layerfs.home, "containerd/certs.d/docker.io/hosts.toml", HOSTS_TOML)
    write(layerfs.home, "layerfs/config.toml", 'forward_credentials = ["127.0.0.1:4001"]\n')
    return layerfs


def write(home: Path, name: str, text: str) -> None:
    path = home / ".config" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_config_check_names_who_is_asked_in_that_order(configured: CommandLine) -> None:
    done = configured("config", "check", "quay.io/team/a:1", "alpine", "ghcr.io/a/b")
    base = f"{configured.home}/.config/"
    assert done.stdout.replace(base, "~/").splitlines() == [
        "quay.io/team/a:1",
        "  1. https://cache.lan:5000/v2/quay/a: mirror for content (~/containers/registries.conf, line 6)",
        "  2. http://127.0.0.1:4001/v2/quay/a or https://127.0.0.1:4001/v2/quay/a: mirror for tags and "
        "content, with the registry's login (~/containers/registries.conf, line 9)",
        "  3. https://quay.io/v2/team/a: registry for tags and content "
        "(~/containers/registries.conf, line 4)",
        "docker.io/library/alpine:latest",
        "  1. https://hub.lan/v2/proxy/library/alpine: mirror for content, as ns=docker.io "
        "(~/containerd/certs.d/docker.io/hosts.toml, line 3)",
        "  2. https://registry-1.docker.io/v2/library/alpine: registry for tags and content "
        "(~/containerd/certs.d/docker.io/hosts.toml, line 2)",
        "ghcr.io/a/b:latest",
        "  1. https://ghcr.io/v2/a/b: registry for tags and content (nothing is configured for it)",
    ]


def test_config_check_has_it_for_scripts(configured: CommandLine) -> None:
    done = configured("config", "check", "--json", "alpine")
    [found] = json.loads(done.stdout)
    assert found["reference"] == "docker.io/library/alpine:latest"
    mirror, registry = found["asked"]
    assert {key: mirror[key] for key in ("name", "kind", "resolves", "pulls", "namespace", "verifies")} == {
        "name": "hub.lan",
        "kind": "mirror",
        "resolves": False,
        "pulls": True,
        "namespace": "docker.io",
        "verifies": False,
    }
    assert mirror["headers"] == ["Authorization"]
    assert (registry["kind"], registry["namespace"], registry["verifies"]) == ("registry", None, True)
    assert "cGxhb" not in done.stdout


def test_config_check_says_what_nobody_is_asked_for(configured: CommandLine) -> None:
    done = configured("config", "check", "evil.io/a", code=4)
    assert done.stdout == ""
    assert re.search(r"evil\.io/a: blocked by .*registries\.conf, line 12", done.stderr)


def test_config_check_finds_mistakes_in_the_files_of_others(layerfs: CommandLine) -> None:
    write(layerfs.home, "containerd/certs.d/a.io/hosts.toml", '[host."https://b.io"]\ncapabilities = ["pul"]')
    done = layerfs("config", "check", code=2)
    assert "certs.d/a.io/hosts.toml, line 2: host.https://b.io.capabilities: 'pul'" in done.stderr


def test_a_pull_that_fails_has_a_line_for_each_that_was_asked(
    layerfs: CommandLine, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    mirror.faults.always = [("/v2/", Answer(500))]
    write(
        layerfs.home,
        f"containerd/certs.d/{faulty.host}/hosts.toml",
        f'[host."http://{mirror.host}"]',
    )
    expected = [f"{mirror.host}: status 500", f"{faulty.host}: status 404 (NAME_UNKNOWN: not here)"]

    done = layerfs("pull", "--retry", "0", f"{faulty.host}/a/b:1", code=3)
    assert done.stderr.splitlines()[-2:] == [f"  asked {line}" for line in expected]

    done = layerfs("pull", "--retry", "0", "--json", f"{faulty.host}/a/b:1", code=3)
    assert json.loads(done.stdout)[0]["asked"] == expected


def test_a_pull_asks_the_mirror_alone(
    layerfs: CommandLine, mirror: FaultyRegistry, faulty: FaultyRegistry
) -> None:
    mirror.push("a/b", "1", BUILT)
    write(
        layerfs.home,
        f"containerd/certs.d/{faulty.host}/hosts.toml",
        f'[host."http://{mirror.host}"]',
    )
    layerfs("pull", f"{faulty.host}/a/b:1")
    assert len(mirror.asked) == 3, "for manifest, config and layer"
    assert faulty.asked == []


def test_a_short_name_means_the_same_to_every_verb(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", BUILT)
    write(layerfs.home, "containers/registries.conf", f'[aliases]\nthing = "{faulty.host}/a/b"\n')
    full = f"{faulty.host}/a/b:1"
    assert layerfs("config", "check", "thing:1").stdout.startswith(f"{full}\n")
    assert layerfs("tags", "thing").stdout == "1\n"
    layerfs("pull", "thing:1")
    assert full in layerfs("images").stdout
    for verb in ("inspect", "history", "digest", "tree", "verify"):
        layerfs(verb, "thing:1")
    layerfs("rm", "thing:1")
    assert full not in layerfs("images").stdout


def test_a_short_name_that_may_mean_several_images_is_refused(layerfs: CommandLine) -> None:
    write(layerfs.home, "containers/registries.conf", 'unqualified-search-registries = ["a.io", "b.io"]\n')
    done = layerfs("pull", "thing:1", code=2)
    assert "registries.conf, line 1 searches 2 registries" in done.stderr
    assert "a.io/thing:1, b.io/thing:1" in done.stderr
