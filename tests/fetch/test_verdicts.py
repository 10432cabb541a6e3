"""Who is blamed: every way in which a download and the extraction that reads it can end."""

import pytest

from layerfs import errors
from layerfs.errors import LayerfsError
from layerfs.fetch.verdicts import Verdict, is_stored_blob_suspect, judge, may_be_wrong_bytes

BY_WRONG_BYTES = {
    "InvalidLayer",
    "InvalidArchive",
    "InvalidToc",
    "PathEscape",
    "InvalidWhiteout",
    "VerificationError",
    "SizeMismatch",
    "DigestMismatch",
    "DiffIdMismatch",
}
"""What an extractor may say of a blob that the registry falsified."""
DAMAGE = {"SizeMismatch", "DigestMismatch"}
"""What it says of a blob in the store that is damaged."""

KINDS = {
    name: kind
    for name, kind in vars(errors).items()
    if isinstance(kind, type) and issubclass(kind, LayerfsError)
}


@pytest.mark.parametrize("name", KINDS)
def test_what_wrong_bytes_can_look_like(name: str) -> None:
    assert may_be_wrong_bytes(KINDS[name]("x")) == (name in BY_WRONG_BYTES)
    assert is_stored_blob_suspect(KINDS[name]("x")) == (name in DAMAGE)


LOST = errors.Unreachable("the connection broke")
EXCESS = errors.SizeMismatch("more bytes came")
DISK = errors.StoreFull("no space")
ABORTED = LayerfsError("aborted: the blob will not be completed")
BROKEN = errors.InvalidArchive("no tar")
WRONG = errors.DigestMismatch("other bytes")
HUGE = errors.BudgetExceeded("too large")
DIED = errors.WorkerDied("killed")


@pytest.mark.parametrize(
    ("download", "extraction", "verdict"),
    [
        pytest.param(None, None, Verdict(None), id="both good: publish"),
        pytest.param(LOST, ABORTED, Verdict(LOST), id="starved by the download"),
        pytest.param(LOST, None, Verdict(LOST), id="extracted, but not whole"),
        pytest.param(LOST, BROKEN, Verdict(LOST), id="both: the download comes first"),
        pytest.param(LOST, DIED, Verdict(LOST), id="both: also before a dead worker"),
        pytest.param(EXCESS, ABORTED, Verdict(EXCESS), id="the registry sends too much"),
        pytest.param(DISK, ABORTED, Verdict(DISK), id="the disk is full of the blob"),
        pytest.param(None, BROKEN, Verdict(BROKEN, hash_first=True), id="no archive, or wrong bytes"),
        pytest.param(None, WRONG, Verdict(WRONG, hash_first=True), id="another digest"),
        pytest.param(None, HUGE, Verdict(HUGE), id="too large: the image's fault"),
        pytest.param(None, DISK, Verdict(DISK), id="the disk is full of the tree"),
        pytest.param(None, DIED, Verdict(DIED), id="a dead worker"),
    ],
)
def test_who_is_blamed(
    download: LayerfsError | None, extraction: LayerfsError | None, verdict: Verdict
) -> None:
    assert judge(download, extraction) == verdict
