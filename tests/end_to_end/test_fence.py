"""A mount that others may read lends nobody its network or its logins."""

import errno
import subprocess
from pathlib import Path

import pytest

from tests.store.helpers import shared_place
from tests.support import clients, daemon, images
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

ENTRY = images.file("file", b"content")


def _attempt(path: Path) -> int:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno or -1
    return 0


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--allow-other"], errno.EACCES, id="shared, and nothing is named"),
        pytest.param(["-o", "allow_other"], errno.EACCES, id="the same by mount option"),
        pytest.param(["--allow-other", "--registries", "other.example"], errno.EACCES, id="another is named"),
        pytest.param(["--registries", "other.example"], errno.EACCES, id="private, and another is named"),
        pytest.param(["--allow-other", "--registries", "{host}"], 0, id="shared, and it is named"),
        pytest.param(["-o", "allow_other,registries={host}+other.example"], 0, id="named by mount option"),
        pytest.param(
            ["--allow-other", "--insecure-registry", "{host}"], 0, id="shared, and it is configured"
        ),
        pytest.param([], 0, id="private"),
    ],
)
def test_a_mount_contacts_only_the_registries_that_it_may(
    registry: Registry, store: Path, mountpoint: Path, arguments: list[str], expected: int
) -> None:
    reference = registry.push("e2e/fenced", "latest", images.image(images.layer(ENTRY)))
    since = registry.mark()
    words = [word.format(host=registry.host) for word in arguments]
    with daemon.running(store, mountpoint, *words) as running:
        assert _attempt(running.images / str(reference) / "layers" / "00" / "diff" / "file") == expected
        if expected:
            assert registry.requests(since) == []
            assert f"--registries {registry.host}" in running.log()


def test_a_login_is_configuration_enough(
    registry: Registry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    reference = registry.push("e2e/fenced", "latest", images.image(images.layer(ENTRY)))
    authfile = tmp_path / "auth.json"
    authfile.write_text(f'{{"auths": {{"{registry.host}": {{"auth": "dTpw"}}}}}}')
    with daemon.running(store, mountpoint, "--allow-other", "--authfile", str(authfile)) as running:
        content = clients.read(running.images / str(reference) / "layers" / "00" / "diff" / "file")
    assert content == b"content"


def test_status_json_discloses(registry: Registry, store: Path, tmp_path: Path) -> None:
    """What a login is called, and what was asked for, is nobody's business but the daemon's user's."""
    authfile = tmp_path / "auth.json"
    authfile.write_text(f'{{"auths": {{"{registry.host}": {{"auth": "dTpw"}}}}}}')
    with shared_place() as place:  # others reach what is in it
        mountpoint, log = place / "mount", place / "log"
        mountpoint.mkdir()
        arguments = ["--allow-other", "--authfile", str(authfile), "--log-file", str(log)]
        with daemon.running(store, mountpoint, *arguments) as running:
            _attempt(running.images / registry.host / "asked:1" / "rootfs")
            status = mountpoint / ".layerfs" / "status.json"
            assert b"asked:1" in clients.read(status)

            others = [
                subprocess.run(["cat", path], user=65534, group=65534, extra_groups=[], capture_output=True)
                for path in (status, log)
            ]
            assert [done.stdout for done in others] == [b"", b""]
            assert all(b"Permission denied" in done.stderr for done in others)


@pytest.mark.parametrize("option", ["max_read=1", "allow_others", "store"])
def test_an_unknown_mount_option_is_refused_with_those_there_are(
    store: Path, mountpoint: Path, option: str
) -> None:
    mountpoint.mkdir(exist_ok=True)
    done = daemon.layerfs("mount", "-o", f"ro,{option}", str(mountpoint), store=store, check=False)
    assert done.returncode == 2
    assert f"-o {option}" in done.stderr
    assert "allow_other" in done.stderr
