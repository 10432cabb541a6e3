"""Local sources: names, what each format holds, and what hostile ones must not do."""

import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import (
    BudgetExceeded,
    Denied,
    ImageError,
    InvalidArchive,
    InvalidDocument,
    InvalidReference,
    LayerfsError,
    NotFound,
    PathEscape,
    PlatformMissing,
    UnsupportedImage,
    UsageError,
)
from layerfs.local import SourceImage, SourceName, archive, by_name, choose, open_source
from layerfs.local.pieces import FilePart
from layerfs.oci import Digest, ImageReference, Platform
from layerfs.oci.mediatype import DOCKER_INDEX, OCI_INDEX, OCI_MANIFEST
from tests.support import images
from tests.support.images import file, image, layer, write_layout

LAYER = layer(file("a", b"content"))
BUILT = image(LAYER)
HERE = Platform.parse("linux/amd64")
PLAIN = gzip.decompress(LAYER.blob)


def name(text: str) -> SourceName:
    return SourceName.parse(text)


@pytest.mark.parametrize(
    ("text", "path", "wanted"),
    [
        ("oci:/a", "/a", ""),
        ("oci:/a:1.2", "/a", "1.2"),
        ("oci:/a:docker.io/b/c:1.2", "/a", "docker.io/b/c:1.2"),
        ("docker-archive:/a.tar:@2", "/a.tar", "@2"),
        ("dir:/a:b", "/a:b", ""),
    ],
)
def test_the_path_ends_at_the_first_colon(text: str, path: str, wanted: str) -> None:
    assert (str(name(text).path), name(text).image) == (path, wanted)
    assert SourceName.parse(str(name(text))) == name(text)


@pytest.mark.parametrize("text", ["", "alpine", "docker://alpine", "oci", "oci:", "OCI:/a", "tar:/a", "dir:"])
def test_what_is_no_local_source_is_refused(text: str) -> None:
    with pytest.raises(InvalidReference):
        name(text)


@pytest.mark.parametrize(
    ("path", "names", "reference"),
    [
        ("/x/alpine", (), "localhost/alpine:latest"),
        ("/x/alpine", ("3.20",), "localhost/alpine:3.20"),
        ("/x/My App!.oci.tar.gz", ("v1",), "localhost/my-app:v1"),
        ("/x/...", ("not a tag",), "localhost/image:latest"),
        ("/x/" + "n" * 250, (), f"localhost/{'n' * 200}:latest"),
        ("/x/a", ("1", "quay.io/b/c:2"), "quay.io/b/c:2"),
        ("/x/a", ("b:2",), "docker.io/library/b:2"),
        ("/x/a", ("b/c",), "docker.io/b/c:latest"),
        ("/x/a", ("quay.io/b/../c:2",), "localhost/a:latest"),
    ],
)
def test_an_image_gets_its_full_name_or_one_of_the_source(
    path: str, names: tuple[str, ...], reference: str
) -> None:
    source = SourceName("oci", Path(path), "")
    assert str(SourceImage(BUILT.digest, names).tag(source)) == reference


@given(st.text(max_size=300), st.lists(st.text(max_size=10), max_size=3))
def test_whatever_a_source_is_called_the_made_up_name_is_legal(stem: str, names: list[str]) -> None:
    source = SourceName("oci", Path("/", stem.replace("/", "").replace("\0", "") or "x"), "")
    tag = SourceImage(BUILT.digest, tuple(names)).tag(source)
    assert ImageReference.parse(str(tag)).tag == tag


def test_an_image_is_chosen_exactly_or_by_reference_or_by_tag() -> None:
    found = [SourceImage(Digest.of(text.encode()), (text,)) for text in ("1", "b:1", "quay.io/c/d:1")]
    source = "oci:/a"
    assert choose(found, name(f"{source}:1"), HERE) is found[0]
    assert choose(found, name(f"{source}:docker.io/library/b:1"), HERE) is found[1]
    assert choose(found[1:], name(f"{source}:1"), HERE) is found[1]
    assert choose(found, name(f"{source}:@2"), HERE) is found[2]
    with pytest.raises(NotFound, match=r"it holds 1, b:1, quay\.io/c/d:1"):
        choose(found, name(f"{source}:2"), HERE)
    with pytest.raises(UsageError, match=r"holds 3 images.* with 1, b:1, quay"):
        choose(found, name(source), HERE)
    with pytest.raises(NotFound, match="holds no image"):
        choose([], name(source), HERE)


def test_unnamed_images_are_offered_and_can_be_had_all() -> None:
    found = [SourceImage(Digest.of(text.encode()), (text,) if text else ()) for text in ("", "b:1", "")]
    found[2] = SourceImage(BUILT.digest, ())
    with pytest.raises(UsageError, match=r"holds 3 images; choose one: oci:/a:NAME with @0, b:1, @2"):
        choose(found, name("oci:/a"), HERE)
    assert choose(found, name("oci:/a:@2"), HERE) is found[2]
    assert {str(tag): image for tag, image in by_name(found, name("oci:/a"), HERE).items()} == {
        "localhost/a:latest": found[0],
        "docker.io/library/b:1": found[1],
        "localhost/a:image-2": found[2],
    }


def for_platform(text: str, *names: str) -> SourceImage:
    return SourceImage(Digest.of(text.encode()), names, Platform.parse(text))


@pytest.mark.parametrize("names", [(), ("v1",), ("quay.io/a/b:v1",)])
def test_of_images_that_differ_in_their_platform_the_wanted_one_is_meant(names: tuple[str, ...]) -> None:
    """Some tools write a layout for several platforms without an index inside."""
    found = [for_platform(text, *names) for text in ("linux/s390x", "linux/amd64", "linux/arm64")]
    for source in ["oci:/a", *(f"oci:/a:{one}" for one in names)]:
        assert choose(found, name(source), HERE) is found[1]
        assert choose(found, name(source), Platform.parse("linux/s390x")) is found[0]
        with pytest.raises(
            PlatformMissing,
            match=r"no image for linux/riscv64 \(it has: .*\); choose one of them with --platform",
        ):
            choose(found, name(source), Platform.parse("linux/riscv64"))
    assert list(by_name(found, name("oci:/a"), HERE).values()) == [found[1]]


def test_an_artifact_is_not_among_the_images_to_choose_from() -> None:
    found = [SourceImage(BUILT.digest, ("1",)), SourceImage(Digest.of(b"x"), ("2",), artifact_type="x/y")]
    assert choose(found, name("oci:/a"), HERE) is found[0]
    assert choose(found, name("oci:/a:2"), HERE) is found[1]


def test_names_in_errors_hold_no_escape_sequences() -> None:
    found = [SourceImage(BUILT.digest, ("\x1b[2Jevil",)), SourceImage(BUILT.digest, ())]
    with pytest.raises(UsageError) as caught:
        choose(found, name("oci:/a"), HERE)
    assert "\x1b" not in str(caught.value)


# Refusals, by format


def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "lay", BUILT, "v1")


def replaced_by_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def rewritten(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        pytest.param(lambda p: (p / "oci-layout").unlink(), InvalidDocument, "no oci-layout", id="no marker"),
        pytest.param(lambda p: (p / "index.json").unlink(), InvalidDocument, "no index.json", id="no index"),
        pytest.param(
            lambda p: (p / "oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}'),
            UnsupportedImage,
            "2.0.0",
            id="another version",
        ),
        pytest.param(
            lambda p: (p / "oci-layout").write_text("{"), InvalidDocument, "oci-layout", id="no JSON"
        ),
        pytest.param(
            lambda p: (p / "oci-layout").write_bytes(b" " * 5000),
            InvalidArchive,
            "at most 4096",
            id="huge marker",
        ),
        pytest.param(
            lambda p: (p / "index.json").write_bytes(b" " * (5 << 20)),
            InvalidArchive,
            "at most",
            id="huge index",
        ),
        pytest.param(
            lambda p: (p / "index.json").write_bytes(BUILT.manifest),
            InvalidDocument,
            "index.json",
            id="a manifest as index",
        ),
        pytest.param(
            lambda p: (p / "index.json").write_text("[" * 100_000),
            InvalidDocument,
            "index.json",
            id="a deep document",
        ),
        pytest.param(
            lambda p: replaced_by_fifo(p / "index.json"),
            InvalidArchive,
            "not a regular file",
            id="a FIFO",
        ),
        pytest.param(
            lambda p: [(p / "index.json").unlink(), (p / "index.json").symlink_to("/dev/zero")],
            InvalidArchive,
            "not a regular file",
            id="an endless device",
        ),
        pytest.param(
            lambda p: [(p / "index.json").unlink(), (p / "index.json").symlink_to("index.json")],
            InvalidArchive,
            "symbolic links",
            id="a link to itself",
        ),
    ],
)
def test_a_broken_layout_is_refused(
    tmp_path: Path, change: Callable[[Path], object], error: type[LayerfsError], text: str
) -> None:
    path = layout(tmp_path)
    change(path)
    with pytest.raises(error, match=text):
        open_source(name(f"oci:{path}"))


def test_other_things_in_an_index_mean_nothing(tmp_path: Path) -> None:
    path = layout(tmp_path)
    other = {"mediaType": "application/x", "digest": str(LAYER.digest), "size": 1}
    rewritten(path / "index.json", lambda document: document["manifests"].append(other))  # type: ignore[attr-defined]  # a list
    assert [found.digest for found in open_source(name(f"oci:{path}")).images] == [BUILT.digest]


def test_an_index_of_a_layout_may_call_itself_a_docker_list(tmp_path: Path) -> None:
    path = layout(tmp_path)
    rewritten(path / "index.json", lambda document: document.update(mediaType=DOCKER_INDEX))
    assert [found.digest for found in open_source(name(f"oci:{path}")).images] == [BUILT.digest]
    rewritten(path / "index.json", lambda document: document.update(mediaType=OCI_MANIFEST))
    with pytest.raises(InvalidDocument, match=r"index\.json: calls itself"):
        open_source(name(f"oci:{path}"))


def test_a_blob_may_be_missing(tmp_path: Path) -> None:
    path = layout(tmp_path)
    (path / "blobs/sha256" / LAYER.digest.hex).unlink()
    assert open_source(name(f"oci:{path}")).find(LAYER.digest) is None


# Archives


def tar_of(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as out:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                out.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                out.addfile(info, io.BytesIO(member[1]))
    return path


def link(at: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(at)
    info.type, info.linkname = kind, target
    return info


def save(
    *members: tuple[str, bytes] | tarfile.TarInfo, layers: list[str] | None = None, config: str = "c.json"
) -> list[tuple[str, bytes] | tarfile.TarInfo]:
    listed = [{"Config": config, "RepoTags": ["a:1"], "Layers": ["l.tar"] if layers is None else layers}]
    return [("c.json", BUILT.config), *members, ("manifest.json", json.dumps(listed).encode())]


def test_links_are_followed_within_the_archive_only(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    path = tar_of(
        tmp_path / "a.tar",
        ("x/real", b"12345"),
        link("y/soft", "../x/real"),
        link("hard", "x/real", tarfile.LNKTYPE),
        link("chain", "y/soft"),
        link("out", "../../outside"),
        link("absolute", str(tmp_path / "outside")),
        link("loop", "loop"),
    )
    found = archive.Archive(path)
    for at in ("x/real", "y/soft", "hard", "chain"):
        piece = found.find(at)
        assert piece is not None
        assert piece.read(10) == b"12345"
    assert found.find("out") is None
    assert found.find("absolute") is None
    assert found.find("outside") is None
    with pytest.raises(InvalidArchive, match="too many links"):
        found.find("loop")


@pytest.mark.parametrize(
    ("members", "error", "text"),
    [
        pytest.param([("a", b"")], InvalidDocument, "no member 'manifest.json'", id="another tar"),
        pytest.param(save(), InvalidDocument, "no member 'l.tar'", id="a layer is missing"),
        pytest.param(save(layers=[]), InvalidDocument, "0 layers", id="too few layers"),
        pytest.param(save(layers=["l.tar"] * 9), InvalidDocument, "9 layers", id="too many layers"),
        pytest.param(save(config="/etc/passwd"), InvalidDocument, "no member", id="a config outside"),
        pytest.param(save(config="../../../etc/passwd"), InvalidDocument, "no member", id="a config above"),
        pytest.param(
            save(("l.tar", b""), config="l.tar"), InvalidDocument, "l.tar", id="a config that is none"
        ),
        pytest.param([("manifest.json", b"{}")], InvalidDocument, "manifest.json", id="a list that is none"),
        pytest.param([("manifest.json", b"[" * 10_000)], InvalidDocument, "manifest.json", id="a deep list"),
        pytest.param([("manifest.json", b" " * (2 << 20))], InvalidArchive, "at most", id="a huge list"),
        pytest.param([("../manifest.json", b"[]")], PathEscape, r"\.\.", id="a name that leads out"),
        pytest.param([("a/" * 40 + "b", b"")], BudgetExceeded, "components", id="a deep name"),
    ],
)
def test_a_broken_docker_archive_is_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], error: type[LayerfsError], text: str
) -> None:
    path = tar_of(tmp_path / "a.tar", *members)
    with pytest.raises(error, match=text):
        open_source(name(f"docker-archive:{path}"))


def saved_by_id(names: object = None, **index: object) -> list[tuple[str, bytes]]:
    """Return what ``docker save ID`` of Docker 25 and later writes: an empty layout, and the list."""
    listed = [{"Config": "blobs/sha256/c", "RepoTags": names, "Layers": ["blobs/sha256/l"]}]
    return [
        ("blobs/sha256/c", BUILT.config),
        ("blobs/sha256/l", PLAIN),
        ("index.json", json.dumps({"schemaVersion": 2, "manifests": None} | index).encode()),
        ("manifest.json", json.dumps(listed).encode()),
        ("oci-layout", b'{"imageLayoutVersion": "1.0.0"}'),
    ]


@pytest.mark.parametrize("index", [{"mediaType": OCI_INDEX}, {}, {"mediaType": None, "manifests": []}])
@pytest.mark.parametrize("transport", ["docker-archive", "oci-archive"])
def test_docker25_save_by_id(tmp_path: Path, transport: str, index: dict[str, object]) -> None:
    contents = open_source(name(f"{transport}:{tar_of(tmp_path / 'a.tar', *saved_by_id(**index))}"))
    assert [found.names for found in contents.images] == [()]
    piece = contents.find(LAYER.diff_id)
    assert isinstance(piece, FilePart)
    assert piece.read(1 << 20) == PLAIN


def test_keys_of_manifest_json_have_any_case(tmp_path: Path) -> None:
    """Old jib writes repoTags; Docker reads JSON in Go, which does not mind."""
    listed = [{"config": "c.json", "repoTags": ["a:1", None], "LAYERS": ["l.tar"], "Parent": None}]
    members = [("c.json", BUILT.config), ("l.tar", PLAIN), ("manifest.json", json.dumps(listed).encode())]
    contents = open_source(name(f"docker-archive:{tar_of(tmp_path / 'a.tar', *members)}"))
    assert [found.names for found in contents.images] == [("a:1",)]


def test_only_so_many_members_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_MEMBERS", 10)
    path = tar_of(tmp_path / "a.tar", *((f"{n}", b"") for n in range(11)))
    with pytest.raises(BudgetExceeded, match="more than 10 members"):
        archive.Archive(path)


@pytest.mark.parametrize("end", [1, 511, 512, 700, 1024])
def test_an_archive_that_was_cut_off_is_refused(tmp_path: Path, end: int) -> None:
    path = tar_of(tmp_path / "a.tar", ("a", b"x" * 3000))
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(InvalidArchive, match=r"a\.tar"):
        archive.Archive(path)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "bzip2", "xz"])
def test_an_archive_may_be_compressed_as_a_whole(
    tmp_path: Path, compression: images.Compression, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    path = tar_of(tmp_path / "a.tar", *save(("l.tar", PLAIN)))
    path.write_bytes(images.compress(path.read_bytes(), compression))
    contents = open_source(name(f"docker-archive:{path}"))
    piece = contents.find(LAYER.diff_id)
    assert isinstance(piece, FilePart)
    assert piece.read(1 << 20) == PLAIN
    assert os.listdir(tmp_path) == ["a.tar"]


@pytest.mark.parametrize("compression", ["gzip", "zstd", "bzip2", "xz"])
def test_a_layer_in_an_archive_may_be_compressed_in_any_way(
    tmp_path: Path, compression: images.Compression
) -> None:
    blob = images.compress(PLAIN, compression)
    contents = open_source(name(f"docker-archive:{tar_of(tmp_path / 'a.tar', *save(('l.tar', blob)))}"))

    piece = contents.find(Digest.of(blob))

    assert isinstance(piece, FilePart)
    assert piece.read(1 << 20) == blob


def test_a_sparse_member_is_refused(tmp_path: Path) -> None:
    info = tarfile.TarInfo("GNUSparseFile.0/x")
    keys = {"major": "0", "minor": "1", "size": "4096", "name": "x", "numblocks": "0", "map": ""}
    info.pax_headers = {f"GNU.sparse.{key}": value for key, value in keys.items()}
    with pytest.raises(ImageError):
        archive.Archive(tar_of(tmp_path / "a.tar", info))


@given(data=st.data())
def test_no_damage_to_an_archive_leads_to_anything_but_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tar_of(tmp_path_factory.mktemp("fuzz") / "a.tar", *save(("l.tar", PLAIN)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        contents = open_source(name(f"docker-archive:{path}"))
    except LayerfsError:
        return
    for found in contents.images:
        piece = contents.find(found.digest)
        if isinstance(piece, FilePart):
            assert piece.path == path
            assert piece.offset + piece.size <= len(content)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        pytest.param("oci:gone", NotFound, "no such directory", id="no directory"),
        pytest.param("oci:file", InvalidArchive, "oci-archive:", id="a file for a directory"),
        pytest.param("dir:empty", InvalidDocument, "no manifest.json", id="not skopeo's directory"),
        pytest.param("docker-archive:gone", NotFound, "No such file", id="no archive"),
        pytest.param("docker-archive:file", InvalidArchive, "cut off", id="no tar at all"),
        pytest.param(
            "docker-archive:empty", InvalidArchive, "not a regular file", id="a directory for a file"
        ),
        pytest.param("docker-archive:zipped", InvalidDocument, "no member", id="another tar, compressed"),
        pytest.param("docker-archive:damaged", InvalidArchive, "damaged", id="gzip that was cut off"),
        pytest.param("docker-archive:bomb", BudgetExceeded, "max_ratio", id="a bomb"),
        pytest.param("dir:new", UnsupportedImage, "'version' is unknown", id="a directory of the future"),
    ],
)
def test_what_is_no_source_is_refused_with_the_reason(
    tmp_path: Path, text: str, error: type[LayerfsError], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new/version").write_text("Directory Transport Version: 2.0\n")
    (tmp_path / "file").write_bytes(b"text")
    (tmp_path / "zipped").write_bytes(images.compress(PLAIN, "gzip"))
    (tmp_path / "damaged").write_bytes(images.compress(PLAIN, "gzip")[:-20])
    if text.endswith("bomb"):
        (tmp_path / "bomb").write_bytes(images.compress(bytes(70 << 20), "bzip2"))
    transport, _, rest = text.partition(":")
    with pytest.raises(error, match=message):
        open_source(name(f"{transport}:{tmp_path}/{rest}"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_denied(tmp_path: Path) -> None:
    path = layout(tmp_path)
    (path / "index.json").chmod(0)
    with pytest.raises(Denied, match="Permission denied"):
        open_source(name(f"oci:{path}"))
