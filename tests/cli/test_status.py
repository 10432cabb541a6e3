"""`layerfs status` and `layerfs df`: what is mounted, what went wrong, what the store holds."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from layerfs.cli import output
from layerfs.cli.failures import advice
from layerfs.cli.status import Look, layer_line, print_lines
from layerfs.host.patience import read_within
from layerfs.oci import Digest, Repository
from layerfs.status import Failure, FilesHere, LookedAt, Status, Underway
from layerfs.store import ImageStorage
from layerfs.view.texts import human_size
from tests.cli.conftest import CommandLine
from tests.support import clients, daemon, mounts
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import BuiltImage, file, image, layer, tar, write_layout
from tests.support.registry import Registry
from tests.support.tocs import estargz

BASE = layer(file("base", os.urandom(10_000)))
BUILT = image(BASE, layer(file("own", os.urandom(3000))))


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_mount_tells_what_it_fetches_who_waits_and_what_went_wrong(
    layerfs: CommandLine, own_registry: Registry, mountpoint: Path
) -> None:
    own_registry.push("a", "1", BUILT)
    own_registry.push("bad", "1", image(layer(file("bad", b"bytes"))))
    with daemon.running(layerfs.store, mountpoint) as running:
        shown = layerfs("status", mountpoint).stdout
        assert shown.startswith(f"{mountpoint}: serving {layerfs.store} (pid ")

        clients.names(daemon_images(mountpoint, own_registry) / "a:1/")
        with (
            own_registry.paused(),
            clients.started("ls", daemon_images(mountpoint, own_registry) / "a:1/layers/00/diff/"),
        ):
            running.wait_for_callers(1)
            about = json.loads(layerfs("status", "--json", mountpoint).stdout)[0]
            assert about["waiting"] == 1
            assert [one["digest"] for one in about["fetching"]] == [str(BASE.digest)]
            assert f"queued {own_registry.host}/a@{BASE.digest}: " in layerfs("status").stdout

        clients.run("ls", daemon_images(mountpoint, own_registry) / "missing:1/")
        shown = layerfs("status", mountpoint).stdout
        assert "missing" in shown
        assert advice("NotFound") in shown


def daemon_images(mountpoint: Path, registry: Registry) -> Path:
    return mountpoint / "images" / registry.host


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_hanging_and_a_dead_mount_are_told_apart(layerfs: CommandLine, mountpoint: Path) -> None:
    with daemon.running(layerfs.store, mountpoint) as running:
        os.kill(running.pid, signal.SIGSTOP)
        try:
            assert "no answer within" in layerfs("status", mountpoint, code=1).stdout
        finally:
            os.kill(running.pid, signal.SIGCONT)
        running.kill()
        assert "dead" in layerfs("status", mountpoint, code=1).stdout
        states = {one["mountpoint"]: one["state"] for one in json.loads(layerfs("status", "--json").stdout)}
        assert states[str(mountpoint)] == "dead"


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_mount_tells_how_much_is_here_of_layers_that_were_looked_at(
    layerfs: CommandLine, faulty: FaultyRegistry, mountpoint: Path
) -> None:
    files = {f"f{number}": os.urandom(9000) for number in range(3)}
    lazy = estargz(tar([file(name, content) for name, content in files.items()]))
    faulty.push("a/b", "1", image(lazy.built))
    (layerfs.home / "layerfs.toml").write_text('background = "never"\n')
    environment = {"LAYERFS_CONFIG": str(layerfs.home / "layerfs.toml")}
    name = f"{faulty.host}/a/b@{lazy.digest}"
    with daemon.running(layerfs.store, mountpoint, environment=environment):
        root = mountpoint / "images" / faulty.host / "a/b:1/rootfs"
        assert set(files) <= set(os.listdir(f"{root}/"))
        sizes = ImageStorage(layerfs.store).lazy.count(lazy.place.digest).of_bytes
        whole = human_size(sizes)
        assert f"  lazy {name}: 0 of 4 files, 0 B of {whole}\n" in layerfs("status", mountpoint).stdout
        assert clients.read(root / "f1") == files["f1"]
        assert json.loads(layerfs("images", "--json").stdout)[0]["lazy"] == 1
        assert "0/1 +1 lazy" in layerfs("images").stdout
        assert " partial: 1 of 4 files, 9.0 kB of " in layerfs("history", f"{faulty.host}/a/b:1").stdout
    large = os.urandom(1_400_000)
    faulty.faults.refuse_range, faulty.faults.range_status = True, 501
    faulty.push("c/d", "1", image(estargz(tar([file("g", large)])).built))
    with daemon.running(layerfs.store, mountpoint, environment=environment):
        line = f"  lazy {lazy.digest}: 1 of 4 files, 9.0 kB of {whole}"
        assert line in layerfs("status", mountpoint).stdout.splitlines()  # who asked was another daemon
        assert clients.read(root / "f1") == files["f1"]
        assert clients.read(mountpoint / "images" / faulty.host / "c/d:1/rootfs/g") == large
        kept, fetched = json.loads(layerfs("status", "--json", mountpoint).stdout)[0]["looked_at"]
    assert kept["here"] == {"files": 1, "bytes": 9000, "of_files": 4, "of_bytes": sizes}
    assert (kept["repository"], kept["state"], kept["whole_because"]) == ("", "partial", None)
    assert (fetched["state"], fetched["repository"]) == ("fetched", f"{faulty.host}/c/d")
    assert fetched["whole_because"] == f"{faulty.host} answers no ranges"


@pytest.mark.parametrize(
    ("more", "line"),
    [
        ({"state": "toc"}, "lazy r/a@sha256:1: its files are listed"),
        ({"state": "partial", "here": (1, 10, 2, 2000)}, "lazy r/a@sha256:1: 1 of 2 files, 10 B of 2.0 kB"),
        ({"state": "fetched"}, "whole r/a@sha256:1"),
        ({"state": "fetched", "why": "no TOC"}, "whole r/a@sha256:1 (not lazy: no TOC)"),
        ({"state": "absent", "why": "no TOC"}, "not here r/a@sha256:1 (not lazy: no TOC)"),
        ({"state": "absent"}, "not here r/a@sha256:1"),
        ({"state": "toc", "repository": ""}, "lazy sha256:1: its files are listed"),
    ],
)
def test_a_layer_that_was_looked_at_has_a_line(more: dict[str, Any], line: str) -> None:
    here = more.get("here")
    one = LookedAt(
        repository=more.get("repository", "r/a"),
        digest="sha256:1",
        toc=None,
        state=more["state"],
        here=FilesHere(**dict(zip(FilesHere.__struct_fields__, here, strict=True))) if here else None,
        whole_because=more.get("why"),
    )
    assert layer_line(one) == line


def about(**more: Any) -> Status:
    """Return what a mount says that does nothing, and *more*."""
    known = {"version": "1", "mountpoint": "/m", "store": "/s", "platform": "linux/amd64", "offline": False}
    found = {"pid": 7, "waiting": 0, "fetching": (), "errors": ()} | known | more
    return msgspec.convert(found, Status)


def test_more_layers_than_anybody_reads_are_counted() -> None:
    layers = [LookedAt(repository="", digest=f"sha256:{n}", toc=None, state="absent") for n in range(13)]
    look = Look("/m", (0, 1), "serving", status=about(looked_at=tuple(layers)))
    lines = look.lines()
    assert lines[1:11] == [f"  not here sha256:{number}" for number in range(3, 13)]
    assert lines[11:] == ["  and 3 layers before them (--json has all)"]


@pytest.fixture
def cleared(tmp_path: Path) -> Iterator[Path]:
    """A directory below which nothing stays mounted, however the test ends."""
    yield tmp_path
    mounts.clear(tmp_path)


@pytest.mark.needs_root
def test_overlays_are_known_with_what_they_wrote_and_who_uses_them(
    layerfs: CommandLine, cleared: Path
) -> None:
    # An image of its own: another test's new mount namespace may keep a copy of these mounts for a while.
    imported(layerfs, cleared, "one", image(layer(file("seen", os.urandom(100)))))
    reading, writing = cleared / "reading", cleared / "writing"
    for target in (reading, writing):
        target.mkdir()
    layerfs("overlay", "one:1", reading)
    layerfs("overlay", "one:1", writing, "--rw")
    (writing / "new").write_bytes(bytes(1 << 20))
    with clients.started("sh", "-c", f"cd {reading} && exec sleep 60") as user:
        clients.wait_until(lambda: Path(f"/proc/{user.pid}/cwd").resolve() == reading)
        lines = layerfs("status", reading).stdout.splitlines()
        about = {one["mountpoint"]: one for one in json.loads(layerfs("status", "--json").stdout)}
    name, (scratch,) = "docker.io/library/one:1", (layerfs.store / "overlays").iterdir()
    assert lines == [
        f"{reading}: overlay of {name} (read-only)",
        f"  used by sleep (pid {user.pid}, works in {reading})",
    ]
    assert about[str(reading)] == {
        "kind": "overlay",
        "mountpoint": str(reading),
        "state": "mounted",
        "store": str(layerfs.store),
        "images": [name],
        "writable": False,
        "lazy": [],
        "scratch": None,
        "used_by": [{"pid": user.pid, "command": "sleep", "does": "works in", "path": str(reading)}],
    }
    kept = {"path": str(scratch), "size": du(scratch)}
    assert about[str(writing)] == about[str(reading)] | {
        "mountpoint": str(writing),
        "writable": True,
        "lazy": [],
        "scratch": kept,
        "used_by": [],
    }

    mounts.unmount(writing)  # as a reboot does
    assert layerfs("status", writing, code=1).stdout.splitlines() == [
        f"{writing}: no overlay any more, but what one wrote: {human_size(du(scratch))} in {scratch}",
        f"  layerfs overlay --umount {writing} removes it, or layerfs gc",
    ]
    listed = json.loads(layerfs("status", "--json").stdout)
    found = [one for one in listed if (one["kind"], one["mountpoint"]) == ("scratch", str(writing))]
    assert found == [
        {"kind": "scratch", "mountpoint": str(writing), "state": "left", "scratch": kept, "used_by": []}
    ]
    layerfs("overlay", "--umount", writing)
    layerfs("rm", "one:1")
    shown = layerfs("status").stdout
    assert f"{reading}: overlay of an image that the store has no name of (read-only)\n" in shown
    assert str(writing) not in shown
    layerfs("overlay", "--umount", reading)


def test_another_directory_is_no_mount_of_ours(layerfs: CommandLine) -> None:
    assert "no layerfs mount" in layerfs("status", "/", code=1).stderr


def test_a_file_that_answers_is_read_and_one_that_does_not_is_left(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 300_000)
    assert read_within(os.fsencode(tmp_path / "large"), 30) == b"x" * 300_000
    with pytest.raises(FileNotFoundError):
        read_within(os.fsencode(tmp_path / "gone"), 30)
    os.mkfifo(tmp_path / "fifo")  # nobody ever writes to it
    with pytest.raises(TimeoutError):
        read_within(os.fsencode(tmp_path / "fifo"), 0.2)


def imported(layerfs: CommandLine, tmp_path: Path, name: str, built: BuiltImage) -> None:
    write_layout(tmp_path / name, built)
    layerfs("import", f"oci:{tmp_path / name}", f"{name}:1")


def du(*paths: Path) -> int:
    """Return what du(1) says."""
    said = subprocess.run(["du", "-scB1", *paths], capture_output=True, text=True, check=True).stdout
    return int(said.splitlines()[-1].split()[0])


def test_df_counts_what_is_shared_and_what_nothing_needs(layerfs: CommandLine, tmp_path: Path) -> None:
    other = image(BASE, layer(file("other", os.urandom(2000))))
    imported(layerfs, tmp_path, "one", BUILT)
    imported(layerfs, tmp_path, "two", other)
    leftover, resumable = (
        layerfs.store / "layers" / f"{digest.name}.{'0' * 32}.downloading"
        for digest in (Digest.of(b"nobody's"), BASE.digest)
    )
    for path in (leftover, resumable):
        path.write_bytes(b"12345")

    digests = [made.digest for made in (*BUILT.layers, other.layers[1])]
    trees = {digest: layerfs.store / f"extracted/{digest.name}" for digest in digests}
    blob_sizes = {digest: du(layerfs.store / f"layers/{digest.name}.tar.gz") for digest in digests}
    tree_sizes = {digest: du(tree, Path(f"{tree}.json")) for digest, tree in trees.items()}
    base, last = BASE.digest, other.layers[1].digest

    def row(sizes: dict[Digest, int], shared: int, reclaimable: int) -> dict[str, int]:
        total = sum(sizes.values())
        return {"count": 3, "size": total, "shared": shared, "in_use": 0, "reclaimable": reclaimable}

    found = json.loads(layerfs("df", "--json").stdout)
    assert found["blobs"] == row(blob_sizes, blob_sizes[base], 0)
    assert found["extracted"] == row(tree_sizes, tree_sizes[base], 0)
    assert found["leftovers"]["reclaimable"] == du(leftover)
    assert found["scratches"] == dict.fromkeys(("count", "size", "shared", "in_use", "reclaimable"), 0)
    assert [(one["reference"], one["extracted"]) for one in found["images"]] == [
        ("docker.io/library/one:1", sum(tree_sizes.values()) - tree_sizes[last]),
        ("docker.io/library/two:1", tree_sizes[base] + tree_sizes[last]),
    ]

    with ImageStorage(layerfs.store) as storage:
        assert storage.refs.remove(Repository.parse("two").with_tag("1"))
    found = json.loads(layerfs("df", "--json").stdout)
    assert found["blobs"] == row(blob_sizes, 0, blob_sizes[last])
    assert found["extracted"] == row(tree_sizes, 0, tree_sizes[last])
    table = layerfs("df", "-v").stdout.splitlines()
    assert table[0].split() == ["WHAT", "COUNT", "SIZE", "SHARED", "IN", "USE", "RECLAIMABLE"]
    assert table[-1].startswith("docker.io/library/one:1")


@pytest.mark.parametrize("width", [None, 80, 40])
def test_what_a_mount_says_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int | None
) -> None:
    name = "registry.example.org:5000/department/shop/web-frontend"
    working = Underway(
        repository=name, digest=str(BASE.digest), phase="downloading", received=1, size=4, since=0.0
    )
    failure = Failure(
        time=0.0,
        what=f"{name}:1.1",
        error="Denied",
        message="the registry refuses it to user 'alice' of a.json",
    )
    about = Status(
        version="1",
        pid=7,
        mountpoint="/images",
        store="/var/lib/layerfs",
        platform="linux/amd64",
        offline=True,
        waiting=2,
        fetching=(working,),
        errors=(failure,),
    )
    monkeypatch.setattr(output, "output_width", lambda: width)
    print_lines(Look("/images", (0, 1), "serving", status=about).lines())
    lines = capsys.readouterr().out.splitlines()
    if width is None:
        assert len(lines) == 5
        assert f"  downloading {name}@{BASE.digest}: 1 B of 4 B (25 %), " in lines[2]
    else:
        assert max(map(len, lines)) <= width
        text = " ".join(" ".join(lines).split())
        assert "refuses it to user 'alice' of a.json" in text
        assert advice("Denied") in text


def test_what_says_itself_what_to_do_gets_no_other_advice() -> None:
    assert (
        advice("Denied", "the mount may not contact a (it may contact none); mount with --registries a") == ""
    )
    assert advice("Denied", "found no credentials; log in: layerfs login a") == ""
    assert advice("Denied", "refused") == advice("Denied") != ""
