"""``layerfs verify``: exit codes, words, and repair from a registry."""

import json
import os
import pty
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from layerfs.store.layout import StoreLayout
from tests.cli.conftest import CommandLine
from tests.cli.test_interrupts import staged, started
from tests.support.clients import wait_until
from tests.support.daemon import LAYERFS
from tests.support.images import directory, file, flip_byte, image, layer
from tests.support.mounts import unmount
from tests.support.registry import Registry

LAYER = layer(directory("etc"), file("etc/passwd", b"root" * 100))
IMAGE = image(LAYER)


@pytest.fixture
def pulled(layerfs: CommandLine, registry: Registry) -> str:
    """An image in the store."""
    name = str(registry.push("verify/image", "1", IMAGE))
    layerfs("pull", "-q", name)
    return name


def test_verify_finds_names_and_repairs_from_the_registry(layerfs: CommandLine, pulled: str) -> None:
    layout = StoreLayout(layerfs.store)
    assert layerfs("verify", pulled).stdout == "5 right, 0 repaired, 0 unchecked, 0 wrong\n"
    blob, manifest = layout.blob(LAYER.digest), layout.manifest(IMAGE.digest)
    blob.write_bytes(flip_byte(blob.read_bytes()))
    manifest.write_bytes(manifest.read_bytes() + b" ")
    (layout.tree(LAYER.digest) / "etc/passwd").chmod(0o666)
    failed = layerfs("verify", "--all", code=6)
    assert f"wrong manifest {IMAGE.digest}: the manifest hashes to " in failed.stdout
    assert f"wrong blob {LAYER.digest}: the blob hashes to " in failed.stdout
    assert "layerfs verify --repair makes it anew" in failed.stderr
    assert failed.stdout.endswith("2 wrong\n")
    done = layerfs("verify", "--all", "--repair")
    assert f"repaired layer {LAYER.digest}: etc/passwd: mode 0666 (expected 0644) ({pulled})" in done.stdout
    found = json.loads(layerfs("verify", "--all", "--json").stdout)
    assert (found["right"], found["wrong"], found["things"]) == (5, 0, [])


def test_without_a_registry_what_cannot_be_had_again_is_said(layerfs: CommandLine, pulled: str) -> None:
    blob = StoreLayout(layerfs.store).blob(LAYER.digest)
    blob.write_bytes(flip_byte(blob.read_bytes()))
    failed = layerfs("verify", "--offline", "--repair", "--json", pulled, code=6)
    (thing, *_) = json.loads(failed.stdout)["things"]
    assert thing["kind"] == "blob"
    assert "not to be had again" in thing["note"]
    layerfs("verify", "--repair", pulled)
    layerfs("verify", "--limit-rate", "100MB", pulled)


@pytest.mark.needs_root
def test_a_layer_that_a_mount_uses_stays_and_it_is_said_who_uses_it(
    layerfs: CommandLine, pulled: str, tmp_path: Path
) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    layerfs("overlay", pulled, merged)
    wrong = StoreLayout(layerfs.store).tree(LAYER.digest) / "etc/passwd"
    try:
        os.chown(wrong, 7, 8)
        failed = layerfs("verify", "--all", "--repair", code=6)
        assert f"in use by mount {merged}, seen by process" in failed.stdout
        assert wrong.stat().st_uid == 7
    finally:
        unmount(merged)
    layerfs("verify", "--all", "--repair")
    assert wrong.stat().st_uid == 0


def test_on_a_terminal_there_is_a_bar_on_stderr(layerfs: CommandLine, pulled: str) -> None:
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen:
        environment = layerfs.environment | {"TERM": "xterm", "COLUMNS": "100"}
        process = subprocess.Popen(
            [*LAYERFS, "verify", "--all"], stdout=subprocess.PIPE, stderr=follower, env=environment
        )
        os.close(follower)
        shown = b""
        with suppress(OSError):  # how Linux says that the other end of a pty is closed
            while chunk := screen.read(4096):
                shown += chunk
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert printed == b"5 right, 0 repaired, 0 unchecked, 0 wrong\n"
    assert b"verify" in shown or b"cover" in shown


@pytest.mark.parametrize("options", [(), ("--repair",)])
def test_an_interrupted_verification_leaves_nothing_half_made_and_is_taken_up(
    layerfs: CommandLine, registry: Registry, options: tuple[str, ...]
) -> None:
    large = [layer(file(f"{number}", os.urandom(100_000))) for number in range(4)]
    layerfs("pull", "-q", str(registry.push("verify/large", "1", image(*large))))
    notes = StoreLayout(layerfs.store).verified
    with started(layerfs, "verify", "--all", "--limit-rate", "200kB", *options) as process:
        wait_until(lambda: notes.exists() and len(notes.read_text().splitlines()) >= 3)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert errors == "layerfs: interrupted by SIGTERM; run it again to go on\n"
    assert staged(layerfs.store) == []
    report = json.loads(layerfs("verify", "--all", "--resume", "--json").stdout)
    assert report["resumed"] >= 3
    assert report["resumed"] + report["right"] == 11
    assert not notes.exists()


def test_verify_wants_images_or_all(layerfs: CommandLine, pulled: str) -> None:
    layerfs("verify", code=2)
    layerfs("verify", "--all", pulled, code=2)
    layerfs("verify", "--all", "--limit-rate", "0", code=2)
    layerfs("verify", f"{pulled}9", code=3)
