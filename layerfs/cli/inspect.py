"""``layerfs inspect``, ``history``, ``digest``, ``tags``: what images and registries say of themselves."""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

import typer

from layerfs.catalog.state import layer_state
from layerfs.cli import options
from layerfs.cli.app import app
from layerfs.cli.opening import reference_of
from layerfs.cli.output import print_document, print_json
from layerfs.errors import UsageError
from layerfs.oci import Digest, Image, ImageReference, Manifest, Repository
from layerfs.settings import Settings
from layerfs.view.texts import command_text, history_text

if TYPE_CHECKING:
    from layerfs.cli.running import Machinery
    from layerfs.registry.client import RegistryClient
    from layerfs.store import ImageStorage


@app.command(epilog="Example: layerfs inspect docker.io/library/alpine:3.20 --config | jq .config.Env")
@options.configured(*options.FETCHING)
def inspect(
    settings: Settings,
    reference: options.Reference,
    raw: Annotated[bool, typer.Option("--raw", help="Print the manifest as served.")] = False,
    config: Annotated[bool, typer.Option("--config", help="Print the config as served.")] = False,
    index: Annotated[bool, typer.Option("--index", help="Print what the tag names, as served.")] = False,
    runtime: Annotated[
        bool, typer.Option("--runtime", help="Print how a container starts, as JSON.")
    ] = False,
) -> None:
    """Show an image as JSON. Fetches its documents, no layers."""
    given = {"--raw": raw, "--config": config, "--index": index, "--runtime": runtime}
    if sum(given.values()) > 1:
        raise UsageError(f"{' '.join(name for name in given if given[name])}: expected one of them alone")
    from layerfs.cli.running import image_of

    named = reference_of(settings, reference)

    async def work(machinery: "Machinery", digest: Digest, manifest: Manifest) -> None:
        storage = machinery.storage
        if index:
            print_document(storage.load_manifest(digest).raw)
        elif raw:
            print_document(manifest.raw)
        elif config:
            print_document(storage.load_config(manifest.config.digest).raw)
        elif runtime:
            print_json(_runtime(image_of(machinery, manifest)))
        else:
            image = image_of(machinery, manifest)
            print_json(_summary(image, named, digest) | {"layers": _layers(storage, image)})

    _with_documents(settings, named, work)


@app.command(epilog="Example: layerfs history docker.io/library/alpine:3.20")
@options.configured(*options.FETCHING)
def history(settings: Settings, reference: options.Reference, as_json: options.Json = False) -> None:
    """Show the layers of an image: size, state, command that made it."""
    from layerfs.cli.running import image_of

    async def work(machinery: "Machinery", _: Digest, manifest: Manifest) -> None:
        image = image_of(machinery, manifest)
        if as_json:
            print_json(_layers(machinery.storage, image))
        else:
            text = history_text(image, lambda blob: layer_state(machinery.storage, blob))
            typer.echo(text.decode(), nl=False)

    _with_documents(settings, reference_of(settings, reference), work)


@app.command(epilog="Example: layerfs digest docker.io/library/alpine:3.20")
@options.configured(*options.ASKING, *options.STORE)
def digest(settings: Settings, reference: options.Reference) -> None:
    """Ask the registry which digest REFERENCE names now.

    Of some digits of a digest in the store it prints all.
    """
    from layerfs.cli.running import with_client

    target = reference_of(settings, reference).target
    if isinstance(target, Digest):
        typer.echo(target)
        return

    async def work(client: "RegistryClient") -> None:
        typer.echo((await client.resolve(target)).digest)

    with_client(settings, work)


@app.command(epilog="Example: layerfs tags docker.io/library/alpine")
@options.configured(*options.ASKING)
def tags(
    settings: Settings,
    repository: Annotated[str, typer.Argument(metavar="REPOSITORY", help="[REGISTRY/]NAME")],
    as_json: options.Json = False,
) -> None:
    """List the tags that the registry has."""
    from layerfs.cli.running import with_client

    parsed = Repository.parse(repository)

    async def work(client: "RegistryClient") -> None:
        found = await client.tags(parsed)
        if as_json:
            print_json(found)
        else:
            for tag in found:
                typer.echo(tag)

    with_client(settings, work)


def _with_documents(
    settings: Settings,
    reference: ImageReference,
    work: Callable[["Machinery", Digest, Manifest], Awaitable[None]],
) -> None:
    from layerfs.cli.running import manifest_of, pinned, with_provider

    async def main(machinery: "Machinery") -> None:
        digest = await pinned(machinery, reference)
        await work(machinery, digest, await manifest_of(machinery, reference, digest))

    with_provider(settings, main)


def _summary(image: Image, reference: ImageReference, digest: Digest) -> dict[str, object]:
    return {
        "reference": str(reference),
        "digest": str(digest),
        "manifest": str(image.manifest.digest),
        "config": str(image.manifest.config.digest),
        "media_type": image.manifest.media_type,
        "platform": str(image.config.platform),
        "created": image.config.created,
        "size": sum({x.digest: x.size for x in image.layers}.values()),
        "labels": image.config.runtime.labels,
    }


def _layers(storage: "ImageStorage", image: Image) -> list[dict[str, object]]:
    return [
        {
            "number": layer.number,
            "digest": str(layer.digest),
            "diff_id": str(layer.diff_id),
            "media_type": layer.descriptor.media_type,
            "size": layer.size,
            "state": layer_state(storage, layer.digest),
            "created_by": command_text(command),
        }
        for layer, command in zip(image.layers, image.commands(), strict=True)
    ]


def _runtime(image: Image) -> dict[str, object]:
    """Return how a container of the image starts (image-spec config.md, conversion.md)."""
    config = image.config.runtime
    return {
        "argv": [*config.entrypoint, *config.cmd],
        "env": list(config.env),
        "cwd": config.working_dir or "/",
        "user": config.user,
        "exposed_ports": list(config.exposed_ports),
        "volumes": list(config.volumes),
        "stop_signal": config.stop_signal or None,
    }
