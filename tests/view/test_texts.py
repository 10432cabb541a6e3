"""Texts that the mount makes."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.layer.overlayfs import lowerdir_option
from layerfs.oci import HistoryEntry, Image, ImageConfig, Manifest, parse_manifest
from layerfs.view.texts import (
    command_text,
    history_text,
    human_size,
    layer_json,
    lower_paths,
    number_width,
    time_ns,
)
from tests.support import images
from tests.support.images import file, layer
from tests.support.mounts import clear


def image_of(*layers: images.BuiltLayer, history: list[dict[str, object]] | None = None) -> Image:
    built = images.image(*layers, history=history)
    manifest = parse_manifest(built.manifest, built.digest)
    assert isinstance(manifest, Manifest)
    return Image.of(manifest, ImageConfig.parse(built.config))


A, B = layer(file("a"), command="ADD a /"), layer(file("b"), command="RUN b")


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (29_100_000, "29.1 MB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (3 * 10**18, "3.0 EB"),
        ((1 << 63) - 1, "9.2 EB"),
    ],
)
def test_sizes_are_decimal(size: int, text: str) -> None:
    assert human_size(size) == text


@pytest.mark.parametrize(
    ("created_by", "text"),
    [
        ("/bin/sh -c apt-get  update \t && x", "RUN apt-get update && x"),
        ('/bin/sh -c #(nop)  CMD ["sh"]', 'CMD ["sh"]'),
        ("RUN /bin/sh -c make # buildkit", "RUN make"),
        ("COPY /a /b # buildkit", "COPY /a /b"),
        ("bazel build", "bazel build"),
        ("", "made by hand"),
    ],
)
def test_commands_read_like_a_dockerfile(created_by: str, text: str) -> None:
    assert command_text(HistoryEntry(created_by, None, "made  by hand", False)) == text


def test_an_unknown_command_is_empty() -> None:
    assert command_text(None) == ""


def test_history_has_a_line_for_each_layer_and_marks_empty_ones() -> None:
    image = image_of(
        A,
        B,
        history=[
            {"created_by": "ADD a /"},
            {"created_by": '/bin/sh -c #(nop)  CMD ["sh"]', "empty_layer": True},
            {"created_by": "RUN b"},
        ],
    )
    state = {A.digest: "fetched", B.digest: "absent"}
    assert history_text(image, lambda digest: state[digest]).decode().splitlines() == [
        f"00  {A.size} B  fetched  ADD a /",
        '--     -  empty    CMD ["sh"]',
        f"01  {B.size} B  absent   RUN b",
    ]


@pytest.mark.parametrize("history", [[], [{"created_by": "only one"}], [{"created_by": "x"}] * 3])
def test_a_history_that_does_not_fit_the_layers_names_no_commands(history: list[dict[str, object]]) -> None:
    text = history_text(image_of(A, B, history=history), lambda _: "absent").decode()
    assert text.splitlines() == [f"00  {A.size} B  absent", f"01  {B.size} B  absent"]


def test_an_image_without_layers_has_a_history_all_the_same() -> None:
    text = history_text(image_of(history=[{"created_by": "CMD x", "empty_layer": True}]), lambda _: "absent")
    assert text == b"--  -  empty  CMD x\n"


@pytest.mark.parametrize(("layers", "width"), [(0, 2), (1, 2), (100, 2), (101, 3), (1000, 3)])
def test_numbers_sort_as_names(layers: int, width: int) -> None:
    assert number_width(layers) == width


def test_lower_paths_are_the_cover_and_each_layer_once_topmost_first() -> None:
    image = image_of(A, B, A)
    ids = [image.stack.short_id, A.digest.short_id, B.digest.short_id]
    assert lower_paths(b"/mnt", image) == [f"/mnt/lower/{id_}".encode() for id_ in ids]


@given(path=st.binary().filter(lambda path: b"\0" not in path))
def test_the_option_can_be_read_back_as_the_kernel_does(path: bytes) -> None:
    text = lowerdir_option([path, b"x"]).removeprefix(b"lowerdir=")
    parts, escaped = [b""], False
    for byte in (text[i : i + 1] for i in range(len(text))):
        if escaped or byte not in b"\\:":
            parts[-1] += byte
            escaped = False
        elif byte == b":":
            parts.append(b"")
        else:
            escaped = True
    assert parts == [path, b"x"]


@pytest.mark.needs_root
def test_mount_takes_the_option_whatever_the_path_holds(tmp_path: Path) -> None:
    odd = tmp_path / "a b:c,d\\e"
    for name in ("one", "two"):
        (odd / name).mkdir(parents=True)
        (odd / name / name).touch()
    merged = tmp_path / "merged"
    merged.mkdir()
    option = lowerdir_option([os.fsencode(odd / "one"), os.fsencode(odd / "two")])
    try:
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", option, merged], check=True)
        assert sorted(os.listdir(merged)) == ["one", "two"]
    finally:
        clear(merged)


def test_layer_json_says_what_is_known() -> None:
    text = layer_json(A.digest, state="absent", descriptor=None, diff_id=None, command="", extraction=None)
    assert json.loads(text) == {
        "digest": str(A.digest),
        "diff_id": None,
        "media_type": None,
        "size": None,
        "state": "absent",
        "created_by": "",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10),
        ("1970-01-01T00:00:10.999999999Z", 10),
        ("1970-01-01T01:00:10+01:00", 10),
        ("1970-01-01T00:00:10", 10),
        ("1969-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00Z", None),
        ("yesterday", None),
        ("", None),
        (None, None),
    ],
)
def test_times_are_read_or_given_up(text: str | None, seconds: int | None) -> None:
    assert time_ns(text) == (None if seconds is None else seconds * 10**9)
