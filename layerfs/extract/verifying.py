"""One blob hashed while it comes, and nothing else. Drives `tail` and `hashing`; called by `worker`."""

from layerfs.errors import DigestMismatch, LayerfsError
from layerfs.extract.hashing import Hash
from layerfs.extract.job import Failed, Hashed, HashJob
from layerfs.extract.tail import GivenUp, Growth, Tail


def run(job: HashJob, growth: Growth) -> Hashed | Failed:
    """Read the blob to its end; answer Failed unless it is what the job says."""
    hasher = Hash(job.digest.partition(":")[0])
    failure: LayerfsError | None = None
    size = 0
    try:
        tail = Tail(job.blob, job.size, growth, hasher)
        try:
            tail.drain()
            tail.check_size()
        finally:
            size = tail.offset
            tail.close()
    except LayerfsError as exc:
        failure = exc
    found = hasher.finish()
    if failure is None and found != job.digest:
        failure = DigestMismatch(f"blob: hashes to {found} (expected {job.digest})")
    if failure is None:
        return Hashed(found, size)
    name = "LayerfsError" if isinstance(failure, GivenUp) else type(failure).__name__
    return Failed(name, str(failure))
