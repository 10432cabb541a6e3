"""`layerfs doctor`: what it finds on this machine, on one that lacks something, and what it says to do."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from layerfs.doctor.observation import Observation, worst
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.rootless.conftest import household as household
from tests.rootless.household import Household
from tests.store.test_full_disk import fill_up
from tests.support import daemon, mounts
from tests.support.faulty_registry import FaultyRegistry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

Json = dict[str, Any]


def examine(layerfs: CommandLine, *arguments: str | Path, code: int = 0) -> dict[str, Json]:
    """Return what doctor finds, the last of each check."""
    said = json.loads(layerfs("doctor", "--json", *arguments, code=code).stdout)
    assert said["state"] == ("failure" if code else max(_states(said), key=("ok", "warning").index))
    return {one["check"]: one for one in said["checks"]}


def _files(store: Path) -> set[Path]:
    return {path for path in store.rglob("*") if not path.is_dir()}


def _states(said: Json) -> list[str]:
    return [one["state"] for one in said["checks"]]


def test_a_machine_that_has_everything(layerfs: CommandLine) -> None:
    ImageStorage(layerfs.store).close()
    before = _files(layerfs.store)

    found = examine(layerfs)

    for check in ("FUSE device", "FUSE mount", "fusermount3", "overlay", "store", "store's disk", "room"):
        assert found[check]["state"] == "ok", found[check]
        assert found[check]["mend"] == ""
    assert found["kernel"]["found"].split()[1] == f"{os.uname().release},"
    assert found["FUSE mount"]["found"].startswith("protocol 7.")
    assert _files(layerfs.store) == before, "what was tried is undone"


def test_people_read_a_line_of_each_and_how_to_mend_it(layerfs: CommandLine) -> None:
    auth = layerfs.home / "auth.json"
    auth.write_text(
        '{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}}, "credHelpers": {"a.b": "is-not-there"}}'
    )
    done = layerfs("doctor", "--authfile", auth, code=1)
    line = f"failure  credentials: {auth}: names docker-credential-is-not-there, which is not installed"
    assert line in done.stdout.splitlines()
    assert (
        f"ok       store: {layerfs.store}: none yet; the first layerfs pull or mount makes it" in done.stdout
    )
    assert "secret" not in done.stdout
    assert "bWU6" not in done.stdout


def test_logins_are_named_but_not_shown(layerfs: CommandLine) -> None:
    path = layerfs.home / "auth.json"
    path.write_text('{"auths": {"ghcr.io": {"auth": "bWU6c2VjcmV0"}, "https://index.docker.io/v1/": {}}}')
    assert examine(layerfs, "--authfile", path)["credentials"]["found"] == f"{path}: docker.io, ghcr.io"
    path.write_text('{"auths": {"ghcr.io": "bWU6c2VjcmV0"}}')
    broken = examine(layerfs, "--authfile", path, code=1)["credentials"]
    assert "not a credential file" in broken["found"]
    assert "bWU6" not in broken["found"]
    missing = examine(layerfs, "--authfile", layerfs.home / "none", code=1)["credentials"]
    assert "no such file" in missing["found"]


def test_a_policy_that_demands_signatures_is_a_warning(layerfs: CommandLine) -> None:
    path = layerfs.home / ".config/containers/policy.json"
    path.parent.mkdir(parents=True)
    signed = {"docker": {"a.b": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}]}}
    path.write_text(json.dumps({"default": [{"type": "reject"}], "transports": signed}))
    found = examine(layerfs)["policy"]
    assert found["state"] == "warning"
    assert found["found"] == f"{path} demands reject, signedBy; layerfs checks digests, no signatures"
    path.write_text("{}")
    assert examine(layerfs)["policy"]["state"] == "warning"
    path.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    assert examine(layerfs)["policy"]["state"] == "ok"


def test_without_a_fuse_device_it_says_how_to_get_one(layerfs: CommandLine) -> None:
    script = (
        'mount -t tmpfs none /dev; mknod /dev/null c 1 3; exec "$0" -m layerfs doctor --json --store "$1"'
    )
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, sys.executable, layerfs.store],
        capture_output=True, env=layerfs.environment, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert found["FUSE device"] == {
        "check": "FUSE device",
        "state": "failure",
        "found": "/dev/fuse: not there",
        "mend": "modprobe fuse; for a container: --device /dev/fuse",
    }
    assert "FUSE mount" not in found


def test_what_mends_a_dead_mount_is_a_command_that_does(layerfs: CommandLine, mountpoint: Path) -> None:
    with daemon.running(layerfs.store, mountpoint) as running:
        assert examine(layerfs)["mounts"]["found"].endswith(" of layerfs")
        running.process.kill()
        running.process.wait()
        mend = f"layerfs umount {mountpoint}"
        said = json.loads(layerfs("doctor", "--json", code=1).stdout)["checks"]
        [dead] = [one for one in said if one["mend"] == mend]
        assert dead["found"] == f"{mountpoint}: dead, its daemon has ended"
        layerfs(*shlex.split(mend)[1:])
        assert mounts.mount_at(mountpoint) is None
    assert not [one for one in examine(layerfs).values() if one["mend"] == mend]


def test_a_store_that_cannot_be_used_is_a_failure(layerfs: CommandLine) -> None:
    ImageStorage(layerfs.store).close()
    owner = layerfs.store / "owner.json"
    owner.write_text(owner.read_text().replace('"version":1', '"version":7'))
    found = examine(layerfs, code=1)["store"]
    assert found["found"].startswith(f"{layerfs.store}: made by a newer layerfs, of store version 7")


def test_a_full_disk_is_a_failure(layerfs: CommandLine, small_disk: Path) -> None:
    ImageStorage(small_disk / "store").close()
    fill_up(small_disk)
    found = examine(layerfs, "--store", small_disk / "store", code=1)
    assert found["room"]["state"] == "failure"
    assert found["room"]["mend"] == "layerfs gc --dry-run says what may go"
    assert found["store"]["state"] == "ok"


def test_a_registry_is_asked_if_it_is_named(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    found = examine(layerfs, "--registry", faulty.host)["registry"]
    assert found["found"].startswith(f"{faulty.host} lets us in, ")
    refused = examine(layerfs, "--retry", "0", "--registry", "127.0.0.1:1", code=1)["registry"]
    assert "no connection to http://127.0.0.1:1" in refused["found"]


def test_an_ordinary_user_needs_fusermount3(household: Household) -> None:
    room = household.room()
    said = json.loads(room.layerfs("doctor", "--json", check=False).stdout)["checks"]
    found = {one["check"]: one for one in said}
    assert found["FUSE device"]["state"] == "ok"
    assert found["fusermount3"]["found"].endswith("/fusermount3")
    assert "FUSE mount" not in found, "only root can try"
    lost = room.layerfs("doctor", "--json", before=("/usr/bin/env", "PATH=/nowhere"), check=False).stdout
    found = {one["check"]: one for one in json.loads(lost)["checks"]}
    assert found["fusermount3"]["state"] == "failure"
    assert found["overlay of users"]["state"] == "warning"
    assert "unshare is not installed" in found["overlay of users"]["found"]


def test_the_worst_counts() -> None:
    ok, bad, worse = (Observation("a", state, "") for state in ("ok", "warning", "failure"))
    assert worst([]) == "ok"
    assert worst([bad, ok]) == "warning"
    assert worst([bad, worse, ok]) == "failure"
