"""What is fetched of the documents of an image, and when they are believed."""

import json
from pathlib import Path

import pytest

from layerfs.oci import Digest, Platform
from layerfs.oci import mediatype as types
from tests.support import daemon
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import BuiltImage, file, image, layer

AMD64 = Platform("linux", "amd64")
BUILT = image(layer(file("f", b"x")), platform=AMD64)


@pytest.mark.parametrize("asked_by", ["tag", "digest"])
def test_a_document_that_is_announced_as_another_kind_is_refused(
    faulty: FaultyRegistry, store: Path, asked_by: str
) -> None:
    """Two readers would see two images in it, one by the header and one by the document (CVE-2021-41190)."""
    faulty.push("a/b", "latest", BUILT)
    faulty.faults.content_type = types.OCI_INDEX
    name = ":latest" if asked_by == "tag" else f"@{BUILT.digest}"

    found = daemon.layerfs("pull", f"{faulty.host}/a/b{name}", store=store, check=False)

    assert found.returncode != 0
    assert types.OCI_MANIFEST in found.stderr
    assert f"expected '{types.OCI_INDEX}', as announced" in found.stderr
    assert list((store / "manifests").glob("*")) == []


@pytest.mark.parametrize("said", ["", "application/json", "text/plain; charset=utf-8"])
def test_what_announces_nothing_is_believed(faulty: FaultyRegistry, store: Path, said: str) -> None:
    faulty.push("a/b", "latest", BUILT)
    faulty.faults.content_type = said

    daemon.layerfs("pull", f"{faulty.host}/a/b:latest", store=store)


def nested(faulty: FaultyRegistry, built: BuiltImage, depth: int) -> None:
    """Put *built* into the registry as a/b:latest, inside *depth* indexes."""
    faulty.push("a/b", "inner", built)
    document, media_type = built.manifest, built.media_type
    for _ in range(depth):
        entry = {"mediaType": media_type, "digest": str(Digest.of(document)), "size": len(document)}
        entry["platform"] = {"os": "linux", "architecture": "amd64"}
        media_type = types.OCI_INDEX
        document = json.dumps(
            {"schemaVersion": 2, "mediaType": media_type, "manifests": [entry]}, sort_keys=True
        ).encode()
        faulty.push_raw("a/b", "latest", document, media_type)


@pytest.mark.parametrize(("depth", "works"), [(4, True), (5, False)])
def test_a_pull_and_the_store_count_nested_indexes_alike(
    faulty: FaultyRegistry, store: Path, depth: int, works: bool
) -> None:
    nested(faulty, BUILT, depth)
    name = f"{faulty.host}/a/b:latest"

    pulled = daemon.layerfs("pull", "--platform", "linux/amd64", name, store=store, check=False)
    shown = daemon.layerfs("inspect", "--platform", "linux/amd64", name, store=store, check=False)

    assert (pulled.returncode == 0, shown.returncode == 0) == (works, works), pulled.stderr + shown.stderr
    if not works:
        assert "more than 4 indexes inside each other" in pulled.stderr
