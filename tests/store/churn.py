"""One of several processes that use the same store at random: ``python -m tests.store.churn``.

Arguments: store, directory of blobs, seconds, seed. Writes a line to standard output for each piece of work
that it really did, ``download <digest>``, ``extract <digest>``, ``remove <digest>``; fails on any error.
"""

import os
import random
import sys
import time
from pathlib import Path

from layerfs.extract.client import Keep
from layerfs.layer.record import Extraction
from layerfs.oci import Digest, Repository
from layerfs.store import ImageStorage
from layerfs.store.extraction import Extractors

AT_LEAST = 100
"""Steps, however slow the machine is."""

REPOSITORY = Repository.of("r.io", "churn/repository")


def say(what: str, digest: Digest) -> None:
    """Report one piece of work; a short write to a pipe is never torn."""
    os.write(1, f"{what} {digest}\n".encode())


class Reporting(Extractors):
    """Says what it extracts."""

    def extract(self, blob: Path, digest: Digest, target: Path, keep: Keep) -> Extraction:
        """Extract and report."""
        found = super().extract(blob, digest, target, keep)
        say("extract", digest)
        return found


class Churn:
    """What one process does."""

    def __init__(self, store: Path, blobs: Path, seed: int) -> None:
        self.storage = ImageStorage(store)
        self.storage._extractors = Reporting(
            lambda: self.storage.capabilities, self.storage._extractors.budgets
        )
        self.blobs = {Digest.of(path.read_bytes()): path.read_bytes() for path in sorted(blobs.iterdir())}
        self.random = random.Random(seed)

    def step(self) -> None:
        """Do one thing to one layer."""
        digest = self.random.choice(list(self.blobs))
        actions = {
            self.fetch: 6, self.extract: 8, self.remove: 3, self.discard: 2, self.look: 6, self.list: 2,
            self.sweep: 1, self.settle: 1, self.cover: 2,
        }  # fmt: skip
        [action] = self.random.choices(list(actions), list(actions.values()))
        action(digest)

    def fetch(self, digest: Digest) -> None:
        """Download, sometimes broken off."""
        with self.storage.lock(digest):
            if self.storage.open_blob(digest) is not None:
                return
            content = self.blobs[digest]
            with self.storage.stage_layer_download(digest, len(content)) as staged:
                staged.write(content[staged.offset : staged.offset + self.random.randrange(len(content))])
                if self.random.random() < 0.3:
                    return
                staged.write(content[staged.offset :])
                staged.commit()
            say("download", digest)
        self.storage.refs.write(REPOSITORY.with_tag(digest.hex[:8]), digest)

    def extract(self, digest: Digest) -> None:
        """Extract what was downloaded."""
        blob = self.storage.open_blob(digest)
        if blob is not None:
            try:
                self.storage.extract_layer(digest, blob.path)
            except Exception:
                if self.storage.has_layer(digest):  # else another process removed it: no fault
                    raise

    def remove(self, digest: Digest) -> None:
        """Remove blob and tree."""
        with self.storage.lock(digest):
            blob, layer = self.storage.open_blob(digest), self.storage.open_layer(digest)
            assert self.storage.remove_layer(digest) == (blob is not None or layer is not None)
            say("remove", digest)
        self.storage.refs.remove(REPOSITORY.with_tag(digest.hex[:8]))

    def discard(self, digest: Digest) -> None:
        """Remove the tree alone."""
        with self.storage.lock(digest):
            self.storage.discard_layer(digest)
            say("discard", digest)

    def look(self, digest: Digest) -> None:
        """Look at a layer that nobody removes meanwhile: it is all there."""
        with self.storage.lock(digest):
            layer = self.storage.open_layer(digest)
            if layer is not None:
                number = (layer.path / "number").read_bytes()
                assert (layer.path / "directory/same").read_bytes() == number
                assert (layer.path / "directory/.wh.gone").exists()
                assert layer.record.layer.entries == 4
            if self.storage.has_layer(digest):
                assert self.storage.verify_layer(digest, tree=False)

    def list(self, digest: Digest) -> None:
        """List refs; every one is readable."""
        for name, entry in self.storage.refs.all():
            assert name.tag
            assert name.tag.name == entry.digest.hex[:8]
        assert set(self.storage.refs.tags(REPOSITORY)) <= {known.hex[:8] for known in self.blobs}

    def sweep(self, digest: Digest) -> None:
        """Sweep what is left over, while others work."""
        self.storage.sweep()

    def settle(self, digest: Digest) -> None:
        """Make durable."""
        self.storage.make_durable()

    def cover(self, digest: Digest) -> None:
        """Publish a cover of one layer, and sometimes remove it."""
        with self.storage.lock(digest):
            if self.storage.open_layer(digest) is not None:
                assert self.storage.publish_cover([digest]).is_dir()
            if self.random.random() < 0.3:
                self.storage.discard_cover([digest])


def main() -> None:
    """Churn until the time is over."""
    store, blobs, seconds, seed = sys.argv[1:]
    churn = Churn(Path(store), Path(blobs), int(seed))
    end, steps = time.monotonic() + float(seconds), 0
    with churn.storage:
        while steps < AT_LEAST or time.monotonic() < end:
            churn.step()
            steps += 1


if __name__ == "__main__":
    main()
