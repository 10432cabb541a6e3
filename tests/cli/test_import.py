"""`layerfs import`: what skopeo, podman and docker write comes into the store, verified, rightly named."""

import gzip
import io
import json
import os
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from layerfs.oci import Digest, Manifest, Platform
from layerfs.oci.mediatype import OCI_CONFIG, OCI_MANIFEST
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support import images
from tests.support.images import directory, file, image, layer, write_layout

BASE = layer(directory("etc"), file("etc/motd", b"hello\n"), command="ADD base")
TOP = layer(file("etc/top", os.urandom(3000)), command="COPY top")
BUILT = image(BASE, TOP)


def copied(tmp_path: Path, target: str, *options: str, built: images.Built = BUILT) -> str:
    """Let skopeo write *built* to *target*, whose path is below *tmp_path*; return the source's name."""
    layout = tmp_path / "from-skopeo"
    if not layout.exists():
        write_layout(layout, built, "v1")
    transport, _, rest = target.partition(":")
    target = f"{transport}:{tmp_path}/{rest}"
    subprocess.run(["skopeo", "copy", "-q", *options, f"oci:{layout}:v1", target], check=True)
    return target


@pytest.mark.parametrize(
    ("written", "source", "reference"),
    [
        pytest.param("oci:lay:v1", "oci:{}/lay:v1", "localhost/lay:v1", id="layout, by tag"),
        pytest.param("oci:lay", "oci:{}/lay", "localhost/lay:latest", id="layout, without any name"),
        pytest.param(
            "oci:lay:quay.io/a/b:2", "oci:{}/lay", "quay.io/a/b:2", id="layout, with the full name it carries"
        ),
        pytest.param("oci:lay:quay.io/a/b:2", "oci:{}/lay:2", "quay.io/a/b:2", id="layout, by the tag of it"),
        pytest.param(
            "oci-archive:My_App.tar:v1", "oci-archive:{}/My_App.tar", "localhost/my-app:v1", id="archive"
        ),
        pytest.param(
            "docker-archive:d.tar:a/b:1", "docker-archive:{}/d.tar", "docker.io/a/b:1", id="docker archive"
        ),
        pytest.param(
            "docker-archive:d.tar", "docker-archive:{}/d.tar", "localhost/d:latest", id="docker, no name"
        ),
        pytest.param("dir:d", "dir:{}/d", "localhost/d:latest", id="skopeo's directory"),
    ],
)
def test_what_skopeo_wrote_is_imported_under_the_name_it_carries(
    layerfs: CommandLine, tmp_path: Path, written: str, source: str, reference: str
) -> None:
    copied(tmp_path, written)
    assert layerfs("import", source.format(tmp_path)).stdout == f"{reference}\n"
    storage = ImageStorage(layerfs.store)
    [(found, entry)] = storage.refs.all()
    assert str(found) == reference
    manifest = storage.load_manifest(entry.digest)
    assert isinstance(manifest, Manifest)
    base, top = [storage.open_layer(blob.digest) for blob in manifest.layers]
    assert base is not None
    assert top is not None
    assert (base.path / "etc/motd").read_bytes() == b"hello\n"
    assert (top.path / "etc/top").exists()


def test_the_reference_may_be_chosen(layerfs: CommandLine, tmp_path: Path) -> None:
    source = copied(tmp_path, "oci:lay:v1")
    assert layerfs("import", source, "foo/bar:7").stdout == "docker.io/foo/bar:7\n"


def test_an_import_and_a_layout_have_one_digest(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", BUILT)
    found = json.loads(layerfs("import", "--json", f"oci:{tmp_path}/lay").stdout)
    assert found[0]["digest"] == str(BUILT.digest)


def test_the_manifest_made_for_a_docker_archive_is_always_the_same(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    source = copied(tmp_path, "docker-archive:d.tar:a/b:1")
    first = json.loads(layerfs("import", "--json", source, "x:1").stdout)
    second = json.loads(layerfs("import", "--json", source, "x:2").stdout)
    assert first[0]["digest"] == second[0]["digest"]
    manifest = json.loads(layerfs("inspect", "--raw", "x:1").stdout)
    assert [entry["digest"] for entry in manifest["layers"]] == [str(BASE.diff_id), str(TOP.diff_id)]


def test_podman_saves_what_can_be_imported(layerfs: CommandLine, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "lay", BUILT, "v1")
    with tempfile.TemporaryDirectory(prefix="p") as run:  # podman refuses a longer path
        podman = ["podman", "--root", str(tmp_path / "root"), "--runroot", run, "--storage-driver", "vfs"]
        pull = [*podman, "pull", "-q", f"oci:{layout}:v1"]
        name = subprocess.run(pull, check=True, capture_output=True, text=True).stdout.strip()
        for form in ("docker-archive", "oci-archive"):
            archive = tmp_path / f"{form}.tar"
            save = [*podman, "save", "-q", "--format", form, "-o", str(archive), name]
            subprocess.run(save, check=True, capture_output=True)
            assert layerfs("import", f"{form}:{archive}").stdout == f"localhost/{form}:latest\n"


def docker_save(path: Path, *built: images.BuiltImage, names: list[str], compressed: bool = False) -> None:
    """Write what ``docker save`` wrote before version 25: layers by directory, repeated ones as links."""
    with tarfile.open(path, "w") as archive:
        entries = []
        known: dict[str, str] = {}
        for number, one in enumerate(built):
            config = f"{one.config_digest.hex}.json"
            _add(archive, config, one.config)
            places = []
            for position, made in enumerate(one.layers):
                place = f"{number}{position}{'0' * 62}/layer.tar"
                if str(made.diff_id) in known:
                    info = tarfile.TarInfo(place)
                    info.type, info.linkname = tarfile.SYMTYPE, f"../{known[str(made.diff_id)]}"
                    archive.addfile(info)
                else:
                    plain = images.tar([]) if not made.blob else _plain(made)
                    _add(archive, place, images.compress(plain, "gzip") if compressed else plain)
                    known[str(made.diff_id)] = place
                places.append(place)
            entries.append({"Config": config, "RepoTags": [names[number]], "Layers": places})
        _add(archive, "manifest.json", json.dumps(entries).encode())


def _plain(made: images.BuiltLayer) -> bytes:
    return gzip.decompress(made.blob)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def test_an_old_docker_archive_of_several_images_with_links(layerfs: CommandLine, tmp_path: Path) -> None:
    other = image(BASE, layer(file("other")), BASE)
    docker_save(tmp_path / "d.tar", BUILT, other, names=["one:1", "two:2"])
    source = f"docker-archive:{tmp_path}/d.tar"
    refusal = layerfs("import", source, code=2).stderr
    assert "holds 2 images" in refusal
    assert "one:1, two:2" in refusal
    assert layerfs("import", f"{source}:two:2").stdout == "docker.io/library/two:2\n"
    assert layerfs("import", f"{source}:@0", "a:1").stdout == "docker.io/library/a:1\n"
    assert layerfs("import", "--all", source).stdout.split() == [
        "docker.io/library/one:1",
        "docker.io/library/two:2",
    ]


def test_compressed_layers_in_a_docker_archive_keep_their_bytes(layerfs: CommandLine, tmp_path: Path) -> None:
    docker_save(tmp_path / "d.tar", BUILT, names=["one:1"], compressed=True)
    layerfs("import", f"docker-archive:{tmp_path}/d.tar")
    manifest = json.loads(layerfs("inspect", "--raw", "one:1").stdout)
    assert [entry["digest"] for entry in manifest["layers"]] == [str(BASE.digest), str(TOP.digest)]
    assert manifest["layers"][0]["mediaType"].endswith("tar+gzip")


def test_an_archive_of_docker_25_is_read_as_the_layout_that_it_is(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "lay", BUILT, "3.20")
    index = json.loads((layout / "index.json").read_text())
    index["manifests"][0]["annotations"]["io.containerd.image.name"] = "docker.io/library/alpine:3.20"
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "manifest.json").write_text("[]")
    with tarfile.open(tmp_path / "d.tar", "w") as archive:
        archive.add(layout, arcname=".")
    done = layerfs("import", "--json", f"docker-archive:{tmp_path}/d.tar:alpine:3.20")
    assert json.loads(done.stdout)[0]["reference"] == "docker.io/library/alpine:3.20"
    assert json.loads(done.stdout)[0]["digest"] == str(BUILT.digest)


def test_the_platform_of_an_index_is_chosen(layerfs: CommandLine, tmp_path: Path) -> None:
    arm = image(layer(file("arm")), platform=Platform.parse("linux/arm64"))
    amd = image(layer(file("amd")), platform=Platform.parse("linux/amd64"))
    write_layout(tmp_path / "lay", images.index(amd, arm))
    layerfs("import", "--platform", "linux/arm64", f"oci:{tmp_path}/lay", "x:1")
    found = json.loads(layerfs("inspect", "--platform", "linux/arm64", "x:1").stdout)
    assert found["platform"] == "linux/arm64"


def test_layers_are_linked_not_copied_unless_told_or_somebody_else_may_write_them(
    layerfs: CommandLine, tmp_path: Path
) -> None:
    write_layout(tmp_path / "lay", BUILT)
    blobs = tmp_path / "lay/blobs/sha256"
    (blobs / TOP.digest.hex).chmod(0o666)
    layerfs("import", f"oci:{tmp_path}/lay")

    def is_linked(digest: Digest) -> bool:
        mine = layerfs.store / f"layers/{digest.name}.tar.gz"
        assert mine.read_bytes() == (blobs / digest.hex).read_bytes()
        return os.path.samefile(mine, blobs / digest.hex)

    shares_extents = _can_reflink(tmp_path)
    assert is_linked(BASE.digest) or shares_extents
    assert not is_linked(TOP.digest)

    other = CommandLine(tmp_path, layerfs.server)
    other("import", "--copy", f"oci:{tmp_path}/lay")
    assert not os.path.samefile(tmp_path / f"store/layers/{BASE.digest.name}.tar.gz", blobs / BASE.digest.hex)


def _can_reflink(directory: Path) -> bool:
    (directory / "probe").write_bytes(b"x" * 4096)
    made = ["cp", "--reflink=always", str(directory / "probe"), str(directory / "probe2")]
    return subprocess.run(made, capture_output=True).returncode == 0


@pytest.mark.parametrize(
    ("part", "option"),
    [
        pytest.param(0, None, id="base layer, linked"),
        pytest.param(0, "--copy", id="base layer, copied"),
        pytest.param(1, "--copy", id="top layer"),
        pytest.param(2, None, id="config"),
        pytest.param(3, None, id="manifest"),
    ],
)
def test_each_blob_is_verified_and_a_refused_image_gets_no_name(
    layerfs: CommandLine, tmp_path: Path, part: int, option: str | None
) -> None:
    digest = [BASE.digest, TOP.digest, BUILT.config_digest, BUILT.digest][part]
    path = write_layout(tmp_path / "lay", BUILT) / "blobs/sha256" / digest.hex
    path.write_bytes(images.flip_byte(path.read_bytes()))
    layerfs("import", *([option] if option else []), f"oci:{tmp_path}/lay", code=6)
    assert layerfs("images", "-q").stdout == ""
    assert not (layerfs.store / f"layers/{digest.name}.tar.gz").exists()
    assert not list((layerfs.store / "layers").glob("*.downloading"))
    assert path.exists()


@pytest.mark.parametrize("cut", [1, 600])
def test_a_blob_that_was_cut_off_is_refused(layerfs: CommandLine, tmp_path: Path, cut: int) -> None:
    path = write_layout(tmp_path / "lay", BUILT) / "blobs/sha256" / TOP.digest.hex
    path.write_bytes(path.read_bytes()[:-cut])
    assert "expected" in layerfs("import", f"oci:{tmp_path}/lay", code=6).stderr


def test_a_config_that_claims_other_layers_is_refused(layerfs: CommandLine, tmp_path: Path) -> None:
    liar = image(BASE, TOP, diff_ids=[BASE.diff_id, BASE.diff_id])
    write_layout(tmp_path / "lay", liar)
    layerfs("import", f"oci:{tmp_path}/lay", code=6)


SIGNATURE = "application/vnd.dev.cosign.simplesigning.v1+json"


def with_signature(path: Path) -> Path:
    """Write a layout whose first entry is a signature as cosign stores it: with the config of an image."""
    write_layout(path, BUILT, "v1")
    blobs = path / "blobs/sha256"
    payload, config = b'{"critical": {}}', BUILT.config
    manifest = images.to_json(
        {
            "schemaVersion": 2,
            "config": {"mediaType": OCI_CONFIG, "digest": str(Digest.of(config)), "size": len(config)},
            "layers": [{"mediaType": SIGNATURE, "digest": str(Digest.of(payload)), "size": len(payload)}],
        }
    )
    for content in (payload, manifest):
        (blobs / Digest.of(content).hex).write_bytes(content)
    index = json.loads((path / "index.json").read_text())
    entry = {"mediaType": OCI_MANIFEST, "digest": str(Digest.of(manifest)), "size": len(manifest)}
    entry["annotations"] = {"org.opencontainers.image.ref.name": "sig"}
    index["manifests"].insert(0, entry)
    (path / "index.json").write_text(json.dumps(index))
    return path


def test_all_goes_on_behind_an_artifact(layerfs: CommandLine, tmp_path: Path) -> None:
    source = f"oci:{with_signature(tmp_path / 'lay')}"
    done = layerfs("import", "--all", source)
    assert done.stdout == "localhost/lay:v1\n"
    assert "localhost/lay:sig: left out: " in done.stderr
    assert f"an artifact ({SIGNATURE}), not an image" in done.stderr
    assert SIGNATURE in layerfs("import", f"{source}:sig", code=1).stderr
    assert layerfs("images", "-q").stdout == "localhost/lay:v1\n"


def test_an_image_for_another_platform_alone_is_told(layerfs: CommandLine, tmp_path: Path) -> None:
    foreign = image(BASE, platform=Platform.parse("linux/s390x"))
    source = f"oci:{write_layout(tmp_path / 'lay', foreign)}"
    refusal = layerfs("import", "--platform", "linux/arm64", source, "x:1", code=3).stderr
    assert "no image for linux/arm64 (it has: linux/s390x)" in refusal
    told = layerfs("import", source, "x:1").stderr
    assert f"an image for linux/s390x alone (this is {Platform.of_this_machine()})" in told
    assert layerfs("import", "--platform", "linux/s390x", source, "x:1").stderr == ""


def test_an_index_without_the_platform_gets_the_hint(layerfs: CommandLine, tmp_path: Path) -> None:
    foreign = images.index(image(BASE, platform=Platform.parse("linux/s390x")))
    source = f"oci:{write_layout(tmp_path / 'lay', foreign)}"
    refusal = layerfs("import", "--platform", "linux/arm64", source, code=3).stderr
    assert "(the index has: linux/s390x); choose one of them with --platform" in refusal


def write_sha512_layout(path: Path, diff_id: str = "sha512", layer_digest: str = "sha512") -> Path:
    """Write a layout of a compressed and a plain layer, in which every digest is of the algorithm named."""
    for algorithm in ("sha256", "sha512"):
        (path / "blobs" / algorithm).mkdir(parents=True)

    def blob(content: bytes, algorithm: str = "sha512") -> dict[str, object]:
        digest = Digest.of(content, algorithm)
        (path / "blobs" / algorithm / digest.hex).write_bytes(content)
        return {"digest": str(digest), "size": len(content)}

    plain = [gzip.decompress(BASE.blob), images.tar([file("plain", b"text")])]
    diff_ids = [str(Digest.of(archive, diff_id)) for archive in plain]
    rootfs = {"type": "layers", "diff_ids": diff_ids}
    manifest = {
        "schemaVersion": 2,
        "config": blob(images.to_json({"os": "linux", "architecture": "amd64", "rootfs": rootfs})),
        "layers": [blob(BASE.blob, layer_digest), blob(plain[1], layer_digest)],
    }
    index = {"schemaVersion": 2, "manifests": [blob(images.to_json(manifest))]}
    (path / "index.json").write_bytes(images.to_json(index))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return path


@pytest.mark.parametrize("diff_id", ["sha512", "sha256"])
def test_an_image_wholly_in_sha512(layerfs: CommandLine, tmp_path: Path, diff_id: str) -> None:
    source = f"oci:{write_sha512_layout(tmp_path / 'lay', diff_id)}"
    layerfs("import", source, "x:1")
    layerfs("import", source, "x:2")  # what was recorded of the layers is the proof now
    listed = layerfs("lowerdir", "--format", "lines", "x:1").stdout.split()
    assert sorted(name for path in listed for name in os.listdir(path)) == ["etc", "plain"]


def test_a_diff_id_of_a_third_algorithm_is_refused(layerfs: CommandLine, tmp_path: Path) -> None:
    path = write_sha512_layout(tmp_path / "lay", layer_digest="sha256")
    refusal = layerfs("import", f"oci:{path}", code=1).stderr
    assert "expected sha256, or the algorithm of the layer" in refusal


@pytest.mark.parametrize(
    ("source", "code", "complaint"),
    [
        pytest.param("oci:gone", 3, "no such directory", id="no directory"),
        pytest.param("oci:lay:nope", 3, "it holds v1", id="no such tag"),
        pytest.param("docker-archive:zipped", 1, "no member 'manifest.json'", id="another archive"),
        pytest.param("alpine:3.20", 2, "oci:PATH", id="an image of a registry"),
        pytest.param("docker://alpine:3.20", 2, "layerfs pull", id="an image of a registry, as skopeo says"),
        pytest.param("oci:lay x@sha256:1", 2, "not a supported digest", id="no reference"),
        pytest.param(f"oci:lay x@{BUILT.digest}", 2, "a name with a tag", id="a digest as reference"),
    ],
)
def test_what_cannot_be_imported_is_refused_with_the_reason(
    layerfs: CommandLine, source: str, code: int, complaint: str
) -> None:
    home = layerfs.home
    (home / "zipped").write_bytes(images.compress(images.tar([]), "gzip"))
    write_layout(home / "lay", BUILT, "v1")
    assert complaint in layerfs("import", *source.split(" "), code=code).stderr
