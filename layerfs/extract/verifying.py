"""One blob hashed while it comes, and nothing else. Drives `tail` and `hashing`; called by `worker`."""

from layerfs import errors
from layerfs.errors import LayerfsError
from layerfs.extract.hashing import Hash, check_digest
from layerfs.extract.job import Failed, Hashed, HashJob
from layerfs.extract.tail import Growth, Tail


def run(job: HashJob, growth: Growth) -> Hashed | Failed:
    """Read the blob to its end; answer Failed unless it is what the job says."""
    hasher = Hash(job.digest.partition(":")[0])
    try:
        tail = Tail(job.blob, job.size, growth, hasher)
        try:
            tail.drain()
            tail.check_size()
        finally:
            tail.close()
        check_digest(hasher.finish(), job.digest)
    except LayerfsError as exc:
        return Failed(errors.name_of(exc), str(exc))
    return Hashed(job.digest, tail.offset)
