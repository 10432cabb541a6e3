"""The helpers do what tests rely on: the registry serves what was pushed, and its log is complete."""

import subprocess
from pathlib import Path

import httpx
import pytest

from layerfs.oci import Platform
from tests.support import images
from tests.support.images import Style
from tests.support.registry import Registry


@pytest.mark.parametrize("style", ["oci", "docker"])
def test_what_is_pushed_is_served_with_its_media_type(registry: Registry, style: Style) -> None:
    built = images.image(images.layer(images.file("etc/motd", b"hi\n")), style=style)
    registry.push("selfcheck/push", style, built)

    answer = httpx.get(
        f"{registry.url}/selfcheck/push/manifests/{style}", headers={"Accept": built.media_type}
    )

    assert answer.content == built.manifest
    assert answer.headers["content-type"] == built.media_type


def test_the_log_names_each_blob_that_was_fetched(registry: Registry) -> None:
    built = images.image(images.layer(images.file("log", b"1")), images.layer(images.file("log", b"2")))
    registry.push("selfcheck/log", "latest", built)
    since = registry.mark()

    for layer in built.layers:
        httpx.get(f"{registry.url}/selfcheck/log/blobs/{layer.digest}")

    assert registry.blob_requests(since) == [layer.digest for layer in built.layers]


def test_skopeo_and_umoci_accept_what_images_builds(registry: Registry, tmp_path: Path) -> None:
    layers = (
        images.layer(
            images.directory("etc"), images.file("etc/old"), images.file("etc/x", xattrs={"user.a": b"b"})
        ),
        images.layer(images.whiteout("etc/old"), images.symlink("etc/y", "x"), compression="none"),
        images.layer(images.directory("etc"), images.opaque("etc"), compression="zstd"),
    )
    choice = images.index(
        images.image(*layers), images.image(layers[0], platform=Platform.parse("linux/arm/v7"))
    )
    reference = registry.push("selfcheck/tools", "latest", choice)
    subprocess.run(
        ["skopeo", "copy", "-q", "--src-tls-verify=false", f"docker://{reference}", f"oci:{tmp_path}/copy:x"],
        check=True,
    )
    layout = images.write_layout(tmp_path / "own", images.image(*layers[:2]))

    subprocess.run(["umoci", "unpack", "--image", f"{layout}:latest", tmp_path / "bundle"], check=True)

    assert {path.name for path in (tmp_path / "bundle/rootfs/etc").iterdir()} == {"x", "y"}


def test_a_paused_registry_answers_after_resume(registry: Registry) -> None:
    with registry.paused(), pytest.raises(httpx.ReadTimeout):
        httpx.get(f"{registry.url}/", timeout=httpx.Timeout(30, read=0.2))

    assert httpx.get(f"{registry.url}/").status_code == httpx.codes.OK


def test_a_corrupted_blob_keeps_its_size(registry: Registry) -> None:
    built = images.image(images.layer(images.file("bad", b"x" * 1000)))
    registry.push("selfcheck/corrupt", "latest", built)

    registry.corrupt(built.layers[0].digest)

    served = httpx.get(f"{registry.url}/selfcheck/corrupt/blobs/{built.layers[0].digest}").content
    assert len(served) == built.layers[0].size
    assert served != built.layers[0].blob
