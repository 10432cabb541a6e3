"""Whatever a document holds: what people may be shown of it is printable."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.errors import LayerfsError, PlatformMissing
from layerfs.oci import Digest, ImageConfig, Index, Manifest, Platform, parse_manifest

_DIGEST = f"sha256:{'0' * 64}"
_EXACT = {"raw", "data", "urls", "annotations", "runtime"}
"""What is asked of servers, or shown as JSON alone."""

TEXT = st.text(st.characters(codec="utf-8"))


def shown(value: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield every text of a parsed document but the exact ones."""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            if name not in _EXACT:
                yield from shown(getattr(value, name), f"{where}.{name}")
    elif isinstance(value, Mapping):
        yield from shown([*value.items()], where)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from shown(item, where)


def descriptor(text: str) -> dict[str, object]:
    platform = {"os": text, "architecture": text, "variant": text, "os.features": [text]}
    return {
        "mediaType": text,
        "digest": _DIGEST,
        "size": 1,
        "annotations": {text: text},
        "artifactType": text,
        "platform": platform,
        "urls": [text],
    }


def parsed(document: object) -> Manifest | Index:
    return parse_manifest(json.dumps(document).encode(), Digest.parse(_DIGEST))


@given(TEXT)
def test_control_characters_in_documents(text: str) -> None:
    blob = descriptor(text)
    manifest = parsed(
        {"schemaVersion": 2, "config": blob, "layers": [blob], "subject": blob, "artifactType": text}
    )
    unknown = blob | {"digest": "blake3:00"}
    index = parsed({"schemaVersion": 2, "mediaType": text, "manifests": [blob, unknown]})
    config = ImageConfig.parse(
        json.dumps(
            {
                "architecture": text,
                "os": text,
                "variant": text,
                "created": text,
                "author": text,
                "rootfs": {"type": "layers", "diff_ids": []},
                "history": [{"created_by": text, "comment": text, "created": text, "author": text}],
                "config": {"Labels": {text: text}, "Env": [text], "Cmd": [text]},
            }
        ).encode()
    )
    for document in (manifest, index, config):
        assert [where for where, value in shown(document) if not value.isprintable()] == []
    assert config.runtime.labels == {text: text}
    assert config.runtime.env == (text,)
    assert isinstance(manifest, Manifest)
    assert manifest.layers[0].urls == (text,)


def test_a_platform_that_is_no_word_is_nobodys() -> None:
    hostile = "linux\x1b"
    entry = descriptor("") | {"platform": {"os": hostile, "architecture": "amd64"}, "artifactType": None}
    index = parsed({"schemaVersion": 2, "manifests": [entry]})
    assert isinstance(index, Index)
    with pytest.raises(PlatformMissing, match=r"has: linux\\x1b/amd64"):
        index.choose(Platform.of("linux", "amd64"))


@given(TEXT)
def test_an_error_about_a_document_is_a_line(text: str) -> None:
    documents: list[object] = [
        {"schemaVersion": text},
        {"schemaVersion": 2, text: text, "config": {text: text}},
        {"schemaVersion": 2, "mediaType": text},
        {"schemaVersion": 2, "config": {"digest": text, "size": 1}},
        {"schemaVersion": 2, "config": {"digest": _DIGEST, "size": text}},
    ]
    for document in documents:
        with pytest.raises(LayerfsError) as caught:
            parsed(document)
        assert str(caught.value).isprintable()
