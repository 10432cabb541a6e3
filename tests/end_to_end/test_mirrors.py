"""A mount that fetches through a mirror: its downloader knows the files, and those of after a reload."""

import os
import signal
from pathlib import Path

import pytest

from tests.support import daemon, images
from tests.support.certificates import authority, issue
from tests.support.clients import wait_until
from tests.support.faulty_registry import FaultyRegistry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

CONTENT = os.urandom(100_000)
BUILT = images.image(images.layer(images.file("file", CONTENT), compression="none"))
FILE = "layers/00/diff/file"


def test_a_mount_fetches_through_a_mirror_with_an_authority_of_its_own(
    tmp_path: Path, store: Path, mountpoint: Path, faulty: FaultyRegistry
) -> None:
    (tmp_path / "hosts" / faulty.host).mkdir(parents=True)
    trusted = authority(tmp_path / "hosts" / faulty.host)
    identity = issue(tmp_path, trusted, "127.0.0.1")
    other = images.image(images.layer(images.file("file", b"other"), compression="none"))
    with FaultyRegistry(identity.server_context()) as mirror:
        mirror.push("a/b", "1", BUILT)
        faulty.push("c/d", "1", other)
        text = f'[host."https://{mirror.host}"]\nca = "{trusted.certificate.name}"\n'
        hosts = tmp_path / "hosts" / faulty.host / "hosts.toml"
        hosts.write_text(text)
        (tmp_path / "config.toml").write_text(f'hosts_dir = "{tmp_path}/hosts"\n')
        said = {"LAYERFS_CONFIG": str(tmp_path / "config.toml")}
        with daemon.running(store, mountpoint, "--log-level", "info", environment=said) as running:
            assert (running.images / f"{faulty.host}/a/b:1" / FILE).read_bytes() == CONTENT
            assert faulty.asked == []
            hosts.write_text(f'server = "http://{faulty.host}"\n')
            mirror.push("c/d", "1", other)
            os.kill(running.process.pid, signal.SIGHUP)
            wait_until(lambda: "were read again" in running.log())
            seen = len(mirror.asked)
            assert (running.images / f"{faulty.host}/c/d:1" / FILE).read_bytes() == b"other"
            assert len(mirror.asked) == seen
