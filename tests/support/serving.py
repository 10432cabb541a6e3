"""Stores with images that were never pulled, and `layerfs serve` as the real process before them."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from layerfs.oci import Digest, Repository
from layerfs.store import ImageStorage
from tests.support.daemon import LAYERFS, clean_environment
from tests.support.images import Built, BuiltIndex

_STOP_SECONDS = 60.0


def fill(storage: ImageStorage, name: str, tag: str, built: Built) -> Repository:
    """Put all of *built* into a store as a pull would, but for the directories; pin the tag."""
    repository = Repository.parse(name)
    for one in built.images if isinstance(built, BuiltIndex) else (built,):
        storage.save_config(one.config, one.config_digest)
        for layer in one.layers:
            put_blob(storage, layer.digest, layer.blob)
    for document in built.manifests():
        storage.save_manifest(document.manifest, document.digest)
    storage.refs.write(repository.with_tag(tag), built.digest)
    return repository


def put_blob(storage: ImageStorage, digest: Digest, content: bytes) -> None:
    """Put one verified blob into a store."""
    if not storage.has_layer(digest):
        with storage.stage_layer_download(digest, len(content)) as staged:
            staged.write(content)
            staged.commit()


@dataclass(frozen=True)
class Serving:
    """One server process."""

    process: subprocess.Popen[str]
    address: str
    """``HOST:PORT``, or the path of a socket."""
    log_file: Path

    def log(self) -> str:
        """Return what it has logged so far."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextlib.contextmanager
def serving(
    store: Path,
    *arguments: str,
    listen: str = "127.0.0.1:0",
    before: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Run ``layerfs serve`` for a block, with *before* in front of the command; it has ended afterwards."""
    place = ["--listen", listen] if listen else []
    command = [*before, *LAYERFS, "serve", "--store", str(store), *place, "--json", *arguments]
    log_file = store.with_name(f"{store.name}.serve.log")
    with log_file.open("ab") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=clean_environment() | dict(environment or {}),
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log_file.read_text()
        [address] = json.loads(line)["addresses"]
        yield Serving(process, address.removeprefix("unix:"), log_file)
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
