"""Any sequence of stagings, writes, interruptions and endings agrees with a model of a few lines."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from layerfs.errors import SizeMismatch, VerificationError
from layerfs.oci import Digest
from layerfs.store import ImageStorage, StagedDownload
from tests.store.helpers import leftovers

CONTENTS = [b"a" * 20, b"the second blob", b""]


class StagingAgreesWithAModel(RuleBasedStateMachine):
    """`suspended` holds the lengths of what waits, `open` what is being written."""

    downloads = Bundle("downloads")

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="layerfs-staging-"))
        self.storage = ImageStorage(self.directory)
        self.suspended: dict[Digest, list[bytes]] = {Digest.of(content): [] for content in CONTENTS}
        self.written: dict[StagedDownload, bytes] = {}
        self.published: set[Digest] = set()

    def teardown(self) -> None:
        for download in self.written:
            download.abort()
        shutil.rmtree(self.directory)

    @rule(target=downloads, content=st.sampled_from(CONTENTS), sized=st.booleans())
    def stage(self, content: bytes, sized: bool) -> StagedDownload:
        digest = Digest.of(content)
        waiting = self.suspended[digest]
        # Among equal lengths any may be taken; a sized download removes what is too long for it.
        download = self.storage.stage_layer_download(digest, len(content) if sized else -1)
        if sized and content:
            too_long = [part for part in waiting if len(part) > len(content)]
            for part in too_long:
                waiting.remove(part)
        longest = max(map(len, waiting), default=0)
        assert download.offset == longest
        found = download.staged_path.read_bytes()
        if longest:
            waiting.remove(found)
        assert len(found) == longest
        self.written[download] = found
        return download

    @rule(download=downloads, right=st.booleans(), count=st.integers(0, 12))
    def write(self, download: StagedDownload, right: bool, count: int) -> None:
        content = next(content for content in CONTENTS if Digest.of(content) == download.digest)
        chunk = content[download.offset : download.offset + count] if right else b"x" * count
        try:
            download.write(chunk)
        except SizeMismatch:
            assert len(self.written[download]) + len(chunk) > len(content)
        else:
            self.written[download] += chunk

    @rule(download=consumes(downloads))
    def suspend(self, download: StagedDownload) -> None:
        download.suspend()
        left = self.written.pop(download)
        if left:
            self.suspended[download.digest].append(left)

    @rule(download=consumes(downloads))
    def abort(self, download: StagedDownload) -> None:
        download.abort()
        del self.written[download]

    @rule(download=consumes(downloads))
    def commit(self, download: StagedDownload) -> None:
        right = Digest.of(self.written.pop(download)) == download.digest
        try:
            blob = download.commit()
        except VerificationError:
            assert not right
        else:
            assert right
            assert blob.path == self.storage.layer_tarball_path(download.digest)
            self.published.add(download.digest)

    @rule()
    def restart(self) -> None:
        self.storage = ImageStorage(self.directory)

    @rule(target=downloads)
    def sweep(self) -> object:
        self.storage.sweep()
        return multiple()

    @invariant()
    def agree(self) -> None:
        staged = [*self.written.values(), *(part for parts in self.suspended.values() for part in parts)]
        assert sorted(map(len, staged)) == sorted(os.path.getsize(path) for path in leftovers(self.directory))
        for content in CONTENTS:
            digest = Digest.of(content)
            blob = self.storage.open_blob(digest)
            assert (blob is not None) == (digest in self.published)
            assert blob is None or blob.path.read_bytes() == content


@pytest.mark.timeout(600)
@pytest.mark.parametrize("examples", [40, pytest.param(500, marks=pytest.mark.long)])
def test_staging_agrees_with_a_model(examples: int) -> None:
    run_state_machine_as_test(
        StagingAgreesWithAModel,
        settings=settings(max_examples=examples, stateful_step_count=25, deadline=None),
    )
