"""What hostile images, registries and users have on a terminal and in the log: one printable line a fact."""

import json
import os
import pty
import re
import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from layerfs.oci import Digest
from layerfs.oci.mediatype import OCI_MANIFEST
from tests.cli.conftest import CommandLine
from tests.support import clients, daemon, mounts
from tests.support.faulty_registry import Answer, FaultyRegistry, error_answer
from tests.support.images import BuiltImage, file, image, layer, to_json, write_layout

HOSTILE = "x\x1b[31m\x9b32m\r\u202e\u2028\u2066\n2026-01-01 00:00:00,000 ERROR layerfs: forged\x07"
_OTHER_USER = 65534


def assert_plain(text: str) -> None:
    """Fail unless all lines are printable, and none is the forged one."""
    assert [line for line in text.split("\n") if not line.isprintable()] == []
    assert [line for line in text.split("\n") if line.startswith("2026-01-01")] == []


def hostile_image() -> BuiltImage:
    """Return an image that puts its text wherever it may."""
    built = image(
        layer(file(f"etc/{HOSTILE}".replace("\x07", "")), file("plain", b"12")),
        history=[{"created_by": f"RUN {HOSTILE}", "created": HOSTILE, "comment": HOSTILE}],
        annotations={HOSTILE: HOSTILE},
    )
    config = json.loads(built.config) | {"created": HOSTILE, "author": HOSTILE}
    config["config"] = {"Labels": {HOSTILE: HOSTILE, "half": "\ud800"}, "Env": [HOSTILE]}
    raw = to_json(config)
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(raw)), "size": len(raw)}
    return BuiltImage(built.layers, built.platform, raw, to_json(manifest), built.media_type)


def test_control_characters_in_output(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", hostile_image())
    layerfs("import", f"oci:{tmp_path}/lay", "hostile:1")
    for command in (
        "images",
        "images --json",
        "history hostile:1",
        "history --json hostile:1",
        "tree hostile:1",
        "tree --json hostile:1",
        "inspect hostile:1",
        "inspect --runtime hostile:1",
        "df -v",
    ):
        done = layerfs(*command.split())
        assert done.stdout
        assert_plain(done.stdout)
        assert done.stderr == ""


def test_json_stays_exact(layerfs: CommandLine, tmp_path: Path) -> None:
    built = hostile_image()
    write_layout(tmp_path / "lay", built)
    layerfs("import", f"oci:{tmp_path}/lay", "hostile:1")
    about = json.loads(layerfs("inspect", "hostile:1").stdout)
    assert about["labels"] == {HOSTILE: HOSTILE, "half": "\ufffd"}
    assert json.loads(layerfs("inspect", "--runtime", "hostile:1").stdout)["env"] == [HOSTILE]
    assert layerfs("inspect", "--config", "hostile:1").stdout == built.config.decode()


@pytest.mark.parametrize("option", ["--raw", "--config", "--index"])
def test_on_a_terminal_a_document_is_printable(layerfs: CommandLine, tmp_path: Path, option: str) -> None:
    c1 = "\x9b31m\u202e\u2028"  # JSON itself forbids the older controls only
    built = image(layer(file("a")), annotations={"a": c1}, runtime={"Labels": {"a": c1}})
    config = json.dumps(json.loads(built.config), ensure_ascii=False).encode()
    manifest = json.loads(built.manifest)
    manifest["config"] |= {"digest": str(Digest.of(config)), "size": len(config)}
    raw = json.dumps(manifest, ensure_ascii=False).encode()
    write_layout(tmp_path / "lay", BuiltImage(built.layers, built.platform, config, raw, built.media_type))
    layerfs("import", f"oci:{tmp_path}/lay", "hostile:1")
    served = layerfs("inspect", option, "hostile:1").stdout
    assert c1 in served
    leader, follower = pty.openpty()
    with os.fdopen(leader, "rb", buffering=0) as screen:
        command = [*daemon.LAYERFS, "inspect", option, "hostile:1"]
        with subprocess.Popen(command, stdout=follower, env=layerfs.environment) as process:
            os.close(follower)
            shown = b""
            while chunk := _read(screen.fileno()):
                shown += chunk
    assert process.returncode == 0
    assert_plain(shown.decode().replace("\r\n", "\n"))
    assert json.loads(shown) == json.loads(served)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # how Linux says that the other end of a pty is closed
        return b""


def test_an_artifact_names_its_types_on_one_line(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    empty = faulty.push_blob(b"{}")
    for number, types in enumerate(({"artifactType": HOSTILE}, {})):
        document = {
            "schemaVersion": 2,
            "config": {"mediaType": HOSTILE, "digest": str(empty), "size": 2},
            "layers": [],
        }
        faulty.push_raw(
            "a/b", str(number), to_json(document | types), "application/vnd.oci.image.manifest.v1+json"
        )
        for verb in ["pull", "tree", "history", "inspect"]:
            done = layerfs(verb, f"{faulty.host}/a/b:{number}", code=1)
            assert "an artifact (x\\x1b[31m" in done.stderr
            assert_plain(done.stdout + done.stderr)
    assert_plain(layerfs("images").stdout)


def test_platforms_of_an_index_are_listed_on_one_line(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    entry = {
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": f"sha256:{'0' * 64}",
        "size": 2,
        "platform": {"os": HOSTILE, "architecture": HOSTILE, "variant": HOSTILE},
    }
    document = to_json({"schemaVersion": 2, "manifests": [entry]})
    faulty.push_raw("a/b", "1", document, "application/vnd.oci.image.index.v1+json")
    done = layerfs("pull", f"{faulty.host}/a/b:1", code=3)
    assert "the index has: x\\x1b[31m" in done.stderr
    assert_plain(done.stdout + done.stderr)


def test_what_a_registry_says_is_one_line(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    faulty.push("a/b", "1", image(layer(file("a"))))
    for status, code in ((403, 4), (404, 3)):
        faulty.faults.always = [("manifests/1", error_answer(status, "DENIED", HOSTILE, Retry_After="0"))]
        done = layerfs("digest", f"{faulty.host}/a/b:1", code=code)
        assert "x\\x1b[31m" in done.stderr
        assert_plain(done.stderr)


def test_a_lone_surrogate_does_not_hide_all_tags(layerfs: CommandLine, faulty: FaultyRegistry) -> None:
    listed = {"name": "a/b", "tags": ["1", "\ud800", HOSTILE, "3\x9b", "2"]}
    faulty.faults.always = [("tags/list", Answer(200, json.dumps(listed).encode()))]
    assert layerfs("tags", f"{faulty.host}/a/b").stdout == "1\n2\n"
    listed = json.loads(layerfs("tags", "--json", f"{faulty.host}/a/b").stdout)
    assert listed == [{"repository": f"{faulty.host}/a/b", "tags": ["1", "2"]}]


def test_names_of_archives_and_their_images_are_one_line(layerfs: CommandLine, tmp_path: Path) -> None:
    config = to_json({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": []}})
    entries = [{"Config": "config.json", "RepoTags": [f"{HOSTILE}{n}"], "Layers": []} for n in range(2)]
    path = tmp_path / f"{HOSTILE.replace(':', '')}.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in (("config.json", config), ("manifest.json", json.dumps(entries).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, BytesIO(content))
    plain = tmp_path / "plain.tar"
    plain.write_bytes(path.read_bytes())
    for source in (path, plain):
        done = layerfs("import", f"docker-archive:{source}", code=2)
        assert "x\\x1b[31m" in done.stderr
        assert_plain(done.stderr)


def test_a_name_in_a_broken_archive_is_one_line(layerfs: CommandLine, tmp_path: Path) -> None:
    write_layout(tmp_path / "lay", image(layer(file(f"../{HOSTILE}"))))
    done = layerfs("import", f"oci:{tmp_path}/lay", "hostile:1", code=1)
    assert "'..'" in done.stderr
    assert_plain(done.stderr)


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_status_mountpoint_escape(layerfs: CommandLine, tmp_path: Path) -> None:
    for name in (HOSTILE, "caf\udce9"):
        point = tmp_path / name.replace("/", "")
        with mounts.abandoned_fuse(point, _OTHER_USER):
            for code, *command in ((0, "status"), (1, "status", point), (1, "umount", f"{point}x")):
                done = layerfs(*command, code=code)
                assert done.stdout + done.stderr
                assert_plain(done.stdout + done.stderr)
            exact = json.loads(layerfs("status", "--json").stdout)
            assert os.fspath(point) in [one["mountpoint"] for one in exact]


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_log_lines_forged_by_an_image(layerfs: CommandLine, faulty: FaultyRegistry, mountpoint: Path) -> None:
    empty = faulty.push_blob(b"{}")
    document = {
        "schemaVersion": 2,
        "artifactType": HOSTILE,
        "config": {"mediaType": HOSTILE, "digest": str(empty), "size": 2},
        "layers": [],
    }
    faulty.push_raw("a/b", "1", to_json(document), OCI_MANIFEST)
    faulty.faults.always = [("manifests/2", error_answer(404, "X", HOSTILE))]
    with daemon.running(layerfs.store, mountpoint, "--log-level", "debug") as running:
        for tag in ("1", "2"):
            clients.run("ls", mountpoint / "images" / faulty.host / f"a/b:{tag}" / "rootfs")
        status = clients.read(mountpoint / ".layerfs" / "status.json").decode()
        shown = layerfs("status", mountpoint).stdout
        running.stop()
        log = running.log()
    for text in (status, shown, log):
        assert "x\\x1b[31m" in text.replace("\\\\", "\\").replace("\\u001b", "\\x1b")
        assert_plain(text)
    event = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ [a-z0-9_.]+: ")
    assert [line for line in log.splitlines() if not event.match(line)] == []


@pytest.mark.needs_root
@pytest.mark.needs_fuse
def test_a_mount_at_a_path_that_is_no_utf8_says_what_it_does(layerfs: CommandLine, tmp_path: Path) -> None:
    point = tmp_path / "caf\udce9"
    with daemon.running(layerfs.store, point):
        (about,) = json.loads(layerfs("status", "--json", point).stdout)
        assert (about["state"], about["mountpoint"]) == ("serving", os.fspath(point))
        assert json.loads(clients.read(point / ".layerfs" / "status.json"))["mountpoint"] == os.fspath(point)
