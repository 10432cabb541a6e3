"""Who is at fault, for every combination of what can go wrong with one job."""

import pytest

from layerfs.errors import (
    BudgetExceeded,
    DigestMismatch,
    GivenUp,
    InvalidArchive,
    LayerfsError,
    SizeMismatch,
    StoreError,
)
from layerfs.extract.pipeline import verdict
from layerfs.extract.writer import Unwritten, Written

WRITTEN = Written(entries=1, files=1, file_bytes=1, rows=(0, 0, 0, 0), tables=(0, 0, 0, 0), warnings=())
UNWRITTEN = Unwritten("PathEscape", "the archive leaves its directory")
WRONG = DigestMismatch("other bytes")
SIZE, DISK, GONE = SizeMismatch("longer"), StoreError("cannot read"), GivenUp("aborted")
ARCHIVE, BUDGET = InvalidArchive("broken"), BudgetExceeded("too much")

Reason = LayerfsError | Unwritten | None


@pytest.mark.parametrize(
    ("failure", "written", "wrong", "expected"),
    [
        pytest.param(None, WRITTEN, None, None, id="nothing"),
        pytest.param(None, WRITTEN, WRONG, WRONG, id="only the digest"),
        pytest.param(None, UNWRITTEN, None, UNWRITTEN, id="only the tree"),
        pytest.param(None, UNWRITTEN, WRONG, WRONG, id="other bytes that make no tree"),
        *(
            pytest.param(failure, written, wrong, failure, id=f"{type(failure).__name__} before all else")
            for failure in (SIZE, DISK, GONE)
            for written in (WRITTEN, UNWRITTEN)
            for wrong in (None, WRONG)
        ),
        *(
            pytest.param(failure, written, None, failure, id=f"{type(failure).__name__} of the right bytes")
            for failure in (ARCHIVE, BUDGET)
            for written in (WRITTEN, UNWRITTEN)
        ),
        *(
            pytest.param(failure, written, WRONG, WRONG, id=f"{type(failure).__name__} of other bytes")
            for failure in (ARCHIVE, BUDGET)
            for written in (WRITTEN, UNWRITTEN)
        ),
    ],
)
def test_one_is_at_fault(
    failure: LayerfsError | None, written: Written | Unwritten, wrong: DigestMismatch | None, expected: Reason
) -> None:
    assert verdict(failure, written, wrong) is expected
