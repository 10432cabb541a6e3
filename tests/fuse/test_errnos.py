"""Every error of layerfs has an errno, found by its class or its family; nothing hangs a caller."""

import errno
import os
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
import trio

from layerfs import errors
from layerfs.fuse.errnos import ERRNOS, errno_of, fuse_request, translate


def families(cls: type[Exception]) -> list[type[Exception]]:
    return [cls, *(below for child in cls.__subclasses__() for below in families(child))]


@pytest.mark.parametrize("cls", families(errors.LayerfsError), ids=lambda cls: cls.__name__)
def test_every_error_class_has_an_errno(cls: type[Exception]) -> None:
    number = errno_of(cls("text"))
    assert number is not None
    assert 0 < number < 512


@pytest.mark.parametrize(
    ("error", "number"),
    [
        pytest.param(errors.NotFound(""), errno.ENOENT, id="not in the registry"),
        pytest.param(errors.Denied(""), errno.EACCES, id="denied"),
        pytest.param(errors.DiffIdMismatch(""), errno.EIO, id="by its family"),
        pytest.param(errors.UnsupportedImage(""), errno.EOPNOTSUPP, id="artifact"),
        pytest.param(errors.StoreFull(""), errno.ENOSPC, id="full"),
        pytest.param(errors.WaitInterrupted(""), errno.EINTR, id="interrupted"),
        pytest.param(trio.TooSlowError(), errno.ETIMEDOUT, id="trio's deadline"),
        pytest.param(OSError(errno.ELOOP, ""), errno.ELOOP, id="the errno of an OSError"),
        pytest.param(OSError("no number"), errno.EIO, id="an OSError without errno"),
        pytest.param(OSError(errno.ENOSYS, ""), errno.EIO, id="ENOSYS would switch the operation off"),
        pytest.param(OSError(512, ""), errno.EIO, id="a number that the kernel refuses"),
        pytest.param(OSError(-5, ""), errno.EIO, id="a negative number"),
        pytest.param(ValueError(), None, id="a bug"),
    ],
)
def test_an_error_becomes_the_nearest_errno(error: Exception, number: int | None) -> None:
    assert errno_of(error) == number


def test_the_table_names_no_number_that_switches_an_operation_off() -> None:
    assert errno.ENOSYS not in ERRNOS.values()


@pytest.mark.allow_warnings
def test_the_same_failure_of_many_callers_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(200):
        translate("open", errors.DigestMismatch("layer x: sha256:a (expected sha256:b)"))
    translate("open", errors.DigestMismatch("layer y: sha256:a (expected sha256:b)"))
    assert len(caplog.records) == 2
    assert "open: DigestMismatch: layer x" in caplog.text


async def test_a_cancelled_request_is_not_answered() -> None:
    async def later() -> bytes:
        await trio.sleep(60)
        return b""

    @fuse_request
    def handler() -> bytes | Coroutine[Any, Any, bytes]:
        return later()

    with trio.move_on_after(0) as scope:
        await handler()
    assert scope.cancelled_caught


def test_readme_explains_the_words_that_ls_has_for_what_happens() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text("utf-8")
    told = re.findall(
        r"^\| ([^|]+?) \|", text.partition("## When something fails")[2].partition("## ")[0], re.MULTILINE
    )
    expected = (
        errors.NotFound, errors.Denied, errors.Unreachable, errors.RegistryTimeout, errors.Offline,
        errors.DigestMismatch, errors.StoreFull,
    )  # fmt: skip
    words = [os.strerror(errno_of(cls("")) or 0) for cls in expected]
    assert told[1:] == [*words, os.strerror(errno.ENOTCONN)]
