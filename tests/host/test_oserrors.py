"""One errno means one thing, whoever meets it."""

import errno
import os
from pathlib import Path

import pytest

from layerfs.errors import (
    Denied,
    InvalidArchive,
    LayerfsError,
    NotFound,
    StoreError,
    StoreFull,
    StoreReadOnly,
)
from layerfs.host.oserrors import disk_errors, source_error, store_error


def failure(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "family"),
    [
        (errno.ENOSPC, StoreFull),
        (errno.EDQUOT, StoreFull),
        (errno.EROFS, StoreReadOnly),
        (errno.EACCES, StoreReadOnly),
        (errno.EPERM, StoreReadOnly),
        (errno.EIO, StoreError),
    ],
)
def test_the_errno_of_the_store_decides(number: int, family: type[StoreError]) -> None:
    with pytest.raises(StoreError, match=r"^the thing: ") as caught, disk_errors("the thing"):
        raise failure(number)
    assert type(caught.value) is family
    assert os.strerror(number) in str(caught.value)


def test_an_error_without_a_number_keeps_its_text() -> None:
    assert str(store_error(OSError("odd"), "the thing")) == "the thing: odd"


@pytest.mark.parametrize(
    ("number", "family"),
    [
        (errno.ENOENT, NotFound),
        (errno.ENOTDIR, NotFound),
        (errno.EACCES, Denied),
        (errno.EPERM, Denied),
        (errno.EISDIR, InvalidArchive),
        (errno.ELOOP, InvalidArchive),
        (errno.EIO, StoreError),
        (errno.ENOSPC, StoreFull),
    ],
)
def test_the_errno_of_a_source_decides(number: int, family: type[LayerfsError]) -> None:
    error = source_error(failure(number), Path("/image.tar"))

    assert type(error) is family
    assert str(error).startswith("/image.tar: ")
