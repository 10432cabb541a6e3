"""`layerfs save`: bit for bit what the registry has, for skopeo, podman and `layerfs import`."""

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from layerfs.errors import InvalidArchive
from layerfs.extract.inflating import inflated
from layerfs.oci import Platform
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support.images import directory, file, flip_byte, image, index, layer
from tests.support.registry import Registry

BUILT = image(
    layer(directory("etc"), file("etc/motd", b"hello\n"), compression="gzip"),
    layer(file("etc/zstd", os.urandom(3000)), compression="zstd"),
    layer(file("plain", b"1"), compression="none"),
)
FOREIGN = image(layer(file("s390x", b"z")), platform=Platform.parse("linux/s390x"))


@pytest.fixture
def pulled(layerfs: CommandLine, registry: Registry) -> str:
    """The reference of an image that the store has."""
    reference = str(registry.push("save/one", "1", BUILT))
    layerfs("pull", "-q", reference)
    return reference


def skopeo_digest(source: str) -> str:
    found = subprocess.run(["skopeo", "inspect", "--raw", source], check=True, capture_output=True)
    return f"sha256:{hashlib.sha256(found.stdout).hexdigest()}"


@pytest.mark.parametrize(("form", "source"), [("oci-archive", "oci-archive:{}"), ("oci-dir", "oci:{}")])
def test_the_oci_forms_have_all_digests_of_the_registry(
    layerfs: CommandLine, pulled: str, tmp_path: Path, form: str, source: str
) -> None:
    saved = tmp_path / "saved"
    layerfs("save", "--offline", "--format", form, "-o", saved, pulled)

    assert skopeo_digest(source.format(saved)) == str(BUILT.digest)
    copied = tmp_path / "copied"
    subprocess.run(["skopeo", "copy", "-q", source.format(f"{saved}:1"), f"dir:{copied}"], check=True)
    assert {each.hex for each in BUILT.blobs()} <= {path.name for path in copied.iterdir()}
    again = CommandLine(tmp_path, layerfs.server)
    assert again("import", source.format(saved)).stdout == f"{pulled}\n"
    assert json.loads(again("images", "--json").stdout)[0]["digest"] == str(BUILT.digest)


def test_the_same_image_gives_the_same_archive_also_on_standard_output(
    layerfs: CommandLine, pulled: str, tmp_path: Path
) -> None:
    layerfs("save", pulled, "-o", tmp_path / "1.tar")
    (tmp_path / "2.tar").write_bytes(
        subprocess.run(
            ["layerfs", "save", pulled], env=layerfs.environment, check=True, capture_output=True
        ).stdout
    )
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()


@pytest.mark.parametrize("extracted", [True, False])
def test_a_docker_archive_has_plain_layers_named_by_their_diff_ids(
    layerfs: CommandLine, registry: Registry, tmp_path: Path, extracted: bool
) -> None:
    reference = str(registry.push("save/docker", "1", BUILT))
    if extracted:
        layerfs("pull", "-q", reference)
    path = tmp_path / "d.tar"
    layerfs("save", "--format", "docker-archive", "-o", path, reference)

    with tarfile.open(path) as archive:
        [entry] = json.load(archive.extractfile("manifest.json"))  # type: ignore[arg-type]
        assert entry["RepoTags"] == [reference]
        assert entry["Layers"] == [f"{one.diff_id.hex}.tar" for one in BUILT.layers]
        for one, name in zip(BUILT.layers, entry["Layers"], strict=True):
            content = archive.extractfile(name).read()  # type: ignore[union-attr]
            assert hashlib.sha256(content).hexdigest() == one.diff_id.hex
        assert archive.extractfile(entry["Config"]).read() == BUILT.config  # type: ignore[union-attr]
    copied = tmp_path / "copied"
    subprocess.run(["skopeo", "copy", "-q", f"docker-archive:{path}", f"oci:{copied}"], check=True)
    layerfs("import", f"docker-archive:{path}", "localhost/again:1")


def test_podman_loads_what_is_saved(layerfs: CommandLine, pulled: str, tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="p") as run:  # podman refuses a longer path
        podman = ["podman", "--root", str(tmp_path / "root"), "--runroot", run, "--storage-driver", "vfs"]
        for form in ("docker-archive", "oci-archive"):
            path = tmp_path / f"{form}.tar"
            layerfs("save", "--format", form, "-o", path, pulled)
            subprocess.run([*podman, "load", "-q", "-i", str(path)], check=True, capture_output=True)
            shown = [*podman, "image", "inspect", "--format", "{{.Id}}", pulled]
            found = subprocess.run(shown, check=True, capture_output=True, text=True).stdout.strip()
            assert found == BUILT.config_digest.hex


def test_all_platforms_are_saved_with_their_index(
    layerfs: CommandLine, registry: Registry, tmp_path: Path
) -> None:
    both = index(BUILT, FOREIGN)
    reference = str(registry.push("save/index", "1", both))
    layerfs("pull", "-q", reference)

    said = layerfs("save", "--all-platforms", reference, "-o", tmp_path / "all.tar").stderr
    assert f"{reference}: fetching 1 of 4 blobs" in said
    assert skopeo_digest(f"oci-archive:{tmp_path}/all.tar") == str(both.digest)
    layerfs("save", "--platform", "linux/s390x", reference, "-o", tmp_path / "one.tar")
    assert skopeo_digest(f"oci-archive:{tmp_path}/one.tar") == str(FOREIGN.digest)
    layerfs("save", "--all-platforms", "--format", "docker-archive", reference, "-o", "x", code=2)


def test_blobs_that_are_gone_are_fetched_again_and_that_is_said(
    layerfs: CommandLine, pulled: str, tmp_path: Path
) -> None:
    with ImageStorage(layerfs.store) as storage:
        storage.discard_blob(BUILT.layers[0].digest)
    assert "without --offline" in layerfs("save", "--offline", pulled, "-o", tmp_path / "x", code=5).stderr
    assert not (tmp_path / "x").exists()
    said = layerfs("save", pulled, "-o", tmp_path / "x").stderr
    assert "fetching 1 of 3 blobs" in said
    assert "(1 of them are in the store as directories alone)" in said
    assert skopeo_digest(f"oci-archive:{tmp_path}/x") == str(BUILT.digest)


@pytest.mark.parametrize("form", ["oci-archive", "oci-dir", "docker-archive"])
def test_a_damaged_store_is_said_and_leaves_nothing(
    layerfs: CommandLine, pulled: str, tmp_path: Path, form: str
) -> None:
    plain = BUILT.layers[2]
    with ImageStorage(layerfs.store) as storage:
        blob = storage.open_blob(plain.digest)
        assert blob is not None
        blob.path.chmod(0o600)
        blob.path.write_bytes(flip_byte(plain.blob))
    target = tmp_path / "out"
    target.mkdir()
    said = layerfs("save", "--format", form, pulled, "-o", target / "x", code=1).stderr
    assert f"layerfs verify --repair {pulled}" in said
    assert list(target.iterdir()) == []


@pytest.mark.parametrize("is_extracted", [True, False])
def test_an_image_that_lies_about_its_layers_is_not_the_fault_of_the_store(
    layerfs: CommandLine, registry: Registry, tmp_path: Path, is_extracted: bool
) -> None:
    plain = layer(file("a", b"a"))
    honest = str(registry.push("save/honest", str(is_extracted), image(plain)))
    lying = str(
        registry.push("save/lying", str(is_extracted), image(plain, diff_ids=[BUILT.layers[0].diff_id]))
    )
    if is_extracted:
        layerfs("pull", "-q", honest)
    layerfs("save", "--format", "oci-archive", "-o", tmp_path / "oci", lying)
    with ImageStorage(layerfs.store) as storage:
        assert (storage.open_layer(plain.digest) is not None) == is_extracted

    said = layerfs("save", "--format", "docker-archive", "-o", tmp_path / "x", lying, code=6).stderr

    assert f"uncompressed digest is {plain.diff_id} (expected {BUILT.layers[0].diff_id}" in said
    assert "repair" not in said
    assert not (tmp_path / "x").exists()


def test_a_directory_that_is_not_empty_is_left_alone(
    layerfs: CommandLine, pulled: str, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").touch()
    said = layerfs("save", "--format", "oci-dir", "-o", tmp_path / "mine", pulled, code=2).stderr
    assert "expected a new or an empty directory" in said
    assert "say -o DIR" in layerfs("save", "--format", "oci-dir", pulled, code=2).stderr
    assert "no directory /nope" in layerfs("save", pulled, "-o", "/nope/x", code=2).stderr


def test_a_damaged_stream_is_the_fault_of_its_bytes(tmp_path: Path) -> None:
    whole = BUILT.layers[0].blob
    (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
    with (
        pytest.raises(InvalidArchive, match=r"^layer x: gzip"),
        inflated(tmp_path / "cut", "layer x") as chunks,
    ):
        assert sum(map(len, chunks)) < 0


@pytest.mark.parametrize("form", ["oci-archive", "docker-archive"])
def test_a_save_that_nobody_reads_ends_by_a_signal(
    layerfs: CommandLine, registry: Registry, form: str
) -> None:
    large = image(layer(file("a", os.urandom(3_000_000))))
    reference = str(registry.push("save/large", "1", large))
    layerfs("pull", "-q", reference)
    with subprocess.Popen(
        ["layerfs", "save", "--format", form, reference], env=layerfs.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.read(1)
        process.terminate()
        assert process.wait(60) == 143
