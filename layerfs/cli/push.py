"""``layerfs push``: an image of the store into a registry, bit for bit."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from layerfs import naming
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.completion import complete_reference
from layerfs.cli.opening import reference_of
from layerfs.cli.output import print_json
from layerfs.errors import NotInStore, Offline, StoreDamaged, UsageError
from layerfs.oci import Descriptor, Digest, ImageReference
from layerfs.oci.mediatype import is_foreign
from layerfs.settings import Access, Settings
from layerfs.view.texts import human_size

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.cli.pushing import Upload
    from layerfs.cli.whole import Whole
    from layerfs.registry.client import RegistryClient
    from layerfs.registry.upload import Way
    from layerfs.store import ImageStorage


class Pushed(msgspec.Struct, frozen=True):
    """What one push did."""

    reference: ImageReference
    destination: ImageReference
    digest: Digest
    parts: "list[tuple[Upload, Way]]"

    def summary(self) -> str:
        """Return the line for people."""
        sent = [part.size for part, way in self.parts if way == "uploaded"]
        mounted = sum(way == "mounted" for _, way in self.parts)
        more = f", {mounted} mounted" if mounted else ""
        size = human_size(sum(sent))
        return f"{self.destination}: {len(self.parts)} blobs, {len(sent)} uploaded ({size}){more}"

    def to_json(self) -> dict[str, object]:
        """Return what ``--json`` prints."""
        return {
            "reference": str(self.reference),
            "destination": str(self.destination),
            "digest": str(self.digest),
            "blobs": [
                {"digest": str(part.digest), "size": part.size, "pushed": way} for part, way in self.parts
            ],
        }


@app.verb(epilog="Example: layerfs push alpine:3.20 ghcr.io/me/alpine:3.20")
@options.configured(*options.FETCHING)
def push(
    settings: Settings,
    reference: options.Reference,
    destination: Annotated[
        str | None,
        takes.argument(
            metavar="DESTINATION",
            help="[REGISTRY/]NAME[:TAG] to push to (default: REFERENCE).",
            shell_complete=complete_reference,
        ),
    ] = None,
    all_platforms: Annotated[
        bool, takes.option("--all-platforms", help="Push all platforms, and what is listed beside.")
    ] = False,
    quiet: Annotated[bool, takes.option("--quiet", "-q", help="Print the digest only.")] = False,
    as_json: options.Json = False,
) -> None:
    """Push an image of the store to a registry.

    What is not in the store is fetched before. All digests stay what they are. Blobs that the registry has
    are not sent, those of another repository of it are mounted.

    --creds, --tls-verify and --cert-dir are for DESTINATION, and for REFERENCE if it is at the same registry.
    """
    from layerfs.cli.running import with_provider

    if quiet and as_json:
        raise UsageError("push: --quiet and --json (expected one of the two)")
    named = reference_of(settings, reference)
    target = naming.reference(settings, destination) if destination else named
    if settings.offline:
        raise Offline(f"push to {target}: a registry has to be contacted; run with --online")
    work = partial(_push, settings, named, target, every=all_platforms, silent=quiet)
    pushed = with_provider(_for_source(settings, named, target), work)
    if as_json:
        print_json(pushed.to_json())
    elif quiet:
        click.echo(pushed.digest)
    else:
        click.echo(f"{target}: {pushed.digest}\n{pushed.summary()}")


def _for_source(settings: Settings, source: ImageReference, destination: ImageReference) -> Settings:
    """Return how to fetch what is missing: a login for one registry is nothing to another."""
    if source.repository.registry == destination.repository.registry:
        return settings
    access = Access(retry=settings.access.retry, timeout=settings.access.timeout)
    return msgspec.structs.replace(settings, access=access)


async def _push(
    settings: Settings,
    reference: ImageReference,
    destination: ImageReference,
    machinery: "Machinery",
    *,
    every: bool,
    silent: bool,
) -> Pushed:
    from layerfs import app as wiring
    from layerfs.api.here import kept_whole
    from layerfs.api.machinery import pinned
    from layerfs.cli.pushing import Pushing
    from layerfs.cli.whole import fetch_whole

    digest = await pinned(machinery, reference)
    with kept_whole(machinery.storage, digest):
        whole = await fetch_whole(machinery, reference, digest, every=every, needed=_is_pushed)
        found = whole.documents[0].digest
        if destination.digest not in (None, found):
            raise UsageError(
                f"{destination}: the image is {found} (expected DESTINATION with a tag, or that)"
            )
        uploads = _uploads(machinery.storage, whole)
        try:
            async with wiring.asking(settings) as client:
                source, target = reference.repository, destination.repository
                mounted_from = source if source.registry == target.registry and source != target else None
                done = await Pushing(client, target, mounted_from, silent=silent).push(uploads)
                await _push_documents(client, destination, whole)
        except StoreDamaged as exc:
            raise StoreDamaged(f"{reference}: {exc}; layerfs verify --repair {reference} mends it") from exc
    return Pushed(reference, destination, found, done)


def _uploads(storage: "ImageStorage", whole: "Whole") -> "list[Upload]":
    """Return what the registry must have before the manifests. Raises NotInStore."""
    from layerfs.cli.pushing import Upload

    parts = {
        one.digest: Upload(one.digest, one.size, str(storage.config_path(one.digest)))
        for one in whole.configs.values()
    }
    for layer in whole.blobs.values():
        if not _is_pushed(layer):
            continue
        blob = storage.open_blob(layer.digest)
        if blob is None and layer.digest not in parts:
            raise NotInStore(f"{layer.digest}: fetched, but removed again meanwhile; try again")
        if blob is not None:
            parts[layer.digest] = Upload(layer.digest, layer.size, str(blob.path))
    return list(parts.values())


def _is_pushed(layer: Descriptor) -> bool:
    """Say whether a registry gets a layer; a foreign one stays where its URLs lead to."""
    return not (is_foreign(layer.media_type) and layer.urls)


async def _push_documents(client: "RegistryClient", destination: ImageReference, whole: "Whole") -> None:
    """Push manifests and indexes, each behind what it names; the outermost one by its tag, at the end."""
    from layerfs.registry.body import Body

    for document in whole.inside_out():
        name: str | Digest = document.digest
        if document is whole.documents[0] and destination.tag is not None:
            name = destination.tag.name
        body = Body.of(document.raw, document.media_type)
        await client.push_manifest(destination.repository, name, document.digest, body)
