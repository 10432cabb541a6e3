"""What a file operation says when the registry or the image is at fault, and what is written down of it."""

import base64
import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from layerfs.oci import Digest, Platform
from tests.support import daemon, images
from tests.support.faulty_registry import (
    PASSWORD,
    SIGNATURE,
    TOKEN_PREFIX,
    USER,
    Answer,
    Faults,
    FaultyRegistry,
)
from tests.support.registry import Registry

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_fuse]

CONTENT = os.urandom(200_000)
LAYER = images.layer(images.file("file", CONTENT), compression="none")
BUILT = images.image(LAYER)
FILE = "layers/00/diff/file"


@pytest.fixture
def faulty() -> Iterator[FaultyRegistry]:
    with FaultyRegistry() as running:
        yield running


def _attempt(path: Path) -> tuple[int, bytes]:
    try:
        return 0, path.read_bytes()
    except OSError as error:
        return error.errno or -1, b""


def _persistent(path: Path) -> bytes:
    """Read a file, however often the wait for it ends first: a busy machine needs its time."""
    while (found := _attempt(path))[0] == errno.ETIMEDOUT:
        pass
    assert found[0] == 0, os.strerror(found[0])
    return found[1]


ENCRYPTED = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"


def test_blobs_that_are_no_layers(registry: Registry, store: Path, mountpoint: Path) -> None:
    """Encrypted layers among plain ones, and attestations, fail with their type, before a download."""
    secret = images.layer(images.file("secret"), compression="none")
    document = json.loads(images.image(LAYER, secret).manifest)
    document["layers"][1]["mediaType"] = ENCRYPTED
    mixed = replace(images.image(LAYER, secret), manifest=images.to_json(document))
    document["layers"] = [document["layers"][1] | {"mediaType": "application/vnd.in-toto+json"}]
    attestation = replace(mixed, manifest=images.to_json(document))
    references = [registry.push("no/layers", tag, built) for tag, built in (("1", mixed), ("2", attestation))]

    with daemon.running(store, mountpoint) as running:
        encrypted, signed = (running.images / str(reference) for reference in references)
        assert (encrypted / FILE).read_bytes() == CONTENT
        since = registry.mark()
        for path in (encrypted / "layers/01/diff/secret", encrypted / "rootfs/file", signed / FILE):
            assert _attempt(path)[0] == errno.EOPNOTSUPP
        assert registry.blob_requests(since) == []
        assert f"{ENCRYPTED} (expected a tar archive)" in running.log()
        assert json.loads((signed / "manifest.json").read_bytes())["layers"]


def _put(faulty: FaultyRegistry, path: str = "a/b") -> str:
    faulty.push(path, "latest", BUILT)
    return f"{faulty.host}/{path}:latest"


@pytest.mark.parametrize(
    ("faults", "path", "expected", "advice"),
    [
        pytest.param({}, "a/b:nope", errno.ENOENT, "check name and tag", id="an unknown tag"),
        pytest.param({}, "a/nope:latest", errno.ENOENT, "check name", id="an unknown repository"),
        pytest.param(
            {"auth": "basic"}, "a/b:latest", errno.EACCES, "layerfs login", id="credentials are wanted"
        ),
        pytest.param(
            {"always": [("/manifests/", Answer(403))]}, "a/b:latest", errno.EACCES, "403", id="forbidden"
        ),
        pytest.param({"wrong_bytes": True}, "a/b:latest", errno.EIO, "expected", id="wrong bytes"),
        pytest.param(
            {"first": [("/blobs/", Answer(404))] * 9},
            "a/b:latest",
            errno.ENOENT,
            "404",
            id="a blob is missing",
        ),
    ],
)
def test_the_errno_says_the_kind_and_the_status_file_what_to_do(
    faulty: FaultyRegistry,
    store: Path,
    mountpoint: Path,
    faults: dict[str, object],
    path: str,
    expected: int,
    advice: str,
) -> None:
    _put(faulty)
    faulty.faults = Faults(**faults)  # type: ignore[arg-type]  # each of its own type
    with daemon.running(store, mountpoint) as running:
        assert _attempt(running.images / faulty.host / path / FILE)[0] == expected
        status = json.loads((mountpoint / ".layerfs" / "status.json").read_bytes())
        assert advice in status["errors"][-1]["message"]
        faulty.faults = Faults()
        working = running.images / faulty.host / "a/b:latest" / FILE
        assert _attempt(working) == (0, CONTENT), "nothing fails for longer than its cause"


def test_an_artifact_is_shown_and_not_extracted(
    faulty: FaultyRegistry, store: Path, mountpoint: Path
) -> None:
    config = b"{}"
    payload = faulty.push_blob(b"signature")
    faulty.push_blob(config)
    document = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": "application/vnd.example.signature",
        "config": {
            "mediaType": "application/vnd.oci.empty.v1+json",
            "digest": str(Digest.of(config)),
            "size": len(config),
        },
        "layers": [{"mediaType": "application/x-signature", "digest": str(payload), "size": 9}],
    }
    raw = json.dumps(document).encode()
    faulty.push_raw("a/b", "latest", raw, document["mediaType"])  # type: ignore[arg-type]  # a str of this dict
    with daemon.running(store, mountpoint) as running:
        image = running.images / faulty.host / "a/b:latest"
        assert (image / "manifest.json").read_bytes() == raw
        assert _attempt(image / "rootfs" / "file")[0] == errno.EOPNOTSUPP


def test_a_registry_that_is_not_there_is_unreachable_and_later_it_works(
    store: Path, mountpoint: Path
) -> None:
    with FaultyRegistry() as gone:
        name = _put(gone)
    with daemon.running(store, mountpoint) as running:
        assert _attempt(running.images / name / FILE)[0] == errno.EHOSTUNREACH


def test_a_fetch_beyond_the_deadline_times_out_and_goes_on(
    faulty: FaultyRegistry, store: Path, mountpoint: Path
) -> None:
    hold = threading.Event()
    name = _put(faulty)
    with daemon.running(store, mountpoint, "--fetch-timeout", "1") as running:
        assert _persistent(running.images / name / "config.json")
        faulty.faults.hold_blobs = hold
        assert _attempt(running.images / name / FILE)[0] == errno.ETIMEDOUT
        hold.set()
        faulty.faults.hold_blobs = None
        assert _persistent(running.images / name / FILE) == CONTENT
    blobs = [line for line in faulty.lines() if str(LAYER.digest) in line]
    assert len(blobs) == 1, "the download of the first wait was taken to its end"


def test_a_cold_image_costs_no_request_more_than_it_must(
    faulty: FaultyRegistry, store: Path, mountpoint: Path
) -> None:
    index = images.index(BUILT, images.image(LAYER, platform=Platform("linux", "s390x")))
    faulty.faults.auth = "bearer"
    faulty.push("a/b", "latest", index)
    with daemon.running(store, mountpoint) as running:
        assert _attempt(running.images / faulty.host / "a/b:latest" / FILE) == (0, CONTENT)
    asked = [line for line in faulty.lines() if not line.endswith(" 401")]
    documents = [f"GET /v2/a/b/manifests/{one} 200" for one in ("latest", BUILT.digest)]
    blobs = [f"GET /v2/a/b/blobs/{one} 200" for one in (BUILT.config_digest, LAYER.digest)]
    assert sorted(asked) == sorted(["GET /token 200", *documents, *blobs])


def test_a_download_survives_breaks_and_fetches_no_byte_twice(
    faulty: FaultyRegistry, store: Path, mountpoint: Path
) -> None:
    name = _put(faulty)
    with daemon.running(store, mountpoint) as running:
        assert (running.images / name / "config.json").read_bytes()
        faulty.faults.cut_blobs = [70_000, 70_000]
        assert _attempt(running.images / name / FILE) == (0, CONTENT)
    ranges = [asked.headers.get("range") for asked in faulty.asked if str(LAYER.digest) in asked.path]
    last = LAYER.size - 1
    assert ranges == [None, f"bytes=70000-{last}", f"bytes=140000-{last}"]


def test_no_secret_is_written_anywhere(
    faulty: FaultyRegistry, store: Path, mountpoint: Path, tmp_path: Path
) -> None:
    auth = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    authfile = tmp_path / "auth.json"
    authfile.write_text(json.dumps({"auths": {faulty.host: {"auth": auth}}}))
    name = _put(faulty)
    faulty.faults.auth, faulty.faults.anonymous = "bearer", False
    faulty.faults.redirect_to_storage = True
    faulty.faults.cut_blobs = [1000, 3]
    arguments = ("--authfile", str(authfile), "--log-level", "debug")
    with daemon.running(store, mountpoint, *arguments) as running:
        assert _attempt(running.images / name / FILE) == (0, CONTENT)
        faulty.faults.token_answer = Answer(403, PASSWORD.encode())
        faulty.faults.needed_scope = "more"
        assert _attempt(running.images / faulty.host / "a/b:other" / FILE)[0] in (errno.EACCES, errno.ENOENT)
        written = [running.log().encode(), (mountpoint / ".layerfs" / "status.json").read_bytes()]
        written += [path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()]
        written += [text for process in _family(running.pid) for text in _told(process)]
    text = b"\0".join(written)
    for secret in (PASSWORD, auth, SIGNATURE, TOKEN_PREFIX):
        assert secret.encode() not in text


def _family(pid: int) -> list[Path]:
    """Return the processes that *pid* started, their children and itself."""
    found = [Path("/proc", str(pid))]
    for task in Path("/proc", str(pid), "task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            for child in task.read_text().split():
                found += _family(int(child))
    return found


def _told(process: Path) -> list[bytes]:
    """Return what a process was given on its way; nothing if it is gone."""
    with contextlib.suppress(OSError):
        return [(process / "cmdline").read_bytes(), (process / "environ").read_bytes()]
    return []
