"""Verbs that only look at a store make none, and say where they looked."""

import os
from pathlib import Path

import pytest

from tests.cli.conftest import CommandLine

READING = (
    "images", "images -q", "df", "rm a:1", "tree --offline a:1", "export --offline a:1",
    "history --offline a:1", "lowerdir --offline a:1", "lowerdir --no-fetch a:1", "inspect --offline a:1",
    "verify --all",
)  # fmt: skip


@pytest.mark.parametrize("line", READING)
@pytest.mark.parametrize("place", ["missing/deep", "empty", "other"])
def test_a_verb_that_reads_makes_no_store(
    layerfs: CommandLine, tmp_path: Path, line: str, place: str
) -> None:
    store = tmp_path / place
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir(mode=0o755)
    (tmp_path / "other/file").write_bytes(b"somebody's")

    verb, *words = line.split()
    done = layerfs(verb, "--store", store, *words, code=3)

    assert (
        f"layerfs: {store}: no store there (expected one that layerfs pull or mount has made" in done.stderr
    )
    assert done.stdout == ""
    assert not (tmp_path / "missing").exists()
    assert os.listdir(tmp_path / "empty") == []
    assert os.listdir(tmp_path / "other") == ["file"]
