"""`layerfs pull` and the verbs that show what came of it."""

import json
import os
import pty
import signal
import subprocess
from dataclasses import replace

import pytest

from layerfs.oci import Digest, Platform
from layerfs.store import ImageStorage
from tests.cli.conftest import CommandLine
from tests.support import clients
from tests.support.daemon import LAYERFS
from tests.support.faulty_registry import FaultyRegistry
from tests.support.images import file, image, index, layer, to_json
from tests.support.registry import Registry

BASE = layer(file("base", os.urandom(300_000)), compression="none", command="ADD base /")
OLD = image(BASE, layer(file("old", b"old")))
NEW = image(BASE, layer(file("new", b"new")))


def test_a_pull_fetches_all_layers_and_says_so_line_by_line(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("pull/lines", "1", OLD))
    done = layerfs("pull", reference)
    pulled, total = done.stdout.splitlines()
    assert pulled == f"{reference}: {OLD.digest}"
    assert total.startswith(f"{reference}: 2 layers, 2 fetched")
    lines = done.stderr.splitlines()
    assert sorted(line.split()[0] for line in lines) == ["00", "01"]
    assert all(line.endswith("fetched") for line in lines)
    since = registry.mark()
    assert "2 layers, 0 fetched" in layerfs("pull", reference).stdout
    assert [request.method for request in registry.requests(since)] == ["HEAD"]


def test_a_pull_says_that_the_tag_moved_and_fetches_only_what_is_new(
    layerfs: CommandLine, registry: Registry
) -> None:
    reference = str(registry.push("pull/moves", "1", OLD))
    layerfs("pull", "--quiet", reference)
    registry.push("pull/moves", "1", NEW)
    pulled = json.loads(layerfs("pull", "--json", reference).stdout)[0]
    assert pulled["digest"] == str(NEW.digest)
    assert pulled["moved_from"] == str(OLD.digest)
    assert [one["fetched"] for one in pulled["layers"]] == [False, True]
    assert "moved from" not in layerfs("pull", reference).stdout


def test_an_artifact_is_said_and_listed_as_one(layerfs: CommandLine, registry: Registry) -> None:
    document = json.loads(OLD.manifest)
    document["artifactType"] = "application/vnd.example.sbom"
    document["config"]["mediaType"] = "application/vnd.oci.empty.v1+json"
    artifact = replace(OLD, manifest=to_json(document))
    reference = str(registry.push("pull/artifact", "1", artifact))
    assert (
        "an artifact (application/vnd.example.sbom), not an image"
        in layerfs("pull", reference, code=1).stderr
    )
    assert layerfs("images").stdout.splitlines()[1].split()[2] == "artifact"
    assert json.loads(layerfs("images", "--json").stdout)[0]["artifact"] == "application/vnd.example.sbom"


@pytest.mark.parametrize("verb", ["pull -q", "inspect", "tree", "lowerdir --no-fetch"])
def test_a_platform_that_an_image_does_not_have_is_an_error(
    layerfs: CommandLine, registry: Registry, verb: str
) -> None:
    reference = str(registry.push("pull/platform", "1", image(BASE, platform=Platform.parse("linux/s390x"))))
    layerfs("inspect", reference)
    done = layerfs(*verb.split(), "--platform", "linux/ppc64le", reference, code=3)
    assert "no image for linux/ppc64le (it has: linux/s390x)" in done.stderr
    assert done.stdout == ""
    layerfs(*verb.split(), "--platform", "linux/s390x", reference)


def test_an_image_that_says_no_platform_is_for_any(layerfs: CommandLine, registry: Registry) -> None:
    bare = image(BASE, platform=Platform("unknown", "unknown"))
    layerfs("pull", "--platform", "linux/s390x", str(registry.push("pull/bare", "1", bare)))


def test_an_image_pulled_by_digest_is_listed_counted_and_removed(
    layerfs: CommandLine, registry: Registry
) -> None:
    name = str(registry.push("pull/digest", "1", OLD).repository)
    reference = f"{name}@{OLD.digest}"
    layerfs("pull", "-q", reference)
    assert layerfs("images", "-q").stdout == f"{reference}\n"
    blobs = json.loads(layerfs("df", "--json").stdout)["blobs"]
    assert (blobs["count"], blobs["reclaimable"]) == (2, 0)
    layerfs("rm", reference)
    assert layerfs("images", "-q").stdout == ""


@pytest.mark.parametrize(
    "verb",
    ["inspect", "tree --json", "history --json", "digest", "lowerdir --offline", "export -o /dev/null"],
)
def test_short_digests_and_image_ids_name_images(layerfs: CommandLine, registry: Registry, verb: str) -> None:
    both = index(OLD, image(BASE, platform=Platform.parse("linux/s390x")))
    reference = str(registry.push("pull/short", "1", both))
    layerfs("pull", "-q", reference)
    name = reference.rpartition(":")[0]
    ids = {both.digest: [both.digest], OLD.digest: [OLD.digest, Digest.of(OLD.config)]}
    for meant, digests in ids.items():
        expected = layerfs(*verb.split(), f"{name}@{meant}").stdout
        for digest in digests:
            assert layerfs(*verb.split(), digest.hex[:12]).stdout == expected


def test_images_lists_what_a_name_or_a_filter_means(layerfs: CommandLine, registry: Registry) -> None:
    old = str(registry.push("filter/old", "1", OLD))
    new = str(registry.push("filter/new", "2", NEW))
    layerfs("pull", "-q", old, new)
    for said in ("old", "filter/old", old, "old:1", "filter/o*", OLD.digest.hex[:12]):
        assert layerfs("images", "-q", said).stdout == f"{old}\n"
    assert layerfs("images", "-q", "filter/*").stdout.split() == [new, old]
    assert (
        layerfs("images", "-q", "--filter", "reference=filter/*", "-f", "reference=*:2").stdout == f"{new}\n"
    )
    assert layerfs("images", "-q", "ilter/old").stdout == ""
    assert "expected reference=NAME" in layerfs("images", "--filter", "dangling=true", code=2).stderr
    assert layerfs("images", "--format", "json").stdout == layerfs("images", "--json").stdout
    assert str(OLD.digest) not in layerfs("images").stdout
    assert str(OLD.digest) in layerfs("images", "--no-trunc").stdout


def test_each_platform_that_was_fetched_has_a_row(layerfs: CommandLine, registry: Registry) -> None:
    foreign = image(layer(file("s390x", b"z")), platform=Platform.parse("linux/s390x"))
    rest = image(layer(file("p", b"p")), platform=Platform.parse("linux/ppc64le"))
    reference = str(registry.push("images/platforms", "1", index(OLD, foreign, rest)))
    layerfs("pull", "-q", "--platform", "linux/s390x", reference)
    rows = json.loads(layerfs("images", "--json").stdout)
    assert [(row["platform"], row["fetched"]) for row in rows] == [("linux/s390x", 1)]
    layerfs("pull", "-q", reference)
    rows = json.loads(layerfs("images", "--json").stdout)
    assert [(row["reference"], row["manifest"]) for row in rows] == [
        (reference, str(OLD.digest)),
        (reference, str(foreign.digest)),
    ]
    assert len(layerfs("images").stdout.splitlines()) == 3
    assert len(json.loads(layerfs("images", "--json", "--platform", "linux/s390x").stdout)) == 1
    assert layerfs("images", "-q").stdout == f"{reference}\n"


def test_digits_that_no_image_has_are_a_name(layerfs: CommandLine, registry: Registry) -> None:
    layerfs("pull", "-q", str(registry.push("pull/digits", "1", OLD)))
    assert "without --offline" in layerfs("inspect", "--offline", "0123456789ab", code=5).stderr
    assert "looks like an image ID" in layerfs("inspect", "0" * 64, code=2).stderr


def test_a_tag_beside_a_digest_is_never_moved(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("pull/both", "1", NEW))
    layerfs("pull", "-q", reference)
    layerfs("pull", f"{reference}@sha256:{'1' * 64}", code=3)
    registry.push("pull/both", "0", OLD)
    layerfs("pull", "-q", f"{reference}@{OLD.digest}")
    listed = {row["reference"]: row["digest"] for row in json.loads(layerfs("images", "--json").stdout)}
    name = reference.rpartition(":")[0]
    assert listed == {reference: str(NEW.digest), f"{name}@{OLD.digest}": str(OLD.digest)}


def test_quiet_prints_the_digest_alone(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("pull/quiet", "1", OLD))
    assert layerfs("pull", "-q", reference).stdout == f"{OLD.digest}\n"


def test_json_has_a_result_for_each_reference_and_the_code_is_of_the_first_error(
    layerfs: CommandLine, registry: Registry
) -> None:
    good = str(registry.push("pull/each", "1", OLD))
    missing = f"{registry.host}/pull/each:2"
    done = layerfs("pull", "--json", good, missing, "NOT ONE", good, code=3)
    first, second, third, last = json.loads(done.stdout)
    assert (first["digest"], last["digest"]) == (str(OLD.digest), str(OLD.digest))
    assert [one["fetched"] for one in (*first["layers"], *last["layers"])] == [True, True, False, False]
    assert (second["reference"], second["error"]) == (missing, "NotFound")
    assert (third["reference"], third["error"]) == ("NOT ONE", "InvalidReference")
    complaints = [line for line in done.stderr.splitlines() if line.startswith("layerfs: ")]
    assert complaints == [f"layerfs: {second['message']}", f"layerfs: {third['message']}"]


def test_a_pull_goes_on_behind_what_cannot_be_had(layerfs: CommandLine, registry: Registry) -> None:
    good = str(registry.push("pull/behind", "1", OLD))
    done = layerfs("pull", "-q", "NOT ONE", f"{registry.host}/pull/behind:2", good, code=2)
    assert done.stdout == f"{OLD.digest}\n"
    assert len(done.stderr.splitlines()) == 2


def test_quiet_and_json_are_two_forms(layerfs: CommandLine) -> None:
    assert "expected one of the two" in layerfs("pull", "-q", "--json", "x", code=2).stderr


def test_on_a_terminal_there_are_bars_and_the_result_can_be_kept(
    layerfs: CommandLine, registry: Registry
) -> None:
    reference = str(registry.push("pull/bars", "1", OLD))
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen:
        environment = layerfs.environment | {"TERM": "xterm", "COLUMNS": "100"}
        command = [*LAYERFS, "pull", reference]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=follower, env=environment)
        os.close(follower)
        shown = b""
        while chunk := _read(screen.fileno()):
            shown += chunk
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    assert b"\x1b[" in shown
    assert b" of 2 layers" in shown
    assert [line.split()[1] for line in output.splitlines()] == [str(OLD.digest).encode(), b"2"]


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # how Linux says that the other end of a pty is closed
        return b""


def test_an_interrupted_pull_is_taken_up_by_the_next(layerfs: CommandLine) -> None:
    with FaultyRegistry() as faulty:
        faulty.push("a/b", "1", OLD)
        layerfs("inspect", f"{faulty.host}/a/b:1")
        faulty.faults.stall_blobs = [100_000] * 2
        command = [*LAYERFS, "pull", f"{faulty.host}/a/b:1"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=layerfs.environment
        ) as one:
            clients.wait_until(lambda: any(str(BASE.digest) in asked.path for asked in faulty.asked))
            clients.wait_until(lambda: _staged(layerfs) >= 1)
            one.send_signal(signal.SIGINT)
            output, errors = one.communicate(timeout=60)
            assert one.returncode == 130, (output, errors)
            assert b"Traceback" not in errors
        faulty.faults.stall_blobs = []
        layerfs("pull", f"{faulty.host}/a/b:1")
        assert (layerfs.store / "layers").is_dir()
        assert _staged(layerfs) == 0


def _staged(layerfs: CommandLine) -> int:
    return len(list((layerfs.store / "layers").glob("*.downloading")))


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        pytest.param("{host}/pull/nowhere:1", 3, id="not found"),
        pytest.param("127.0.0.1:1/a:1", 5, id="no connection"),
        pytest.param("NOT A REFERENCE", 2, id="no reference"),
    ],
)
def test_exit_codes_tell_scripts_what_went_wrong(
    layerfs: CommandLine, registry: Registry, reference: str, code: int
) -> None:
    done = layerfs("pull", reference.format(host=registry.host), code=code)
    assert done.stderr.startswith("layerfs: ")


def test_wrong_bytes_have_an_exit_code_of_their_own(layerfs: CommandLine, own_registry: Registry) -> None:
    reference = str(own_registry.push("bad", "1", OLD))
    own_registry.corrupt(BASE.digest)
    done = layerfs("pull", reference, code=6)
    assert str(BASE.digest) in done.stderr
    assert "the bytes hash to" in done.stderr


def test_the_verbs_that_show_agree_on_an_image(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("pull/shown", "1", OLD))
    assert layerfs("digest", reference).stdout == f"{OLD.digest}\n"
    assert layerfs("tags", f"{registry.host}/pull/shown").stdout == "1\n"
    ImageStorage(layerfs.store)
    assert json.loads(layerfs("images", "--json").stdout) == []
    assert layerfs("inspect", reference, "--raw").stdout.encode() == OLD.manifest
    assert layerfs("inspect", reference, "--config").stdout.encode() == OLD.config
    known = json.loads(layerfs("images", "--json").stdout)[0]
    assert (known["reference"], known["layers"], known["fetched"]) == (reference, 2, 0)
    assert layerfs("history", reference).stdout.splitlines()[0].split()[:4] == ["00", "307.2", "kB", "absent"]
    layerfs("pull", "-q", reference)
    assert json.loads(layerfs("images", "--json").stdout)[0]["fetched"] == 2
    assert [one["state"] for one in json.loads(layerfs("history", "--json", reference).stdout)] == [
        "fetched"
    ] * 2
    assert layerfs("images", "-q").stdout == f"{reference}\n"
    layerfs("rm", reference)
    assert layerfs("images", "-q").stdout == ""
    assert "layerfs images" in layerfs("rm", reference, code=3).stderr


def test_offline_says_what_is_missing(layerfs: CommandLine, registry: Registry) -> None:
    reference = str(registry.push("pull/offline", "1", OLD))
    ImageStorage(layerfs.store)
    assert "without --offline" in layerfs("lowerdir", "--offline", reference, code=5).stderr
    layerfs("pull", "-q", reference)
    assert "or layerfs overlay --lazy always)" in layerfs("lowerdir", "--lazy", reference, code=2).stderr
    lines = layerfs("lowerdir", "--eager", "--offline", "--format", "lines", reference).stdout.splitlines()
    assert all(os.path.isdir(line) for line in lines)


def test_all_platforms_are_fetched_with_what_is_listed_beside_them(
    layerfs: CommandLine, registry: Registry
) -> None:
    foreign = image(layer(file("s390x", b"z")), platform=Platform.parse("linux/s390x"))
    statement = layer(file("sbom", b"s"), compression="none")
    document = json.loads(image(statement, platform=Platform("unknown", "unknown")).manifest)
    document["layers"][0]["mediaType"] = "application/vnd.in-toto+json"
    attestation = replace(
        image(statement, platform=Platform("unknown", "unknown")), manifest=to_json(document)
    )
    both = index(OLD, foreign, attestation)
    reference = str(registry.push("pull/every", "1", both))

    done = json.loads(layerfs("pull", "--all-platforms", "--json", reference).stdout)[0]

    assert done["digest"] == str(both.digest)
    platforms = {one["platform"]: one["manifest"] for one in done["platforms"]}
    assert platforms == {str(one.platform): str(one.digest) for one in (OLD, foreign)}
    with ImageStorage(layerfs.store) as storage:
        for one in (OLD, foreign):
            assert all(storage.open_layer(layer.digest) for layer in one.layers)
        assert storage.open_blob(statement.digest)
        assert not storage.open_layer(statement.digest)
        assert storage.load_manifest(attestation.digest).raw == attestation.manifest
    assert "2 platforms, 3 layers, 0 fetched" in layerfs("pull", "--all-platforms", reference).stdout
    since = registry.mark()
    layerfs("gc")
    layerfs("pull", "--offline", f"{reference.rpartition(':')[0]}@{both.digest}", "--all-platforms")
    assert registry.requests(since) == []


def test_one_of_several_that_cannot_be_had_does_not_keep_the_others(
    layerfs: CommandLine, registry: Registry
) -> None:
    old = registry.push("several/old", "1", OLD)
    new = registry.push("several/new", "2", NEW)
    nope = f"{registry.host}/several/nope"

    listed = layerfs("tags", str(old.repository), nope, str(new.repository), code=3)
    assert listed.stdout.splitlines() == [str(old), str(new)]
    assert f"tags of {nope}" in listed.stderr
    answers = json.loads(layerfs("tags", "--json", nope, str(new.repository), code=3).stdout)
    assert [one["repository"] for one in answers] == [nope, str(new.repository)]
    assert answers[0]["error"] == "NotFound"
    assert answers[1]["tags"] == ["2"]

    done = layerfs("digest", nope, str(old), str(new), code=3)
    assert done.stdout.split() == [str(OLD.digest), str(NEW.digest)]
    shown = layerfs("inspect", str(old), nope, str(new), code=3).stdout
    assert [f'"digest": "{one.digest}"' in shown for one in (OLD, NEW)] == [True, True]
    layerfs("inspect", "--raw", str(old), str(new), code=2)
