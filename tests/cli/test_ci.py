"""docs/ci.md says of exit codes what the manual says, and of verbs and options what the program has."""

import re
import shutil
from pathlib import Path

import pytest

from layerfs.cli.failures import EXIT_CODES
from layerfs.cli.interrupts import SIGNALS
from layerfs.cli.manual import EXITS
from tests.cli.conftest import CommandLine
from tests.cli.test_words import verbs
from tests.support.images import file, image, layer, write_layout

_TEXT = (Path(__file__).parents[2] / "docs/ci.md").read_text("utf-8")
_YAML = re.findall(r"^```yaml\n(.*?)^```\n", _TEXT, re.MULTILINE | re.DOTALL)


def test_the_exit_codes_are_those_of_the_manual() -> None:
    section = _TEXT.partition("## Exit codes\n")[2].partition("\n## ")[0]
    assert re.findall(r"^\| ([\d, ]+) \| (.+) \|$", section, re.MULTILINE) == list(EXITS)


def test_the_manual_has_every_exit_code() -> None:
    told = {int(code) for codes, _ in EXITS for code in codes.split(", ")}
    assert told == {0} | {code for _, code in EXIT_CODES} | {128 + number for number in SIGNALS}


@pytest.mark.parametrize("text", _YAML, ids=["GitHub", "GitLab"])
def test_the_verbs_and_options_of_an_example_exist(text: str) -> None:
    known = {name: {flag for param in command.params for flag in param.opts} for name, command in verbs()}
    calls = re.findall(r"\blayerfs ([a-z]+)([^|<>\n]*)", text)
    assert len(calls) >= 3
    for verb, rest in calls:
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", rest)) <= known[verb], verb


@pytest.mark.parametrize("text", _YAML, ids=["GitHub", "GitLab"])
def test_an_example_caches_what_a_copy_needs(text: str) -> None:
    kept = re.findall(r"store/([a-z]+)", text)
    assert sorted(kept) == ["configs", "layers", "manifests", "refs"]


@pytest.mark.parametrize("part", ["layers", "manifests", "configs"])
def test_wrong_bytes_of_a_restored_cache_are_not_used(
    layerfs: CommandLine, tmp_path: Path, part: str
) -> None:
    built = image(layer(file("motd", b"hello"), command="COPY motd /"))
    layerfs("import", f"oci:{write_layout(tmp_path / 'lay', built)}", "registry.test/a:1")
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o700)
    for kept in ("refs", "manifests", "configs", "layers"):
        shutil.copytree(layerfs.store / kept, cache / kept)
    [damaged] = (cache / part).iterdir()
    content = bytearray(damaged.read_bytes())
    content[40] ^= 1
    damaged.write_bytes(content)
    where = ("--offline", "--store", cache, "-o", tmp_path / "tar")
    done = layerfs("export", "registry.test/a:1", *where, code=5)
    assert "not in the store, and offline" in done.stderr
    assert not (tmp_path / "tar").exists()
