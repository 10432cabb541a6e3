"""Who is to blame when a layer cannot be had. Pure: what ended how goes in, what to do about it comes out.

A layer is downloaded and extracted at once, so two things can fail, and each may be the other's fault: a
download that breaks off starves the extractor, and a registry that sends other bytes breaks the archive,
mostly before the digest tells. An error is blamed on the image only when the bytes are the ones that were
promised.
"""

import msgspec

from layerfs.errors import (
    BudgetExceeded,
    DigestMismatch,
    InvalidLayer,
    LayerfsError,
    SizeMismatch,
    VerificationError,
)


class Verdict(msgspec.Struct, frozen=True):
    """What becomes of a download and of the extraction that read it."""

    blamed: LayerfsError | None
    """What the caller is told; None: both are good, publish the layer."""
    hash_first: bool = False
    """The blob may hold wrong bytes: hash it. If it does, that is what the caller is told instead; if not, it
    is kept."""


def judge(download: LayerfsError | None, extraction: LayerfsError | None) -> Verdict:
    """Say whom to blame once both have ended; None stands for success, or for a download that was stopped.

    The download comes first: when it fails, the extractor fails for want of bytes.
    """
    if download is not None:
        return Verdict(download)
    if extraction is not None:
        return Verdict(extraction, hash_first=may_be_wrong_bytes(extraction))
    return Verdict(None)


def may_be_wrong_bytes(extraction: LayerfsError) -> bool:
    """Say whether the extractor of a blob that still comes could fail so because of wrong bytes.

    If not, the rest of the blob is of no use. BudgetExceeded is none of them: nobody has to download the rest
    of an archive that is too large.
    """
    return isinstance(extraction, InvalidLayer | VerificationError) and not isinstance(
        extraction, BudgetExceeded
    )


def is_stored_blob_suspect(extraction: LayerfsError) -> bool:
    """Say whether the extractor of a blob in the store could fail so because that is damaged.

    It reads a whole blob to the end and compares the digest before it blames the archive; but the size that
    it compares is the one that the manifest claims.
    """
    return isinstance(extraction, SizeMismatch | DigestMismatch)
