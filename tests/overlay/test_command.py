"""``layerfs overlay`` and ``layerfs lowerdir``: an image of any number of layers, without a daemon."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from layerfs.errors import StoreError
from layerfs.host.libc import syscall
from tests.overlay.scene import ROOT, Place, Scene, command, numbered, snapshot
from tests.support import canary, clients, images, mounts

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

TREE = [
    images.layer(
        images.directory(".", mode=0o750, uid=7, gid=8, mtime=5),
        images.directory("d"),
        images.file("d/x", b"x"),
        images.file("gone"),
    ),
    images.layer(images.whiteout("gone"), images.file("d/y", b"y")),
]


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    with mounts.mountpoint(tmp_path / "target") as path:
        yield path


def scratches(scene: Scene) -> list[str]:
    directory = scene.store / "overlays"
    return os.listdir(directory) if directory.exists() else []


def df(scene: Scene) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(command("df", "--json", "--store", scene.store).stdout)
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 40, 127])
def test_an_image_of_any_number_of_layers_is_mounted(scene: Scene, target: Path, count: int) -> None:
    place = scene.place(f"any-{count}", *numbered(count))

    scene.overlay(str(place.reference), target)

    expected = {f"file-{number}" for number in range(int(count > 1), count)} | ({"top"} if count else set())
    assert set(os.listdir(target)) == expected
    if count:
        assert (target / "top").read_bytes() == b"%d" % (count - 1)
    with pytest.raises(OSError, match="Read-only"):
        (target / "new").touch()
    mount = mounts.mount_at(target)
    assert mount is not None
    assert (mount.filesystem, mount.source) == ("overlay", b"layerfs")
    scene.overlay("--umount", target)
    assert mounts.mount_at(target) is None
    assert scratches(scene) == []


def test_it_shows_what_rootfs_shows_the_root_directory_included(scene: Scene, target: Path) -> None:
    place = scene.place("shown", *TREE)
    clients.names(place.path / "rootfs/d")  # a root has its own attributes once it is fetched
    rootfs = canary.snapshot((place.path / "rootfs").resolve())
    for options in ([], ["--rw"]):
        scene.overlay(str(place.reference), target, *options)
        canary.assert_same(rootfs, snapshot(target), ignore_overlay_xattrs=True)
        scene.overlay("--umount", target)


def test_rw_writes_into_a_scratch_that_umount_removes(scene: Scene, target: Path) -> None:
    place = scene.place("scratch", *TREE)
    scene.overlay(str(place.reference), target, "--rw")
    (target / "d/x").write_bytes(b"changed")
    shutil.rmtree(target / "d")
    (target / "new").write_bytes(b"new")
    assert len(scratches(scene)) == 1
    counted = df(scene)["scratches"]
    assert (counted["count"], counted["reclaimable"]) == (1, 0)
    assert counted["size"] >= 8192, "two files at least, in blocks"
    assert df(scene)["covers"]["size"] > 0

    scene.overlay("--umount", target)

    assert scratches(scene) == []
    assert df(scene)["scratches"]["size"] == 0
    assert os.listdir(target) == []
    scene.overlay(str(place.reference), target)
    assert sorted(os.listdir(target / "d")) == ["x", "y"]
    assert (target / "d/x").read_bytes() == b"x"


def test_a_scratch_goes_with_umount_even_if_somebody_else_unmounted(scene: Scene, target: Path) -> None:
    place = scene.place("forgotten", *TREE)
    scene.overlay(str(place.reference), target, "--rw")
    mounts.unmount(target)
    assert len(scratches(scene)) == 1

    scene.overlay("--umount", target)

    assert scratches(scene) == []
    assert "nothing is mounted" in scene.overlay("--umount", target, check=False).stderr


def test_a_scratch_that_another_namespace_uses_stays(scene: Scene, target: Path) -> None:
    place = scene.place("elsewhere", *TREE)
    scene.overlay(str(place.reference), target, "--rw")
    with subprocess.Popen(
        ["unshare", "-m", "sh", "-c", "echo ready; read end"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"

        done = scene.overlay("--umount", target, check=False)

        assert done.returncode == 1
        assert f"in use by mount {target}, seen by process {other.pid}, maybe in another" in done.stderr
        assert len(scratches(scene)) == 1
        other.communicate(b"\n")
    scene.overlay("--umount", target)
    assert scratches(scene) == []


def test_an_overlay_is_not_mounted_over_another(scene: Scene, target: Path) -> None:
    place = scene.place("again", *TREE)
    scene.overlay(str(place.reference), target, "--rw")

    done = scene.overlay(str(place.reference), target, "--rw", check=False)

    assert done.returncode == 1
    assert f"{target}: an overlay is there already (layerfs overlay --umount {target})" in done.stderr
    assert len(scratches(scene)) == 1
    scene.overlay("--umount", target)
    assert scratches(scene) == []


def test_an_upper_directory_of_ones_own_is_kept(scene: Scene, target: Path, tmp_path: Path) -> None:
    place = scene.place("own", *TREE)
    upper, work = tmp_path / "up,per", tmp_path / "wo:rk"
    upper.mkdir()
    work.mkdir()
    scene.overlay(str(place.reference), target, "--upper", upper, "--work", work)
    (target / "new").write_bytes(b"new")

    scene.overlay("--umount", target)

    assert (upper / "new").read_bytes() == b"new"
    assert scratches(scene) == []


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        pytest.param(["{image}"], 2, "expected REFERENCE DIR", id="no directory"),
        pytest.param(["{image}", "/nowhere"], 1, "not a directory", id="a missing directory"),
        pytest.param(["{image}", "{target}", "--upper", "/tmp"], 2, "--work", id="upper without work"),
        pytest.param(
            ["{image}", "{target}", "--rw", "--upper", "/tmp", "--work", "/tmp"], 2, "--rw", id="two uppers"
        ),
        pytest.param(
            ["{image}", "{target}", "--upper", "/nowhere", "--work", "/tmp"],
            1,
            "/nowhere",
            id="missing upper",
        ),
        pytest.param(["--umount", "{image}", "{target}"], 2, "--umount", id="umount of an image"),
        pytest.param(["--umount", "/proc"], 1, "not one of layerfs overlay", id="umount of another's"),
        pytest.param(["--umount", "{target}"], 1, "nothing is mounted", id="umount of nothing"),
        pytest.param(["Not a name", "{target}"], 2, "Not a name", id="no reference"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(
    scene: Scene, target: Path, arguments: list[str], code: int, complaint: str
) -> None:
    place = scene.place("refused", *TREE)
    filled = [word.format(image=place.reference, target=target) for word in arguments]

    done = scene.overlay(*filled, check=False)

    assert done.returncode == code, done.stderr
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr
    assert mounts.mount_at(target) is None
    assert scratches(scene) == []


def test_umount_says_what_is_in_use_and_lazy_detaches_it(scene: Scene, target: Path) -> None:
    place = scene.place("busy", *TREE)
    scene.overlay(str(place.reference), target, "--rw")
    with (target / "busy").open("w"):
        done = scene.overlay("--umount", target, check=False)
        assert "in use" in done.stderr
        assert len(scratches(scene)) == 1

        said = scene.overlay("--umount", "--detach", target).stderr

        assert mounts.mount_at(target) is None
        assert "stays in the store for the processes in it" in said
        assert len(scratches(scene)) == 1
    scene.overlay("--umount", target)
    assert scratches(scene) == []


# lowerdir


def test_lowerdir_prints_one_text_in_three_forms(scene: Scene) -> None:
    place = scene.place("forms", *numbered(3))
    printed = {
        form: scene.lowerdir(str(place.reference), "--format", form).stdout.rstrip("\n")
        for form in ("option", "lines", "json")
    }

    lines = printed["lines"].split("\n")
    assert printed["option"] == "lowerdir=" + ":".join(lines)
    assert json.loads(printed["json"]) == lines
    assert len(lines) == 4
    assert [os.path.realpath(path) for path in place.lowerdirs()] == lines


def test_no_fetch_prints_the_same_and_fetches_nothing(scene: Scene) -> None:
    layers = [images.layer(images.file(f"no-fetch-{number}")) for number in range(2)]
    place = scene.place("no-fetch", *layers)
    name = str(place.reference)
    assert scene.lowerdir(name, "--no-fetch", check=False).returncode == 5
    place.lowerdirs()  # now the manifest is here
    os.readlink(place.path)
    since = scene.registry.mark()

    before = scene.lowerdir(name, "--no-fetch").stdout

    assert scene.registry.requests(since) == []
    assert not any(scene.storage.open_layer(layer.digest) for layer in layers)
    assert scene.lowerdir(name).stdout == before
    assert all(scene.storage.open_layer(layer.digest) for layer in layers)


@pytest.mark.allow_warnings
def test_where_layers_lack_their_overlay_form_both_verbs_say_what_to_do(
    scene: Scene, target: Path, tmp_path: Path
) -> None:
    place = scene.place("no-form", *TREE)
    store = tmp_path / "store"
    with mounts.ramfs(store):
        for words in (["lowerdir", str(place.reference)], ["overlay", str(place.reference), str(target)]):
            done = command(words[0], "--store", store, *words[1:], check=False)
            assert done.returncode == 1
            assert "use the lowerdir of a mount" in done.stderr


# mount(8) of util-linux 2.39 and later

_FSOPEN, _FSCONFIG, _FSMOUNT, _MOVE_MOUNT = 430, 431, 432, 429
_SET_STRING, _CREATE = 1, 6


def like_a_new_mount(options: list[str], target: Path) -> None:
    """Mount an overlay as libmount 2.39 does: fsopen(2), and each option a string. Raises OSError."""
    context = syscall("fsopen", _FSOPEN, b"overlay", 1)
    try:
        for option in options:
            name, _, value = option.partition("=")
            syscall("fsconfig", _FSCONFIG, context, _SET_STRING, name.encode(), value.encode(), 0)
        syscall("fsconfig", _FSCONFIG, context, _CREATE, None, None, 0)
        mount = syscall("fsmount", _FSMOUNT, context, 1, 0)
    finally:
        os.close(context)
    try:
        syscall("move_mount", _MOVE_MOUNT, mount, b"", -100, os.fsencode(target), 4)
    finally:
        os.close(mount)


@pytest.fixture
def long_place(scene: Scene) -> Place:
    """An image whose option is longer than the 255 bytes of one string."""
    place = scene.place("strings", *numbered(12))
    assert len(place.lowerdir()) > 256
    return place


def test_a_new_mount_refuses_the_option_and_takes_a_word_for_each_directory(
    long_place: Place, target: Path
) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        like_a_new_mount([long_place.lowerdir()], target)

    like_a_new_mount([f"lowerdir+={path}" for path in long_place.lowerdirs()], target)

    assert (target / "top").read_bytes() == b"11"
    assert len(os.listdir(target)) == 12


def test_this_machines_mount_takes_the_option_with_the_words_of_the_readme(
    long_place: Place, target: Path
) -> None:
    environment = os.environ | {"LIBMOUNT_FORCE_MOUNT2": "always"}
    words = ["mount", "-t", "overlay", "overlay", "-o", long_place.lowerdir(), str(target)]
    subprocess.run(words, env=environment, check=True)

    assert (target / "top").read_bytes() == b"11"


def test_overlay_knows_no_such_limit(scene: Scene, long_place: Place, target: Path) -> None:
    scene.overlay(str(long_place.reference), target)

    assert (target / "top").read_bytes() == b"11"
    mount = mounts.mount_at(target)
    assert mount is not None
    assert mount.super_options.count("lowerdir+=") == 13
    with pytest.raises(StoreError, match="in use"):
        scene.storage.remove_layer(long_place.built.layers[0].digest)


def test_the_root_of_the_image_needs_no_entry(scene: Scene, target: Path) -> None:
    place = scene.place("rootless", images.layer(ROOT), images.layer(images.file("a")))
    scene.overlay(str(place.reference), target, "--rw")
    assert target.stat().st_mtime == images.TIME
