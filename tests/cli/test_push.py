"""`layerfs push`: an image of the store into a real registry, bit for bit."""

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from layerfs.cli.pushing import Pushing, Upload
from layerfs.oci import Digest, Platform, Repository
from layerfs.registry.body import Body
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support.certificates import authority, issue
from tests.support.faulty_registry import USER, FaultyRegistry
from tests.support.images import directory, file, flip_byte, image, index, layer
from tests.support.registry import Registry
from tests.support.token_server import TokenServer

BUILT = image(
    layer(directory("etc"), file("etc/large", os.urandom(700_000)), compression="none"),
    layer(file("etc/zstd", os.urandom(3000)), compression="zstd"),
)
FOREIGN = image(layer(file("s390x", b"z")), platform=Platform.parse("linux/s390x"))
PASSWORD = "p:ss-word"


def digest_at(name: str, *options: str) -> str:
    """Return what skopeo reads back."""
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", *options, f"docker://{name}"]
    found = subprocess.run(command, check=True, capture_output=True).stdout
    return f"sha256:{hashlib.sha256(found).hexdigest()}"


@pytest.fixture
def other(tmp_path: Path) -> Registry:
    """A second registry, not started yet."""
    (tmp_path / "other").mkdir()
    return Registry(tmp_path / "other")


def restarted(registry: Registry, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    registry.start()


def test_an_image_is_pushed_to_another_registry_as_it_is(
    layerfs: CommandLine, registry: Registry, other: Registry, tmp_path: Path
) -> None:
    reference = str(registry.push("push/from", "1", BUILT))
    with other:
        target = f"{other.host}/a/b:2"
        done = layerfs("push", reference, target)

        assert done.stdout.splitlines()[0] == f"{target}: {BUILT.digest}"
        assert "3 blobs, 3 uploaded" in done.stdout
        assert done.stderr.count("uploaded") == 3
        assert digest_at(target) == str(BUILT.digest)
        copied = tmp_path / "copied"
        source = f"docker://{target}"
        subprocess.run(
            ["skopeo", "copy", "-q", "--src-tls-verify=false", source, f"dir:{copied}"], check=True
        )
        since = other.mark()
        again = json.loads(layerfs("push", "--json", reference, target).stdout)
        assert {one["pushed"] for one in again["blobs"]} == {"existing"}
        assert again["digest"] == str(BUILT.digest)
        assert {request.method for request in other.requests(since)} == {"HEAD", "PUT"}
        assert layerfs("push", "-q", reference, target).stdout == f"{BUILT.digest}\n"
        both = f"{other.host}/a/b:3"
        layerfs("push", "-q", reference, f"{both}@{BUILT.digest}")
        assert digest_at(both) == str(BUILT.digest), "the tag is written, too"


def test_blobs_of_the_same_registry_are_mounted_and_no_byte_is_sent(
    layerfs: CommandLine, own_registry: Registry
) -> None:
    reference = str(own_registry.push("mount/from", "1", BUILT))
    layerfs("pull", "-q", reference)
    target = f"{own_registry.host}/mount/to:1"
    done = layerfs("push", reference, target)
    assert "3 blobs, 0 uploaded (0 B), 3 mounted" in done.stdout
    assert digest_at(target) == str(BUILT.digest)


def test_an_index_is_pushed_with_all_that_it_lists(
    layerfs: CommandLine, registry: Registry, other: Registry
) -> None:
    both = index(BUILT, FOREIGN)
    reference = str(registry.push("push/index", "1", both))
    with other:
        target = f"{other.host}/a:1"
        layerfs("push", "--all-platforms", reference, target)
        assert digest_at(target) == str(both.digest)
        assert digest_at(f"{other.host}/a@{FOREIGN.digest}") == str(FOREIGN.digest)
        layerfs("push", reference, f"{other.host}/one:1")
        assert digest_at(f"{other.host}/one:1") == str(BUILT.digest)
        wrong = f"{other.host}/one@{FOREIGN.digest}"
        assert "expected DESTINATION with a tag" in layerfs("push", reference, wrong, code=2).stderr


def test_a_push_logs_in_with_a_password(
    layerfs: CommandLine, registry: Registry, other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = str(registry.push("push/basic", "1", BUILT))
    made = subprocess.run(["htpasswd", "-Bbn", "robot", PASSWORD], capture_output=True, check=True)
    (tmp_path / "htpasswd").write_bytes(made.stdout)
    settings = {
        "REGISTRY_AUTH": "htpasswd",
        "REGISTRY_AUTH_HTPASSWD_REALM": "tests",
        "REGISTRY_AUTH_HTPASSWD_PATH": str(tmp_path / "htpasswd"),
    }
    restarted(other, monkeypatch, settings)
    try:
        target = f"{other.host}/a:1"
        assert f"layerfs login {other.host}" in layerfs("push", reference, target, code=4).stderr
        layerfs("push", "--creds", f"robot:{PASSWORD}", reference, target)
        assert digest_at(target, "--creds", f"robot:{PASSWORD}") == str(BUILT.digest)
    finally:
        other.stop()


def test_a_push_asks_a_token_server_for_the_rights_to_push_and_to_mount(
    layerfs: CommandLine, other: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = {"robot": PASSWORD}
    with TokenServer(issue(tmp_path, authority(tmp_path), "127.0.0.1"), users) as server:
        with other:
            other.push("team/from", "1", BUILT)
        restarted(other, monkeypatch, server.environment)
        try:
            layerfs("login", "-u", "robot", "-p", PASSWORD, other.host)
            reference, target = f"{other.host}/team/from:1", f"{other.host}/team/to:1"
            done = layerfs("push", reference, target)
            assert "3 mounted" in done.stdout
            assert "repository:team/to:pull,push" in server.asked
            assert digest_at(target, "--creds", f"robot:{PASSWORD}") == str(BUILT.digest)
            layerfs("logout", other.host)
            assert "layerfs login" in layerfs("push", reference, target, code=4).stderr
        finally:
            other.stop()


def test_blobs_that_are_gone_are_fetched_again_and_that_is_said(
    layerfs: CommandLine, registry: Registry, other: Registry
) -> None:
    reference = str(registry.push("push/gone", "1", BUILT))
    layerfs("pull", "-q", reference)
    with ImageStorage(layerfs.store) as storage:
        storage.discard_blob(BUILT.layers[0].digest)
    with other:
        said = layerfs("push", reference, f"{other.host}/a:1").stderr
        assert "fetching 1 of 2 blobs" in said
        assert "in the store as directories alone" in said
        assert digest_at(f"{other.host}/a:1") == str(BUILT.digest)


def test_a_damaged_blob_never_gets_into_a_registry(
    layerfs: CommandLine, registry: Registry, other: Registry
) -> None:
    reference = str(registry.push("push/damaged", "1", BUILT))
    layerfs("pull", "-q", reference)
    blob = BUILT.layers[0]
    with ImageStorage(layerfs.store) as storage:
        found = storage.open_blob(blob.digest)
        assert found is not None
        found.path.chmod(0o600)
        found.path.write_bytes(flip_byte(blob.blob))
    with other:
        said = layerfs("push", reference, f"{other.host}/a:1", code=1).stderr
        assert f"layerfs verify --repair {reference}" in said
        assert not other.blob_file(blob.digest).exists()
        assert "does not have it" in layerfs("tags", f"{other.host}/a", code=3).stderr


def test_a_push_without_a_network_says_so(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("push/offline", "1", BUILT))
    assert "run with --online" in layerfs("push", "--offline", reference, code=5).stderr
    assert "expected one of the two" in layerfs("push", "-q", "--json", reference, code=2).stderr


def test_a_login_for_the_destination_is_not_shown_to_the_source(
    layerfs: CommandLine, faulty: FaultyRegistry, other: Registry
) -> None:
    faulty.push("a/b", "1", BUILT)
    faulty.faults.auth, faulty.faults.anonymous = "basic", False
    with other:
        source, target = f"{faulty.host}/a/b:1", f"{other.host}/a:1"
        layerfs("push", "--creds", f"{USER}:secret-of-destination", source, target, code=4)
    assert [asked.headers.get("authorization") for asked in faulty.asked] == [None] * len(faulty.asked)
    assert len(faulty.asked) > 0


class SlowRegistry:
    """Takes 70 seconds for each blob, of a clock that jumps."""

    async def push_blob(self, target: Repository, digest: Digest, body: Body, source: None) -> str:
        await trio.sleep(70)
        return "uploaded"


def test_a_long_push_says_every_half_minute_how_far_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blob").touch()
    uploads = [Upload(Digest.of(bytes([number])), 0, str(tmp_path / "blob")) for number in range(5)]
    client: Any = SlowRegistry()

    async def main() -> None:
        pushing = Pushing(client, Repository.parse("a/b"), None, silent=False)
        assert len(await pushing.push(uploads)) == 5

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    said = [line for line in capsys.readouterr().err.splitlines() if "blobs are there" in line]
    assert said == [f"{done} of 5 blobs are there, 0 B sent" for done in (0, 0, 4, 4)]
