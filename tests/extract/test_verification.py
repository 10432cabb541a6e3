"""A tree is only answered for if the blob is the one that was promised; and it may come while it grows."""

import os
import threading
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layerfs.errors import (
    BudgetExceeded,
    DigestMismatch,
    InvalidArchive,
    LayerfsError,
    PathEscape,
    SizeMismatch,
    StoreError,
)
from layerfs.extract.client import ExtractorPool
from layerfs.extract.job import ExtractJob
from layerfs.layer.budgets import Budgets
from tests.extract.extracting import Extract, digest_of
from tests.layer.headers import END, header, member, pax
from tests.support.images import compress, directory, file, flip_byte, tar

ARCHIVE = tar([file(f"f{n}", os.urandom(5000)) for n in range(300)])
BLOB = compress(ARCHIVE, "gzip")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_both_digests_are_computed_from_the_bytes(extract: Extract, algorithm: str) -> None:
    tree = extract(archive=BLOB, digest=digest_of(BLOB, algorithm))

    assert tree.extraction.digest == digest_of(BLOB, algorithm)
    assert tree.extraction.diff_id == digest_of(ARCHIVE)
    assert set(tree.extraction.diff_ids) == {digest_of(ARCHIVE), digest_of(ARCHIVE, algorithm)}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_archive_that_is_the_blob_has_the_digests_of_both(extract: Extract, algorithm: str) -> None:
    tree = extract(archive=ARCHIVE, digest=digest_of(ARCHIVE, algorithm))

    assert set(tree.extraction.diff_ids) == {digest_of(ARCHIVE), digest_of(ARCHIVE, algorithm)}


@pytest.mark.parametrize(
    ("sent", "changes", "error"),
    [
        pytest.param(BLOB, {"digest": "sha256:" + "0" * 64}, DigestMismatch, id="another digest"),
        pytest.param(flip_byte(BLOB, 4), {}, DigestMismatch, id="a byte without meaning"),
        pytest.param(flip_byte(BLOB), {}, DigestMismatch, id="a byte of the compressed data"),
        pytest.param(flip_byte(BLOB, 20), {}, DigestMismatch, id="an early byte"),
        pytest.param(BLOB[:-1], {"size": len(BLOB)}, SizeMismatch, id="one byte missing"),
        pytest.param(BLOB[:100], {"size": len(BLOB)}, SizeMismatch, id="most missing"),
        pytest.param(b"", {"size": len(BLOB)}, SizeMismatch, id="all missing"),
        pytest.param(BLOB + b"\0", {"size": len(BLOB)}, SizeMismatch, id="one byte too many"),
        pytest.param(BLOB[:-1], {"size": -1}, DigestMismatch, id="truncated, of unknown size"),
        pytest.param(BLOB + bytes(9), {"size": -1}, DigestMismatch, id="too long, of unknown size"),
    ],
)
def test_a_blob_that_is_not_the_one_promised_is_refused_as_that(
    extract: Extract, sent: bytes, changes: dict[str, Any], error: type[LayerfsError]
) -> None:
    with pytest.raises(error):
        extract(archive=sent, **({"digest": digest_of(BLOB)} | changes))


def test_bytes_behind_the_end_of_the_archive_are_hashed_and_nothing_else(extract: Extract) -> None:
    archive = header(b"f") + END + header(b"g") + b"garbage" * 100_000

    tree = extract(archive=archive)

    assert tree.names() == {"f"}
    assert tree.extraction.diff_id == digest_of(archive)
    assert tree.extraction.tar_size == len(archive)


def _grow(pool: ExtractorPool, job: ExtractJob, blob: bytes, sizes: list[int]) -> Any:
    """Run *job* while its blob grows to each of *sizes* and then to its end."""
    with pool.extractor() as extractor, open(job.blob, "wb", buffering=0) as file:
        extractor.start(job)
        results: list[Any] = []

        def result() -> None:
            try:
                results.append(extractor.result())
            except LayerfsError as exc:
                results.append(exc)

        thread = threading.Thread(target=result)
        thread.start()
        written = 0
        for size in sizes:
            file.write(blob[written:size])
            written = max(written, size)
            extractor.grown(written)
        file.write(blob[written:])
        extractor.ended(len(blob))
        thread.join()
        (answer,) = results
        return answer


@given(sizes=st.lists(st.integers(0, len(BLOB)), max_size=6).map(sorted))
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
def test_a_blob_may_grow_in_any_steps_while_it_is_extracted(extract: Extract, sizes: list[int]) -> None:
    found = _grow(extract.pool, extract.job(BLOB, complete=False), BLOB, sizes)

    assert (found.digest, found.diff_id, found.entries) == (digest_of(BLOB), digest_of(ARCHIVE), 300)


def test_a_growing_blob_is_verified_too(extract: Extract) -> None:
    wrong = flip_byte(BLOB, 4)

    found = _grow(extract.pool, extract.job(BLOB, complete=False), wrong, [1000])

    assert isinstance(found, DigestMismatch)


def test_a_growing_blob_that_is_too_long_is_refused_at_once(extract: Extract) -> None:
    with extract.pool.extractor() as extractor:
        job = extract.job(BLOB + b"x", complete=False, size=len(BLOB), digest=digest_of(BLOB))
        extractor.start(job)
        extractor.grown(len(BLOB) + 1)
        with pytest.raises(SizeMismatch):
            extractor.result()


def test_a_growing_blob_that_ends_too_early_is_refused(extract: Extract) -> None:
    found = _grow(
        extract.pool,
        extract.job(b"", complete=False, size=len(BLOB) + 1, digest=digest_of(BLOB)),
        BLOB,
        [len(BLOB)],
    )

    assert isinstance(found, SizeMismatch)


def test_a_bad_archive_is_answered_before_the_rest_of_a_growing_blob_comes(extract: Extract) -> None:
    archive = header(b"../evil") + bytes(1 << 20)
    with extract.pool.extractor() as extractor:
        extractor.start(extract.job(archive, complete=False, size=2 << 20))
        extractor.grown(len(archive))
        with pytest.raises(PathEscape):
            extractor.result()


def test_an_aborted_download_ends_the_job_and_not_the_worker(extract: Extract) -> None:
    with extract.pool.extractor() as extractor:
        pid = extractor.pid
        extractor.start(extract.job(BLOB[:5000], complete=False, size=len(BLOB), digest=digest_of(BLOB)))
        extractor.grown(5000)
        extractor.abort()
        with pytest.raises(LayerfsError, match="aborted"):
            extractor.result()
        extractor.start(extract.job(BLOB))
        assert extractor.result().entries == 300
        assert extractor.pid == pid


def test_messages_about_a_job_that_was_answered_are_ignored(extract: Extract) -> None:
    with extract.pool.extractor() as extractor:
        for _ in range(3):
            extractor.start(extract.job(BLOB))
            extractor.result()
            extractor.grown(5)
            extractor.ended(7)
            extractor.abort()


def test_a_blob_that_is_not_there_is_the_stores_fault(extract: Extract) -> None:
    job = msgspec.structs.replace(extract.job(BLOB), blob="/nonexistent/blob")

    with pytest.raises(StoreError, match="nonexistent"):
        extract.run(job)


def test_a_target_that_is_not_empty_is_refused(extract: Extract) -> None:
    job = extract.job(BLOB)
    with open(f"{job.target}/file", "wb"):
        pass

    with pytest.raises(StoreError, match="not empty"):
        extract.run(job)


def _sparse(name: bytes, size: int) -> bytes:
    return pax((b"GNU.sparse.size", b"%d" % size), (b"GNU.sparse.map", b"0,1")) + member(b"x", name=name)


_BIG = compress(tar([file("zeros", bytes(70 << 20))]), "gzip")


@pytest.mark.parametrize(
    ("archive", "budgets", "setting"),
    [
        pytest.param(ARCHIVE, Budgets(max_entries=299), "max_entries", id="entries"),
        pytest.param(BLOB, Budgets(max_layer_bytes=len(ARCHIVE) - 1), "max_layer_bytes", id="bytes"),
        pytest.param(
            pax((b"GNU.sparse.size", b"9" * 18), (b"GNU.sparse.map", b"0,1")) + member(b"x") + END,
            Budgets(), "max_layer_bytes", id="bytes of a sparse file",
        ),
        pytest.param(
            b"".join(_sparse(b"f%d" % n, 1 << 39) for n in range(3)) + END, Budgets(), "max_layer_bytes",
            id="bytes of sparse files in sum: sparse_petabyte",
        ),
        pytest.param(_BIG, Budgets(max_ratio=100), "max_ratio", id="ratio"),
        pytest.param(tar([file("a/" * 20 + "f")]), Budgets(max_depth=20), "max_depth", id="depth"),
        pytest.param(tar([directory("a/" * 21)]), Budgets(max_depth=20), "max_depth", id="depth, directory"),
        pytest.param(
            tar([directory("a/" * depth) for depth in range(1, 21)] + [file("a/" * 20 + "f")]),
            Budgets(max_depth=20),
            "max_depth",
            id="depth, each directory listed",
        ),
        pytest.param(
            tar([file("f", xattrs={"user.a": b"x" * 2000})]), Budgets(max_pax_bytes=1000), "max_pax_bytes",
            id="extended header",
        ),
    ],
)  # fmt: skip
def test_budgets_are_kept_and_named(extract: Extract, archive: bytes, budgets: Budgets, setting: str) -> None:
    with pytest.raises(BudgetExceeded, match=setting):
        extract(archive=archive, budgets=budgets)


def test_budgets_that_just_suffice_suffice(extract: Extract) -> None:
    budgets = Budgets(max_entries=300, max_layer_bytes=len(ARCHIVE), max_depth=1)

    assert extract(archive=BLOB, budgets=budgets).extraction.entries == 300
    assert extract(archive=_BIG).extraction.file_bytes == 70 << 20


@pytest.mark.parametrize("blocks", range(len(tar([file("a", b"x" * 700), directory("d")])) // 512 - 1))
def test_an_archive_cut_off_inside_a_member_is_refused(extract: Extract, blocks: int) -> None:
    archive = tar([file("a", b"x" * 700), directory("d")])[: blocks * 512]
    complete: dict[int, set[str]] = {0: set(), 3: {"a"}}
    if blocks >= 4 or blocks in complete:  # as Go and GNU tar see it; the digest says the rest
        assert extract(archive=archive).names() == complete.get(blocks, {"a", "d"})
    else:
        with pytest.raises(InvalidArchive):
            extract(archive=archive)


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "growing"])
def test_a_sound_layer_may_begin_with_zeros(extract: Extract, complete: bool) -> None:
    """At the first bytes of it the ratio is much larger than that of the whole."""
    archive = tar([file("zeros", bytes(100 << 20)), file("noise", os.urandom(4 << 20))])
    job = extract.job(compress(archive, "zstd"), budgets=Budgets(max_ratio=40), complete=complete)
    with extract.pool.extractor() as extractor:
        extractor.start(job)
        if not complete:
            extractor.ended(job.size)
        assert extractor.result().files == 2


def test_pax_cpu_unbounded(extract: Extract) -> None:
    """Headers that cost much more time to read than to inflate."""
    header_of_many = pax(*[(b"a", b"b")] * 15_000)
    archive = compress((header_of_many + member(b"", name=b"f")) * 400 + END, "zstd")

    with pytest.raises(BudgetExceeded, match="max_cpu_seconds"):
        extract(archive=archive, budgets=Budgets(max_cpu_seconds=1))
