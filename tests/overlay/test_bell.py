"""Containers on layers that are not here: a file comes when it is opened, and reads of it need no daemon."""

import errno
import json
import mmap
import os
import random
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from layerfs.bells import ring_of
from layerfs.host.mounts import mounts_at
from layerfs.oci import Tag
from layerfs.store.overlays import OverlayMount
from tests.cli.test_delegated import socket_of
from tests.overlay.scene import command, mounted_quietly
from tests.support import clients, daemon, mounts
from tests.support.daemon import Daemon
from tests.support.images import directory, file, hardlink, image, layer, opaque, symlink, tar, whiteout
from tests.support.registry import Registry
from tests.support.tocs import estargz

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

NOISE = random.Random(23).randbytes(3 << 20)
BASE = estargz(
    tar(
        [
            directory("etc", 0o750, uid=3, gid=4),
            file("etc/motd", b"content", 0o4755, uid=7),
            hardlink("etc/link", "etc/motd"),
            file("etc/empty"),
            file("etc/gone", b"gone"),
            file("large", NOISE),
            file("other", b"other"),
            symlink("symlink", "etc/motd"),
            *(file(f"many/{number}", b"%d" % number) for number in range(50)),
        ]
    ),
    chunk=100_000,
)
TOP = estargz(
    tar([whiteout("etc/gone"), opaque("many"), file("many/new", b"content"), file("top", NOISE[:9])])
)
PLAIN = layer(file("plain", b"plain"))
IMAGE = image(BASE.built, PLAIN, TOP.built)

FILES = {"etc/motd": b"content", "large": NOISE, "other": b"other", "many/new": b"content", "top": NOISE[:9]}


@pytest.fixture(scope="module")
def pushed(_session_registry: Registry) -> Tag:
    return _session_registry.push("overlay/bell", "1", IMAGE)


def test_status_knows_the_image_of_a_lazy_overlay(root: Path, mounted: Daemon, pushed: Tag) -> None:
    said = daemon.layerfs("status", "--store", mounted.store, root).stdout

    assert said.startswith(f"{root}: overlay of {pushed} (read-only, ")
    assert f" in {mounted.store}/overlays/" in said


def test_status_says_what_is_here_of_lazy_layers(root: Path, mounted: Daemon) -> None:
    def lazy() -> list[dict[str, object]]:
        said = daemon.layerfs("status", "--json", "--store", mounted.store, root).stdout
        found: list[dict[str, object]] = json.loads(said)[0]["lazy"]
        return found

    top, base = lazy()
    assert (base["toc"], base["state"], base["files"]) == (str(BASE.place.digest), "toc", 0)
    assert top["toc"] == str(TOP.place.digest)
    assert clients.read(root / "etc/motd") == b"content"
    assert clients.read(root / "top") == NOISE[:9]
    top, base = lazy()
    assert (base["state"], base["files"], base["bytes"]) == ("partial", 1, 7)
    assert (top["state"], top["files"]) == ("partial", 2), "a file of the other layer is equal"
    line = daemon.layerfs("status", "--store", mounted.store, root).stdout.splitlines()[2]
    assert line.startswith(f"  lazy layer {BASE.place.digest}: partial, 1 of ")


def test_names_cost_no_bytes_and_a_file_costs_itself(root: Path, mounted: Daemon, registry: Registry) -> None:
    mark = registry.mark()
    listed = subprocess.run(["find", root, "-printf", "%P %y %m %s %n\n"], check=True, capture_output=True)
    names = {line.split()[0] for line in listed.stdout.decode().splitlines()[1:]}
    assert {"etc/motd", "etc/link", "large", "many/new", "plain", "top"} <= names
    assert not names & {"etc/gone", "many/0"}
    assert not [name for name in names if ".wh." in name]
    assert registry.blob_requests(mark) == []
    status = (root / "etc/motd").stat()
    assert (status.st_mode & 0o7777, status.st_uid, status.st_size, status.st_nlink) == (0o4755, 7, 7, 2)

    assert clients.read(root / "etc/link") == b"content"
    assert clients.read(root / "etc/motd") == b"content"
    assert clients.read(root / "many/new") == b"content", "equal bytes are one object"
    assert clients.read(root / "etc/empty") == b""
    assert clients.read(root / "plain") == b"plain"
    assert len(registry.blob_requests(mark)) <= 1
    assert clients.read(root / "large") == NOISE


def test_what_was_opened_outlives_the_daemon(root: Path, mounted: Daemon) -> None:
    assert clients.read(root / "large") == NOISE
    mounted.process.kill()
    mounted.process.wait()
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    assert clients.read(root / "large") == NOISE
    fd = os.open(root / "large", os.O_RDONLY)
    with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[-100:] == NOISE[-100:]
    os.close(fd)
    with pytest.raises(OSError, match="not connected") as caught:
        clients.read(root / "other")
    assert caught.value.errno == errno.ENOTCONN


def test_a_new_daemon_finishes_what_containers_wait_for(
    root: Path, mounted: Daemon, tmp_path: Path, registry: Registry
) -> None:
    assert clients.read(root / "etc/motd") == b"content"
    mounted.process.kill()
    mounted.process.wait()
    with daemon.running(mounted.store, tmp_path / "another", environment=mounted_quietly(tmp_path)):
        clients.wait_until(lambda: all(clients.run("cat", root / name).returncode == 0 for name in FILES))
        mark = registry.mark()
        for name, content in FILES.items():
            assert clients.read(root / name) == content
        assert registry.blob_requests(mark) == []
    for name, content in FILES.items():
        assert clients.read(root / name) == content


def test_a_daemon_that_is_told_to_end_names_whom_it_cuts_off(root: Path, mounted: Daemon) -> None:
    mounted.process.terminate()
    mounted.process.wait()

    said = f"{root}: cut off from 5"
    assert said in mounted.log(), "56 files, equal ones counted once"
    assert "(layerfs status --heal, or a new mount, has them)" in mounted.log()


@pytest.mark.parametrize("verb", ["pull", "status"])
def test_a_command_heals_containers_whose_daemon_died(
    verb: str, root: Path, mounted: Daemon, registry: Registry
) -> None:
    assert clients.read(root / "etc/motd") == b"content"
    mounted.process.kill()
    mounted.process.wait()
    with pytest.raises(OSError, match="not connected"):
        clients.read(root / "other")

    if verb == "pull":  # of something else
        another = registry.push("overlay/healer", "1", image(PLAIN))
        done = command("pull", "--store", mounted.store, str(another))
    else:
        done = command("status", "--heal", "--store", mounted.store, root)
        assert done.stderr == "layerfs: 2 layers that lazy overlays waited for are here\n"

    for name, content in FILES.items():
        assert clients.read(root / name) == content


def asked_first(root: Path, *daemons: Daemon) -> list[Daemon]:
    """Return *daemons*, first the one that the overlay at *root* asks."""
    found = next(filter(None, map(OverlayMount.of, mounts_at(root))))
    return sorted(daemons, key=lambda one: ring_of(bytes(one.mountpoint)) not in found.others)


@pytest.mark.parametrize(
    "verb",
    ["pull by the other mount", *(pytest.param(verb, marks=pytest.mark.long) for verb in ("pull", "status"))],
)
def test_a_command_heals_containers_though_another_mount_lives(
    verb: str, tmp_path: Path, pushed: Tag, registry: Registry
) -> None:
    """It began before the overlay, and has seen nothing of it."""
    store, quietly, root = tmp_path / "store", mounted_quietly(tmp_path), tmp_path / "root"
    root.mkdir()
    another = registry.push("overlay/healer", "2", image(PLAIN))
    try:
        with (
            daemon.running(store, tmp_path / "first", "--log-level", "info", environment=quietly) as first,
            daemon.running(store, tmp_path / "second", "--log-level", "info", environment=quietly) as second,
        ):
            command("overlay", "--lazy", "always", "--store", store, str(pushed), root)
            asked, other = asked_first(root, first, second)
            asked.process.terminate()
            asked.process.wait()
            assert f"{root}: cut off from 5" in asked.log()
            with pytest.raises(OSError, match="not connected"):
                clients.read(root / "other")

            if verb == "status":
                done = command("status", "--heal", "--store", store, root)
                assert done.stderr == "layerfs: 2 layers that lazy overlays waited for are here\n"
            elif verb == "pull":
                command("pull", "--no-daemon", "--store", store, str(another))
            else:
                socket_of(other)
                environment = daemon.clean_environment() | quietly
                argv = [*daemon.LAYERFS, "pull", "--store", str(store), str(another)]
                subprocess.run(argv, env=environment, check=True, capture_output=True)
                assert "a pull for process" in other.log()

            for name, content in FILES.items():
                assert clients.read(root / name) == content
            done = command("status", "--heal", "--store", store, root)
            assert done.stderr == "", "all of it is here"
    finally:
        mounts.clear(root)


def test_a_pull_goes_on_where_containers_cannot_be_healed(tmp_path: Path, own_registry: Registry) -> None:
    lazy = own_registry.push("overlay/away", "1", IMAGE)
    path = tmp_path / "root"
    path.mkdir()
    try:
        with daemon.running(
            tmp_path / "store", tmp_path / "mount", environment=mounted_quietly(tmp_path)
        ) as running:
            command("overlay", "--lazy", "always", "--store", running.store, str(lazy), path)
            running.process.kill()
            running.process.wait()
        own_registry.stop()
        done = daemon.layerfs("pull", "--store", running.store, "--retry", "0", str(lazy), check=False)
    finally:
        mounts.clear(path)

    assert "what lazy overlays wait for could not be had: " in done.stderr
    assert done.returncode == 5, "the pull has an error of its own"


def test_umount_of_the_mount_takes_nothing_from_an_overlay(root: Path, mounted: Daemon) -> None:
    assert daemon.layerfs("umount", mounted.mountpoint).returncode == 0
    assert mounts.mount_at(mounted.mountpoint) is None
    assert clients.read(root / "other") == b"other"

    mounts.clear(root)
    assert mounted.wait() == 0, "it ends with the last of them"


def test_an_object_of_no_toc_is_nothing(mounted: Daemon, root: Path, registry: Registry) -> None:
    mark = registry.mark()
    bell = mounted.mountpoint / ".layerfs/bell"
    for way in ("ring", "direct"):
        assert not (bell / way / "ab" / ("c" * 20)).exists()
        assert not (bell / way / "ab" / "c").exists()
        assert not (bell / way / "..." / "x").exists()
        assert clients.names(bell / way) == set()
    assert registry.requests(mark) == []


def test_rw_copies_up_what_is_written(mounted: Daemon, pushed: Tag, tmp_path: Path) -> None:
    path = tmp_path / "rw"
    path.mkdir()
    try:
        command("overlay", "--rw", "--lazy", "always", "--store", mounted.store, str(pushed), path)
        with (path / "etc/motd").open("ab") as writing:
            writing.write(b" and more")
        (path / "large").chmod(0o600)
        os.rename(path / "other", path / "renamed")
        os.chown(path / "many/new", 5, 6)
        os.link(path / "top", path / "linked")
        assert (path / "etc/motd").read_bytes() == b"content and more"
        assert (path / "large").read_bytes() == NOISE
        assert (path / "renamed").read_bytes() == b"other"
        assert (path / "linked").read_bytes() == NOISE[:9]
        subprocess.run(["rm", "-rf", path / "etc", path / "many"], check=True)
        assert not (path / "etc").exists()
        command("overlay", "--umount", "--store", mounted.store, path)
        assert os.listdir(mounted.store / "overlays") == []
    finally:
        mounts.clear(path)


def test_a_toc_that_an_image_claims_for_another_blob_shows_nothing_in_it(
    root: Path, mounted: Daemon, tmp_path: Path, registry: Registry
) -> None:
    """The skeleton of that TOC is here, of the layer that it belongs to."""
    lying = registry.push("overlay/lying", "1", image(replace(PLAIN, annotations=BASE.annotations)))
    path = tmp_path / "lying"
    path.mkdir()
    try:
        command("overlay", "--lazy", "always", "--store", mounted.store, str(lying), path)
        assert os.listdir(path) == ["plain"]
        assert clients.read(path / "plain") == b"plain"
    finally:
        mounts.clear(path)


def test_nothing_that_a_container_uses_is_collected(
    root: Path, mounted: Daemon, pushed: Tag, tmp_path: Path
) -> None:
    assert clients.read(root / "large") == NOISE
    freed = command("rm", "--all", "--store", mounted.store)
    assert str(root) in freed.stdout, "it says who keeps it"
    command("gc", "--store", mounted.store)
    Path("/proc/sys/vm/drop_caches").write_text("3\n")
    assert clients.read(root / "large") == NOISE
    assert clients.read(root / "plain") == b"plain"
    assert clients.read(root / "other") == b"other", "the daemon knows where it came from"
    mounts.clear(root)

    def is_empty() -> bool:
        command("gc", "--store", mounted.store)
        places = (mounted.store / name for name in ("objects", "skeletons", "overlays"))
        return not any(path.is_file() for place in places for path in place.rglob("*"))

    clients.wait_until(is_empty)  # a mount namespace of another test may have a copy of the mount


@pytest.mark.allow_warnings
def test_a_layer_that_differs_from_its_toc_is_mounted_no_more(
    mounted: Daemon, tmp_path: Path, registry: Registry
) -> None:
    entries = [file("opened", b"opened"), file("other", NOISE), file("changed", b"changed")]
    layer = estargz(tar(entries), changes={"changed": {"mode": 0o4755}})
    pushed = registry.push("overlay/two-tellings", "1", image(layer.built))
    root, again = tmp_path / "root", tmp_path / "again"
    root.mkdir()
    again.mkdir()
    try:
        command("overlay", "--lazy", "always", "--store", mounted.store, str(pushed), root)
        assert clients.read(root / "opened") == b"opened"

        assert "two layers" in command("pull", "--store", mounted.store, str(pushed), check=False).stderr
        plain = registry.push("overlay/one-telling", "1", image(replace(layer.built, annotations={})))
        command("pull", "--store", mounted.store, str(plain))  # who claims no TOC of the blob has its archive

        assert clients.read(root / "opened") == b"opened"
        with pytest.raises(OSError, match="Input/output") as caught:
            clients.read(root / "other")
        assert caught.value.errno == errno.EIO, "what was not opened by then is not brought any more"
        for how in ("auto", "never", "always"):
            done = command(
                "overlay", "--lazy", how, "--store", mounted.store, str(pushed), again, check=False
            )
            assert "two layers" in done.stderr
            assert mounts.mount_at(again) is None
        assert "two layers" in command("lowerdir", "--store", mounted.store, str(pushed), check=False).stderr
    finally:
        mounts.clear(root)
        mounts.clear(again)


def test_files_come_although_the_name_of_their_image_was_removed(
    root: Path, mounted: Daemon, pushed: Tag, tmp_path: Path
) -> None:
    said = command("rm", "--store", mounted.store, str(pushed)).stdout
    assert f": the lazy overlay at {root}" in said
    command("gc", "--store", mounted.store)
    assert clients.read(root / "etc/motd") == FILES["etc/motd"]
    mounted.process.kill()
    mounted.process.wait()
    with daemon.running(mounted.store, tmp_path / "another", environment=mounted_quietly(tmp_path)):
        clients.wait_until(lambda: all(clients.run("cat", root / name).returncode == 0 for name in FILES))
    mounts.clear(root)

    def left() -> list[str]:
        command("gc", "--store", mounted.store)
        kinds = ("manifests", "configs", "layers", "extracted", "skeletons", "overlays", "tocs")
        return [name for kind in kinds for name in os.listdir(mounted.store / kind)]

    clients.wait_until(lambda: left() == [])
