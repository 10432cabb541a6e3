"""What a command and a daemon say to each other: command lines that are read here, requests as bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from layerfs.delegation.wire import (
    REQUEST_MAX,
    VARIABLES,
    PullRequest,
    PullWords,
    ScreenSize,
    variables_of,
    wanted,
)

_CLEAR = {
    "a": PullWords(("a",), "lines", False, {}),
    "a b": PullWords(("a", "b"), "lines", False, {}),
    "-q a": PullWords(("a",), "digests", False, {}),
    "a --quiet -q": PullWords(("a",), "digests", False, {}),
    "--json a --all-platforms": PullWords(("a",), "json", True, {}),
    "--platform linux/arm64 a": PullWords(("a",), "lines", False, {"platform": "linux/arm64"}),
    "--platform=linux/arm64 --store=/s a": PullWords(
        ("a",), "lines", False, {"platform": "linux/arm64", "store": "/s"}
    ),
    "--store /s --store /t a": PullWords(("a",), "lines", False, {"store": "/t"}),
}
_UNCLEAR = [
    "", "-q", "--help", "a --help", "-q --json a", "--json=true a", "--platform", "a --platform",
    "--platform= a",
    "--platform -q a", "-- a", "-qq a", "--no-daemon a", "--daemon a", "--creds me a", "--offline a",
]  # fmt: skip


@pytest.mark.parametrize("line", _CLEAR)
def test_a_command_line_that_leaves_no_doubt_is_read(line: str) -> None:
    assert wanted(line.split()) == _CLEAR[line]


@pytest.mark.parametrize("line", _UNCLEAR)
def test_any_other_is_left_to_who_reads_all_of_them(line: str) -> None:
    assert wanted(line.split()) is None
    assert wanted(["a", ""]) is None


_texts = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=20) | st.just("\udcff")


@given(
    words=st.lists(_texts).map(tuple),
    values=st.dictionaries(st.sampled_from([*sorted(VARIABLES), "LAYERFS_A"]), _texts),
    screen=st.builds(
        ScreenSize, st.integers(0, 99999), st.integers(0, 99), st.integers(0, 99), st.booleans()
    ),
)
def test_a_request_arrives_as_it_was_sent(
    words: tuple[str, ...], values: dict[str, str], screen: ScreenSize
) -> None:
    request = PullRequest("0.1", screen, words, values)

    raw = request.packed()

    assert int.from_bytes(raw[:4], "big") == len(raw) - 4
    assert PullRequest.parse(raw[4:]) == request


_WHOLE = PullRequest("0.1", ScreenSize(80, 80, 24, True), ("a", "b"), {"HOME": "/root"}).packed()[4:]


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"0.1", b"0.1\x0080,80,24,1", b"0.1\x0080,80,24\x000", b"0.1\x0080,80,24,1,1\x000",
        b"0.1\x008x,80,24,1\x000", b"0.1\x00-1,80,24,1\x000", b"0.1\x00999999,80,24,1\x000",
        b"0.1\x0080,80,24,1\x009\x00a", b"0.1\x0080,80,24,1\x00-1\x00a",
        b"0.1\x0080,80,24,1\x00\xd9\xa1\x00a",
        b"0.1\x0080,80,24,1\x000\x00HOME", b"0.1\x0080,80,24,1\x000\x00PATH=/bin", b"\0" * 1000,
        b"0.1\x0080,80,24,1\x001001" + b"\0a" * 1001,
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of any kind
        PullRequest.parse(raw)


@given(raw=st.binary(max_size=200) | st.integers(0, len(_WHOLE)).map(lambda end: _WHOLE[:end]))
def test_whatever_comes_is_a_request_or_a_value_error(raw: bytes) -> None:
    try:
        PullRequest.parse(raw)
    except ValueError:
        return
    assert len(raw) < REQUEST_MAX


def test_only_what_decides_of_the_environment_is_sent() -> None:
    environ = {"HOME": "/root", "LAYERFS_STORE": "/s", "PATH": "/bin", "AWS_SECRET": "x", "no_proxy": "a"}

    assert variables_of(environ) == {"HOME": "/root", "LAYERFS_STORE": "/s", "no_proxy": "a"}
