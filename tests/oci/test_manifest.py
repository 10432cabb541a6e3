"""Manifests, indexes and configs: what is read, what is refused, what is chosen."""

import json
import re
from base64 import b64encode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import DiffIdMismatch, InvalidDocument, LayerfsError, PlatformMissing, UnsupportedImage
from layerfs.oci import (
    Digest,
    HistoryEntry,
    Image,
    ImageConfig,
    Index,
    Manifest,
    Platform,
    RuntimeConfig,
    parse_manifest,
    stack_digest,
)
from layerfs.oci import mediatype as types
from layerfs.oci.config import MAX_HISTORY
from layerfs.oci.documents import MAX_VALUES
from layerfs.oci.manifest import MAX_LAYERS, MAX_MANIFESTS, parse_index
from tests.support.images import file, image, layer

Json = dict[str, Any]
A, B, C = (Digest.of(content) for content in (b"a", b"b", b"c"))
EMPTY_JSON = Digest.of(b"{}")


def entry(digest: Digest = A, size: int = 1, media_type: str = "", **more: Any) -> Json:
    return {"mediaType": media_type, "digest": str(digest), "size": size} | more


def manifest_json(**changes: Any) -> Json:
    made: Json = {
        "schemaVersion": 2,
        "mediaType": types.OCI_MANIFEST,
        "config": entry(C, 7, types.OCI_CONFIG),
        "layers": [entry(A, 1, "application/vnd.oci.image.layer.v1.tar+gzip"), entry(B, 2)],
    } | changes
    return {key: value for key, value in made.items() if value is not ...}


def index_json(*entries: Json, **changes: Any) -> Json:
    made: Json = {"schemaVersion": 2, "mediaType": types.OCI_INDEX, "manifests": list(entries)} | changes
    return {key: value for key, value in made.items() if value is not ...}


def read(document: Json | bytes, media_type: str = "") -> Manifest | Index:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return parse_manifest(raw, Digest.of(raw), media_type)


def read_manifest(**changes: Any) -> Manifest:
    found = read(manifest_json(**changes))
    assert isinstance(found, Manifest)
    return found


def read_index(*entries: Json, **changes: Any) -> Index:
    found = read(index_json(*entries, **changes))
    assert isinstance(found, Index)
    return found


# Manifests


def test_a_manifest_is_read_as_it_stands() -> None:
    raw = json.dumps(manifest_json(annotations={"a": "b"}, unknown=[1])).encode()
    found = parse_manifest(raw, Digest.of(raw), types.OCI_MANIFEST)
    assert isinstance(found, Manifest)
    assert (found.raw, found.digest, found.media_type) == (raw, Digest.of(raw), types.OCI_MANIFEST)
    assert (found.config.digest, found.config.size, found.is_image) == (C, 7, True)
    assert [(blob.digest, blob.size) for blob in found.layers] == [(A, 1), (B, 2)]


@pytest.mark.parametrize(
    ("announced", "written", "expected"),
    [
        (types.OCI_MANIFEST, ..., types.OCI_MANIFEST),
        (types.DOCKER_MANIFEST, ..., types.DOCKER_MANIFEST),
        ("", types.DOCKER_MANIFEST, types.DOCKER_MANIFEST),
        ("", ..., types.OCI_MANIFEST),
        ("text/plain", ..., types.OCI_MANIFEST),
        ("application/json", types.DOCKER_MANIFEST, types.DOCKER_MANIFEST),
        ("application/octet-stream", ..., types.OCI_MANIFEST),
    ],
)
def test_the_type_is_what_the_document_says_else_what_was_announced(
    announced: str, written: Any, expected: str
) -> None:
    assert read(manifest_json(mediaType=written), announced).media_type == expected


def test_nulls_and_missing_lists_are_empty() -> None:
    nothings: list[Any] = [..., None, []]
    for layers in nothings:
        assert read_manifest(layers=layers, annotations=None, subject=None).layers == ()


def test_a_descriptor_is_read_with_everything_it_may_hold() -> None:
    found = read_manifest(
        layers=[
            entry(
                EMPTY_JSON,
                2,
                types.OCI_CONFIG,
                data=b64encode(b"{}").decode(),
                urls=["https://h.example/x"],
                annotations={"k": "v"},
                artifactType="application/x",
                platform={"os": "linux", "architecture": "aarch64"},
            )
        ]
    ).layers[0]
    assert (found.data, found.urls, found.annotations) == (b"{}", ("https://h.example/x",), {"k": "v"})
    assert (found.artifact_type, found.platform) == ("application/x", Platform("linux", "arm64"))


def test_an_artifact_is_shown_but_is_no_image() -> None:
    found = read_manifest(config=entry(C, 2, "application/vnd.oci.empty.v1+json"), artifactType="x/y")
    assert not found.is_image
    with pytest.raises(UnsupportedImage, match=r"an artifact \(x/y\), not an image"):
        found.require_image()


GZIPPED = "application/vnd.docker.image.rootfs.diff.tar.gzip"


@pytest.mark.parametrize("media_type", ["application/octet-stream", "", None])
@pytest.mark.parametrize("manifest_type", [types.DOCKER_MANIFEST, types.OCI_MANIFEST])
def test_config_octet_stream(media_type: str | None, manifest_type: str) -> None:
    """Docker 1.10 and 1.11 wrote such images: python:3.5.1-alpine, old busybox."""
    config = entry(C, 2) | {"mediaType": media_type}
    layers = [entry(A, 1, GZIPPED), entry(B, 2)]
    found = read_manifest(config=config, layers=layers, mediaType=manifest_type)
    assert found.is_image
    found.require_image()
    assert not read_manifest(config=config, layers=layers, artifactType="x/y").is_image
    assert not read_manifest(config=config, layers=[entry(A, 1, "application/wasm")]).is_image


NO_ARCHIVES = [
    "application/vnd.dev.cosign.simplesigning.v1+json",
    "application/vnd.in-toto+json",
    "application/vnd.oci.image.layer.v1.tar+gzip+encrypted",
    "application/vnd.docker.image.rootfs.diff.tar.gzip+encrypted",
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.oci.image.layer.nydus.blob.v1",
    "application/vnd.oci.image.layer.v1.erofs",
    "application/vnd.example.starlark",
]


@pytest.mark.parametrize("media_type", NO_ARCHIVES)
def test_blobs_that_are_no_layers(media_type: str) -> None:
    """Signatures and attestations have the config of an image; encrypted layers stand among plain ones."""
    found = read_manifest(layers=[entry(A, 1, media_type)])
    assert not found.is_image
    with pytest.raises(UnsupportedImage, match=rf"an artifact \({re.escape(media_type)}\), not an image"):
        found.require_image()
    mixed = read_manifest(layers=[entry(A, 1, GZIPPED), entry(B, 1, media_type)])
    plain, other = Image.of(mixed, read_config()).layers
    plain.require_archive()
    with pytest.raises(UnsupportedImage, match=rf"layer 1 .*: {re.escape(media_type)} \(expected a tar"):
        other.require_archive()


@pytest.mark.parametrize(
    "media_type", [*sorted(types.LAYERS), "", "application/octet-stream", "application/x-tar"]
)
def test_what_may_be_an_archive_is_tried(media_type: str) -> None:
    assert types.is_archive(media_type)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"schemaVersion": 1, "fsLayers": []}, id="schema 1"),
        pytest.param(manifest_json(mediaType=types.DOCKER_SCHEMA1), id="schema 1 by type"),
    ],
)
def test_schema_1_is_refused_with_advice(document: Json) -> None:
    with pytest.raises(UnsupportedImage, match="push the image again"):
        read(document)


def test_schema_1_is_refused_by_its_announced_type() -> None:
    for media_type in types.SCHEMA1:
        with pytest.raises(UnsupportedImage, match="push the image again"):
            read(b"whatever", media_type)


BAD_DOCUMENTS: dict[str, Json | bytes] = {
    "nothing": b"",
    "no JSON": b"x",
    "a list": b"[]",
    "not UTF-8": b'{"schemaVersion": 2, \xff"mediaType": ""}',
    "deep nesting": b'{"a":' * 50_000,
    "trailing text": json.dumps(manifest_json()).encode() + b"{}",
    "more than 4 MiB": json.dumps(manifest_json(annotations={"a": "x" * (4 << 20)})).encode(),
    "no version": manifest_json(schemaVersion=...),
    "another version": manifest_json(schemaVersion=3),
    "a version as text": manifest_json(schemaVersion="2"),
    "no config": manifest_json(config=...),
    "a config that is a list": manifest_json(config=[]),
    "no digest": manifest_json(config={"mediaType": "", "size": 1}),
    "a digest that is none": manifest_json(config=entry() | {"digest": "sha256:../../etc/passwd"}),
    "no size": manifest_json(config={"mediaType": "", "digest": str(A)}),
    "a negative size": manifest_json(config=entry(size=-1)),
    "a size beyond 63 bits": manifest_json(config=entry(size=1 << 63)),
    "a size as text": manifest_json(config=entry() | {"size": "1"}),
    "a broken size": manifest_json(config=entry() | {"size": 1.5}),
    "data that is not base64": manifest_json(config=entry(data="!")),
    "layers that are no list": manifest_json(layers={}),
    "a layer that is null": manifest_json(layers=[None]),
    "too many layers": manifest_json(layers=[entry()] * (MAX_LAYERS + 1)),
    "too many manifests": index_json(*[entry()] * (MAX_MANIFESTS + 1)),
    "too many values": manifest_json(annotations={str(n): "" for n in range(MAX_VALUES)}),
    "too many values of no use": manifest_json(more=[[]] * MAX_VALUES),
    "both manifest and index": manifest_json(manifests=[]),
    "both, the type missing": manifest_json(manifests=[], mediaType=...),
    "an index with layers": index_json(layers=[]),
    "an index that calls itself a manifest": index_json(mediaType=types.OCI_MANIFEST),
    "a manifest that calls itself an index": manifest_json(mediaType=types.OCI_INDEX),
    "an index entry without a digest": index_json({"size": 1}),
}


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_document_that_breaks_its_schema_is_refused_and_named(name: str) -> None:
    with pytest.raises(InvalidDocument, match=r"^manifest sha256:"):
        read(BAD_DOCUMENTS[name])


@pytest.mark.parametrize(
    ("where", "document"),
    [
        ("config.digest", manifest_json(config=entry() | {"digest": "x"})),
        (r"layers\[1\].size", manifest_json(layers=[entry(), entry(size=-1)])),
        (r"manifests\[0\].digest", index_json(entry() | {"digest": "x"})),
        ("subject.data", manifest_json(subject=entry(data="!"))),
    ],
)
def test_the_error_names_the_field(where: str, document: Json) -> None:
    with pytest.raises(InvalidDocument, match=where):
        read(document)


@pytest.mark.parametrize(
    ("announced", "document"),
    [
        (types.OCI_INDEX, manifest_json()),
        (types.DOCKER_MANIFEST, manifest_json()),
        (types.OCI_MANIFEST, index_json()),
        (types.OCI_INDEX, manifest_json(mediaType=...)),
        (types.OCI_MANIFEST, index_json(mediaType=...)),
    ],
)
def test_a_document_must_be_what_was_announced(announced: str, document: Json) -> None:
    with pytest.raises(InvalidDocument):
        read(document, announced)


def test_an_unknown_type_is_unsupported() -> None:
    for media_type in ("application/vnd.oci.artifact.manifest.v1+json", "application/vnd.cncf.x"):
        with pytest.raises(UnsupportedImage, match="unknown media type"):
            read(manifest_json(mediaType=media_type))
        with pytest.raises(UnsupportedImage, match="unknown media type"):
            read(manifest_json(mediaType=...), media_type)


@given(st.binary(max_size=200), st.sampled_from(["", "text/plain", *types.ACCEPT_MANIFESTS]))
def test_any_bytes_are_read_or_refused(raw: bytes, media_type: str) -> None:
    try:
        parse_manifest(raw, Digest.of(raw), media_type)
    except LayerfsError:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_FIELDS = ["schemaVersion", "mediaType", "config", "layers", "manifests", "subject", "annotations"]


@given(st.dictionaries(st.sampled_from(_FIELDS), _JSON, max_size=3))
def test_any_value_in_any_field_is_read_or_refused(changes: Json) -> None:
    for document in (manifest_json(**changes), index_json(entry(), **changes)):
        try:
            read(document)
        except LayerfsError:
            continue


# Indexes


def of(platform: str, digest: Digest = A, **more: Any) -> Json:
    words = dict(zip(("os", "architecture", "variant"), platform.split("/"), strict=False))
    return entry(digest, platform=words, **more)


@pytest.mark.parametrize(
    ("wanted", "offered", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64", "linux/386"], 1),
        ("linux/amd64", ["linux/386", "linux/amd64"], 1),
        ("linux/amd64", ["linux/arm64", "linux/386"], 1),
        ("linux/amd64", ["windows/amd64", "linux/amd64"], 1),
        ("linux/amd64", ["linux/amd64/v3", "linux/amd64"], 1),
        ("linux/amd64/v3", ["linux/amd64", "linux/amd64/v2"], 1),
        ("linux/amd64", ["linux/x86_64"], 0),
        ("linux/amd64", ["linux/amd64", "linux/amd64"], 0),
        ("linux/arm64", ["linux/arm/v7", "linux/arm64/v8"], 1),
        ("linux/arm64", ["linux/arm/v6", "linux/arm/v7"], 1),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6", "linux/arm/v8"], 1),
        ("linux/arm/v7", ["linux/arm"], 0),
    ],
)
def test_the_best_of_the_platforms_that_can_run_is_chosen(
    wanted: str, offered: list[str], chosen: int
) -> None:
    digests = [Digest.of(bytes([number])) for number in range(len(offered))]
    index = read_index(*(of(text, digest) for text, digest in zip(offered, digests, strict=True)))
    assert index.choose(Platform.parse(wanted)).digest == digests[chosen]


def test_attestations_are_never_chosen() -> None:
    attestation = {"vnd.docker.reference.type": "attestation-manifest"}
    index = read_index(
        of("unknown/unknown", A),
        of("linux/amd64", B, annotations=attestation),
        entry(B, annotations=attestation),
        of("linux/amd64", C),
    )
    assert index.choose(Platform.parse("linux/amd64")).digest == C
    assert list(index.platforms()) == [Platform.parse("linux/amd64")]


def test_index_unknown_digest() -> None:
    """An entry for another platform may have a digest that only later readers know."""
    index = read_index(
        of("linux/s390x") | {"digest": "blake3:" + "a" * 64},
        of("linux/amd64", B),
        entry() | {"digest": "x:y"},
    )
    assert index.choose(Platform.parse("linux/amd64")).digest == B
    with pytest.raises(PlatformMissing, match=r"amd64, linux/s390x as 'blake3:a+', no platform as 'x:y'\)"):
        index.choose(Platform.parse("linux/s390x"))
    for broken in ("sha256:" + "A" * 64, "../x:y", "md5"):
        with pytest.raises(InvalidDocument, match=r"manifests\[0\]\.digest"):
            read_index(entry() | {"digest": broken})


@pytest.mark.parametrize(
    "flavour",
    [
        pytest.param({"platform": {"os.features": ["nydus.remoteimage.v1"]}}, id="nydus"),
        pytest.param({"annotations": {"containerd.io/snapshot/stargz/toc.digest": str(A)}}, id="stargz"),
        pytest.param(
            {"annotations": {"io.goharbor.artifact.v1alpha1.acceleration.driver.name": "estargz"}},
            id="harbor",
        ),
        pytest.param({"artifactType": "application/vnd.amazon.soci.index.v2+json"}, id="soci"),
    ],
)
def test_the_plain_one_beside_flavoured_entries_is_meant(flavour: Json) -> None:
    platform = {"os": "linux", "architecture": "amd64"}
    other = of("linux/amd64", A) | flavour | {"platform": platform | flavour.get("platform", {})}
    index = read_index(other, of("linux/amd64", B))
    assert index.choose(Platform.parse("linux/amd64")).digest == B


def test_a_flavoured_entry_is_taken_where_it_is_the_only_one() -> None:
    platform = {"os": "windows", "architecture": "amd64", "os.features": ["win32k"]}
    index = read_index(entry(A, platform=platform))
    assert index.choose(Platform.parse("windows/amd64")).digest == A


def test_an_entry_without_a_platform_comes_last() -> None:
    wanted = Platform.parse("linux/amd64")
    assert read_index(entry(A), of("linux/386", B)).choose(wanted).digest == B
    assert read_index(of("linux/s390x", B), entry(A)).choose(wanted).digest == A
    assert read_index(entry(A, platform={"architecture": "", "os": ""})).choose(wanted).digest == A


@pytest.mark.parametrize(
    ("entries", "have"),
    [
        ([of("linux/s390x"), of("linux/arm64/v8")], "linux/s390x, linux/arm64"),
        ([], "none"),
        ([of("unknown/unknown")], "none"),
    ],
)
def test_a_missing_platform_is_an_error_that_lists_what_there_is(entries: list[Json], have: str) -> None:
    with pytest.raises(
        PlatformMissing, match=rf"\(the index has: {have}\); choose one of them with --platform"
    ):
        read_index(*entries).choose(Platform.parse("linux/amd64"))


# Configs


def config_json(**changes: Any) -> Json:
    made: Json = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [str(A), str(B)]},
    } | changes
    return {key: value for key, value in made.items() if value is not ...}


def read_config(**changes: Any) -> ImageConfig:
    return ImageConfig.parse(json.dumps(config_json(**changes)).encode())


NULLS: dict[str, Json] = {
    "history": {
        "history": [{"created_by": None, "created": None, "comment": None, "empty_layer": None}, None]
    },
    "variant": {"variant": None},
    "os": {"os": None},
    "architecture": {"architecture": None},
    "labels": {"config": {"Labels": {"a": None}, "Env": ["A=1", None], "Cmd": [None], "User": None}},
    "type": {"rootfs": {"type": None, "diff_ids": [str(A)]}},
    "diff_ids": {"rootfs": {"type": "layers", "diff_ids": None}},
}


@pytest.mark.parametrize("name", NULLS)
def test_json_null_fields(name: str) -> None:
    """Readers in Go take null for what is not set."""
    read_config(**NULLS[name])


def test_null_and_missing_are_the_same() -> None:
    none, missing = read_config(os=None, architecture=None), read_config(os=..., architecture=...)
    assert none.platform == missing.platform == Platform("unknown", "unknown")
    assert read_config(config={"Env": ["A=1", None], "Labels": {"a": None}}).runtime == RuntimeConfig(
        env=("A=1", ""), labels={"a": ""}
    )
    assert read_config(history=[None]).history == (HistoryEntry("", None, "", False),)
    nulls = dict.fromkeys(("mediaType", "urls", "annotations", "data", "platform", "artifactType"))
    found = read_manifest(config=entry(C) | nulls, layers=[entry() | {"annotations": {"note": None}}])
    assert (found.config.media_type, found.config.urls, found.config.platform) == ("", (), None)
    assert found.layers[0].annotations == {"note": ""}
    index = read_index(entry(A, platform={"os": "linux", "architecture": "arm", "variant": None}))
    assert list(index.platforms()) == [Platform("linux", "arm", "v7")]


def test_a_config_is_read_as_it_stands() -> None:
    found = read_config(
        variant="v2",
        created="2024-01-01T00:00:00Z",
        history=[{"created_by": "RUN x", "created": "2024"}, {"created_by": "ENV y", "empty_layer": True}],
        config={
            "User": "u",
            "Env": ["A=b"],
            "Entrypoint": ["/e"],
            "Cmd": ["c"],
            "WorkingDir": "/w",
            "ExposedPorts": {"80/tcp": {}},
            "Volumes": {"/v": {}},
            "Labels": {"l": "m"},
            "StopSignal": "TERM",
            "Healthcheck": {"Test": []},
        },
    )
    assert (found.platform, found.diff_ids, found.created) == (
        Platform("linux", "amd64", "v2"),
        (A, B),
        "2024-01-01T00:00:00Z",
    )
    assert found.history == (
        HistoryEntry("RUN x", "2024", "", empty_layer=False),
        HistoryEntry("ENV y", None, "", empty_layer=True),
    )
    assert found.runtime == RuntimeConfig(
        "u", ("A=b",), ("/e",), ("c",), "/w", ("80/tcp",), ("/v",), {"l": "m"}, "TERM"
    )


def test_all_of_a_config_that_may_be_missing_may_be_null() -> None:
    nulls = {"User": None, "Env": None, "Entrypoint": None, "Cmd": None, "Volumes": None, "Labels": None}
    assert read_config(config=nulls, history=None, created=None).runtime == RuntimeConfig()
    assert read_config(config=None).runtime == read_config().runtime == RuntimeConfig()
    assert read_config(rootfs={"type": "layers", "diff_ids": None}).diff_ids == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"os": 7},
        {"architecture": []},
        {"rootfs": ...},
        {"rootfs": None},
        {"rootfs": {"type": "layers+base", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["x"]}},
        {"rootfs": {"type": "layers", "diff_ids": [7]}},
        {"history": {}},
        {"config": []},
    ],
)
def test_a_config_that_breaks_its_schema_is_refused(changes: Json) -> None:
    with pytest.raises(InvalidDocument, match=r"^config: "):
        read_config(**changes)


# Images


def an_image(*layers: Digest, diff_ids: int | None = None, history: list[Json] | None = None) -> Image:
    count = len(layers) if diff_ids is None else diff_ids
    rootfs = {"type": "layers", "diff_ids": [str(Digest.of(bytes([number]))) for number in range(count)]}
    return Image.of(
        read_manifest(layers=[entry(digest) for digest in layers]),
        read_config(rootfs=rootfs, history=history),
    )


def test_layers_are_paired_with_their_diff_ids_base_first() -> None:
    found = an_image(A, B).layers
    assert [(part.number, part.descriptor.digest, part.diff_id) for part in found] == [
        (0, A, Digest.of(b"\0")),
        (1, B, Digest.of(b"\1")),
    ]


def test_a_layer_has_the_digest_and_the_size_of_its_blob() -> None:
    [found] = an_image(A).layers
    assert (found.digest, found.size) == (A, 1)


def test_a_layer_that_is_not_what_the_config_claims_is_refused() -> None:
    layer = an_image(A, B).layers[1]
    layer.require((str(Digest.of(b"\1")),))
    with pytest.raises(DiffIdMismatch, match=rf"layer 1 \({B}\): .* {C} \(expected {layer.diff_id}, as"):
        layer.require((str(C),))


def test_manifest_and_config_must_agree_on_the_number_of_layers() -> None:
    with pytest.raises(InvalidDocument, match=r"2 layers, but its config .* has 1 rootfs\.diff_ids"):
        an_image(A, B, diff_ids=1)


def test_a_diff_id_is_of_sha256_or_of_the_algorithm_of_its_blob() -> None:
    """No image has a word in how a layer that it shares with others is judged."""
    by_sha512 = Digest.parse("sha512:" + "a" * 128)
    config = read_config(rootfs={"type": "layers", "diff_ids": [str(by_sha512)]})

    same = Image.of(read_manifest(layers=[entry(by_sha512)]), config)
    assert same.layers[0].diff_id == by_sha512
    with pytest.raises(
        UnsupportedImage, match=rf"rootfs\.diff_ids: {by_sha512} \(expected sha256, or .* {A}\)"
    ):
        Image.of(read_manifest(layers=[entry(A)]), config)


def test_an_image_may_have_no_layers() -> None:
    assert an_image().layers == ()
    assert an_image().lower_order() == []


def test_a_repeated_layer_stands_once_at_its_topmost_place() -> None:
    assert an_image(A, B, A, C).lower_order() == [C, A, B]
    assert an_image(A, A, A).lower_order() == [A]


@given(st.lists(st.sampled_from([A, B, C]), max_size=5), st.lists(st.sampled_from([A, B, C]), max_size=5))
def test_a_stack_is_named_by_its_layers_and_their_order(one: list[Digest], other: list[Digest]) -> None:
    assert (stack_digest(one) == stack_digest(other)) == (one == other)
    assert an_image(*one).stack == stack_digest(one)


def test_commands_belong_to_layers_only_if_their_numbers_agree() -> None:
    made: list[Json] = [{"created_by": "a"}, {"created_by": "env", "empty_layer": True}, {"created_by": "b"}]
    commands = [command and command.created_by for command in an_image(A, B, history=made).commands()]
    assert commands == ["a", "b"]
    assert an_image(A, B, C, history=made).commands() == [None] * 3


def test_a_built_image_is_read_as_it_was_built() -> None:
    """The builder of the tests and the reader agree."""
    for style in ("oci", "docker"):
        built = image(layer(file("a")), layer(file("b"), compression="zstd"), style=style)
        manifest = parse_manifest(built.manifest, built.digest, built.media_type)
        assert isinstance(manifest, Manifest)
        found = Image.of(manifest, ImageConfig.parse(built.config))
        assert [part.diff_id for part in found.layers] == [part.diff_id for part in built.layers]
        assert [command and command.created_by for command in found.commands()] == ["COPY . /"] * 2


@pytest.mark.parametrize(
    ("media_type", "compression", "foreign"),
    [
        ("application/vnd.oci.image.layer.v1.tar", "none", False),
        ("application/vnd.oci.image.layer.v1.tar+gzip", "gzip", False),
        ("application/vnd.oci.image.layer.v1.tar+zstd", "zstd", False),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", "gzip", True),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", "gzip", False),
        ("application/vnd.docker.image.rootfs.diff.tar", "none", False),
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "gzip", True),
    ],
)
def test_media_types_of_layers_are_known(media_type: str, compression: str, foreign: bool) -> None:
    assert media_type in types.LAYERS
    assert types.compression_of(media_type) == compression
    assert types.is_foreign(media_type) is foreign


def test_a_history_without_end_is_refused() -> None:
    config = {"rootfs": {"type": "layers", "diff_ids": []}, "history": [{}] * (MAX_HISTORY + 1)}
    with pytest.raises(InvalidDocument, match=f"at most {MAX_HISTORY}"):
        ImageConfig.parse(json.dumps(config).encode())


@pytest.mark.parametrize("media_type", [types.OCI_INDEX, types.DOCKER_INDEX, "", "application/x-own-index"])
def test_an_index_of_a_layout_may_call_itself_any_index(media_type: str) -> None:
    raw = json.dumps(index_json(entry(A, 1, types.OCI_MANIFEST), mediaType=media_type)).encode()
    found = parse_index(raw, "index.json")

    assert (found.digest, found.media_type) == (Digest.of(raw), media_type or types.OCI_INDEX)
    assert [each.digest for each in found.manifests] == [A]


def test_a_manifest_is_no_index_of_a_layout() -> None:
    with pytest.raises(
        InvalidDocument, match=r"^index\.json: calls itself .*manifest.* \(expected an index\)"
    ):
        parse_index(json.dumps(manifest_json()).encode(), "index.json")
