"""Messages between a helper and its owner: whole however they are cut, exact whatever they carry."""

import os
from pathlib import Path

import msgspec
import pytest

from layerfs.errors import WorkerDied
from layerfs.fetch.operations import FetchConfig, FetchManifest, Receive, Resolve, operations
from layerfs.oci import Descriptor, Digest, Repository
from layerfs.processes.frames import Unframer
from layerfs.processes.messages import (
    Answered,
    Ask,
    Cancel,
    Start,
    Told,
    frame,
    from_helper,
    packed,
    to_helper,
    unpacked,
)
from layerfs.registry import RegistrySettings, RetryPolicy


def test_messages_come_whole_however_they_are_cut() -> None:
    sent = [Told(7, 1 << 40), Answered(3, packed(b"\0\xff")), Told(8, 0)]
    data = b"".join(map(frame, sent))
    for size in (1, 3, 7, len(data)):
        unframer = Unframer()
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        bodies = [body for piece in pieces for body in unframer.feed(piece)]
        assert [from_helper.decode(body) for body in bodies] == sent


def test_a_message_without_an_end_is_refused() -> None:
    with pytest.raises(WorkerDied, match="at most"):
        list(Unframer().feed(b"\xff\xff\xff\xff"))


def test_each_question_survives_the_way() -> None:
    repository, digest = Repository("docker.io", "library/alpine"), Digest.of(b"x")
    descriptor = Descriptor("t", digest, 5, ("https://x/y",), b"inner", None, None, {"a": "b"})
    for question in (
        Resolve(repository.with_tag("3.20")),
        FetchManifest(repository, digest),
        FetchManifest(repository, digest, 7),
        FetchConfig(repository, descriptor),
        Receive(repository, descriptor, 17, "/store/x", 18),
    ):
        (body,) = Unframer().feed(frame(Ask(1, packed(question), 2)))
        ask = to_helper.decode(body)
        assert isinstance(ask, Ask)
        assert operations.decode(ask.operation) == question


def test_settings_reach_the_helper_whole() -> None:
    """Also paths that are no text."""
    settings = RegistrySettings(
        insecure=frozenset({"a", "b:5000"}),
        offline=True,
        authfile=Path(os.fsdecode(b"/odd\xff\n")),
        certs_dirs=(Path("/a"), Path(os.fsdecode(b"/\xfe"))),
        allowed=frozenset({"c"}),
        retry=RetryPolicy(attempts=2),
        environment={"HOME": "/root"},
    )
    (body,) = Unframer().feed(frame(Start(packed(settings), 20)))
    start = to_helper.decode(body)
    assert isinstance(start, Start)
    assert unpacked(start.settings, RegistrySettings) == settings


def test_what_cannot_be_sent_or_read_is_an_error() -> None:
    with pytest.raises(NotImplementedError, match="object"):
        packed(object())
    with pytest.raises(msgspec.DecodeError):
        unpacked(packed("text"), int)
    assert to_helper.decode(msgspec.json.encode(Cancel(5))) == Cancel(5)
