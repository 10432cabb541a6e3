"""``layerfs save``: an image of the store as an OCI archive, an OCI layout or a docker archive."""

from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from layerfs.api.here import kept_whole
from layerfs.cli import interrupts, options, takes
from layerfs.cli.app import app
from layerfs.cli.here import opened
from layerfs.cli.opening import reference_of
from layerfs.cli.outputs import output_directory, output_file, require_output
from layerfs.errors import DigestMismatch, NotInStore, SizeMismatch, StoreDamaged, StoreError, UsageError
from layerfs.local.saving import (
    Opened,
    Outermost,
    SavedFile,
    blob_name,
    docker_files,
    layer_name,
    layout_files,
    write_archive,
    write_directory,
)
from layerfs.oci import Digest, Image, ImageReference
from layerfs.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerfs.api.machinery import Machinery
    from layerfs.cli.whole import Whole
    from layerfs.oci.image import ImageLayer
    from layerfs.store import ImageStorage, VerifiedBlob

Form = Literal["oci-archive", "oci-dir", "docker-archive"]


@app.verb(epilog="Example: layerfs save docker.io/library/alpine:3.20 -o alpine.tar")
@options.configured(*options.FETCHING)
def save(
    settings: Settings,
    reference: options.Reference,
    output: Annotated[
        str, takes.option("--output", "-o", metavar="FILE", help="Where to write; - is standard output.")
    ] = "-",
    form: Annotated[
        Form,
        takes.option(
            "--format",
            metavar="FORMAT",
            help="oci-archive (default), oci-dir or docker-archive, whose layers are uncompressed.",
        ),
    ] = "oci-archive",
    all_platforms: Annotated[
        bool, takes.option("--all-platforms", help="Save all platforms, and what is listed beside.")
    ] = False,
) -> None:
    """Write an image as an archive that other tools load.

    What is not in the store is fetched before. In the OCI forms all digests are those that the registry has;
    skopeo, podman and layerfs import read them.
    """
    from layerfs.cli.running import with_provider

    named = reference_of(settings, reference)
    if form == "oci-dir" and output == "-":
        raise UsageError("save: an oci-dir needs a name (say -o DIR)")
    if form == "docker-archive" and all_platforms:
        raise UsageError("save: a docker-archive holds one platform (say --format oci-archive)")
    require_output("save", output, directory=form == "oci-dir")
    whole = with_provider(settings, partial(_fetch, named, every=all_platforms))
    _save(settings, named, whole, output, form)


def _save(settings: Settings, named: ImageReference, whole: "Whole", output: str, form: Form) -> None:
    """Write *whole*, which is in the store. Raises LayerfsError, Interrupted."""
    with opened(settings) as storage, kept_whole(storage, whole.documents[0].digest):
        contents = (_docker if form == "docker-archive" else _layout)(storage, named, whole)
        try:
            with interrupts.undoing():
                _write(contents, output, form)
        except OSError as exc:
            raise StoreError(f"{named}: save to {output}: {exc.strerror or exc}") from exc
        except (SizeMismatch, DigestMismatch) as exc:
            raise StoreDamaged(f"{named}: {exc}; layerfs verify --repair {named} mends it") from exc


async def _fetch(reference: ImageReference, machinery: "Machinery", *, every: bool) -> "Whole":
    from layerfs.api.machinery import pinned
    from layerfs.cli.whole import fetch_whole

    digest = await pinned(machinery, reference)
    with kept_whole(machinery.storage, digest):
        return await fetch_whole(machinery, reference, digest, every=every)


def _write(contents: "Iterator[SavedFile]", output: str, form: Form) -> None:
    """Write *contents*. Raises OSError, LayerfsError, Interrupted."""
    if form == "oci-dir":
        with output_directory(output) as directory:
            write_directory(contents, directory)
    else:
        with output_file(output) as write:
            write_archive(contents, write)


def _layout(storage: "ImageStorage", reference: ImageReference, whole: "Whole") -> "Iterator[SavedFile]":
    """Yield the files of a layout: its own, the documents, the blobs."""
    outermost = whole.documents[0]
    named = Outermost(outermost.digest, len(outermost.raw), outermost.media_type, reference)
    yield from layout_files(named)
    for document in whole.documents:
        yield SavedFile.of(blob_name(document.digest), document.raw, document.digest)
    for config in whole.configs.values():
        path = storage.config_path(config.digest)
        yield SavedFile.of_file(blob_name(config.digest), config.digest, config.size, path)
    for digest, layer in whole.blobs.items():
        if digest not in whole.configs:
            yield SavedFile.of_file(blob_name(digest), digest, layer.size, _blob(storage, digest).path)


def _docker(storage: "ImageStorage", reference: ImageReference, whole: "Whole") -> "Iterator[SavedFile]":
    """Yield the files of a docker archive: config, list, plain layers."""
    from layerfs.store.archives import archive_of

    (manifest,) = whole.manifests
    image = Image.of(manifest, storage.load_config(manifest.config.digest))
    yield from docker_files(image.config, manifest.config.digest, reference)
    for layer in {layer.diff_id: layer for layer in image.layers}.values():
        opened = partial(archive_of, _blob(storage, layer.digest))
        yield SavedFile(layer_name(layer.diff_id), layer.diff_id, _plain_size(storage, layer, opened), opened)


def _plain_size(storage: "ImageStorage", layer: "ImageLayer", opened: Opened) -> int:
    """Return how many bytes the archive of a layer has; a header says it before they come.

    Raises DiffIdMismatch where the image claims another archive than its blob holds, if that is sound.
    """
    extracted = storage.open_layer(layer.digest)
    if extracted is not None:
        layer.require(extracted.record.layer.diff_ids)
        return extracted.record.layer.tar_size
    hasher, size = layer.diff_id.hasher(), 0
    with opened() as chunks:
        for chunk in chunks:
            hasher.update(chunk)
            size += len(chunk)
    found = Digest.finish(layer.diff_id.algorithm, hasher)
    if found != layer.diff_id and storage.verify_layer(layer.digest):
        layer.require((str(found),))
    return size


def _blob(storage: "ImageStorage", digest: Digest) -> "VerifiedBlob":
    blob = storage.open_blob(digest)
    if blob is None:
        raise NotInStore(f"{digest}: fetched, but removed again meanwhile; try again")
    return blob
