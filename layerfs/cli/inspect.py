"""``layerfs inspect``, ``history``, ``digest``, ``tags``: what images and registries say of themselves."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import click
import msgspec

from layerfs import naming
from layerfs.api.here import image_here
from layerfs.catalog.state import LayerStatus, about_lazy, layer_status, why_not_lazy, why_whole
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.here import image_of, opened
from layerfs.cli.opening import is_store, reference_of
from layerfs.cli.output import print_cut, print_document, print_json
from layerfs.cli.several import Unmet, each, end
from layerfs.errors import UsageError
from layerfs.oci import Digest, Image, ImageReference, Manifest, Repository
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.store import ImageStorage
from layerfs.view.texts import command_text, history_text, state_text

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.registry.client import RegistryClient


class Tags(msgspec.Struct, frozen=True):
    """What a registry has of a repository."""

    repository: Repository
    tags: list[str]

    def to_json(self, key: str) -> dict[str, object]:
        """Return what ``--json`` prints; *key* says what the repository is."""
        return {key: str(self.repository), "tags": self.tags}


@app.verb(epilog="Example: layerfs inspect docker.io/library/alpine:3.20 --config | jq .config.Env")
@options.configured(*options.FETCHING)
def inspect(
    settings: Settings,
    references: options.References,
    raw: Annotated[bool, takes.option("--raw", help="Print the manifest as served.")] = False,
    config: Annotated[bool, takes.option("--config", help="Print the config as served.")] = False,
    index: Annotated[bool, takes.option("--index", help="Print what the tag names, as served.")] = False,
    runtime: Annotated[
        bool, takes.option("--runtime", help="Print how a container starts, as JSON.")
    ] = False,
) -> None:
    """Show images as JSON.

    Of several, one object follows the other. Their documents are fetched, no layers.
    """
    given = {"--raw": raw, "--config": config, "--index": index, "--runtime": runtime}
    if sum(given.values()) > 1:
        raise UsageError(f"{' '.join(name for name in given if given[name])}: expected one of them alone")
    if len(references) > 1 and (raw or config or index):
        raise UsageError("inspect: documents as served cannot be told apart (expected one REFERENCE)")

    def show(storage: ImageStorage, named: ImageReference, digest: Digest, manifest: Manifest) -> None:
        if index:
            print_document(storage.load_manifest(digest).raw)
        elif raw:
            print_document(manifest.raw)
        elif config:
            print_document(storage.load_config(manifest.config.digest).raw)
        elif runtime:
            print_json(_runtime(image_of(storage, manifest, settings.platform)))
        else:
            image = image_of(storage, manifest, settings.platform)
            print_json(_summary(image, named, digest) | {"layers": _layers(storage, image)})

    _with_documents(settings, references, show)


@app.verb(epilog="Example: layerfs history docker.io/library/alpine:3.20")
@options.configured(*options.FETCHING)
def history(settings: Settings, reference: options.Reference, as_json: options.Json = False) -> None:
    """Show the layers of an image: size, state, command that made it.

    The numbers are the names in layers/ of a mount: what layer 03 has is in layers/03/diff/. On a terminal a
    long command is cut; a pipe, into less(1) for instance, gets all of it.
    """

    def show(storage: ImageStorage, _: ImageReference, __: Digest, manifest: Manifest) -> None:
        image = image_of(storage, manifest, settings.platform)
        if as_json:
            print_json(_layers(storage, image))
        else:
            states = {layer.digest: state_text(_status(storage, layer)) for layer in image.layers}
            for line in history_text(image, states.__getitem__, why_not_lazy).decode().splitlines():
                print_cut(line)

    _with_documents(settings, [reference], show)


@app.verb(epilog="Example: layerfs digest docker.io/library/alpine:3.20")
@options.configured(*options.ASKING, *options.STORE)
def digest(settings: Settings, references: options.References) -> None:
    """Ask the registry which digest REFERENCE names now.

    Of some digits of a digest in the store it prints all.
    """
    from layerfs.cli.running import with_client

    async def work(client: "RegistryClient") -> list[Digest | Unmet]:
        async def ask(text: str) -> Digest:
            target = reference_of(settings, text).target
            found = target if isinstance(target, Digest) else (await client.resolve(target)).digest
            click.echo(found)
            return found

        return await each(references, ask)

    end(with_client(settings, work))


@app.verb(epilog="Example: layerfs tags docker.io/library/alpine")
@options.configured(*options.ASKING)
def tags(
    settings: Settings,
    repositories: Annotated[list[str], takes.argument(metavar="REPOSITORY", help="[REGISTRY/]NAME")],
    as_json: options.Json = False,
) -> None:
    """List the tags that the registry has.

    Of several repositories they are printed as references.
    """
    from layerfs.cli.running import with_client

    alone = len(repositories) == 1

    async def work(client: "RegistryClient") -> list[Tags | Unmet]:
        async def ask(text: str) -> Tags:
            repository = naming.repository(settings, text)
            found = Tags(repository, await client.tags(repository))
            for tag in () if as_json else found.tags:
                click.echo(tag if alone else repository.with_tag(tag))
            return found

        results = await each(repositories, ask)
        if as_json:
            print_json([one.to_json("repository") for one in results])
        return results

    end(with_client(settings, work))


def _with_documents(
    settings: Settings,
    references: list[str],
    show: Callable[[ImageStorage, ImageReference, Digest, Manifest], None],
) -> None:
    """Call *show* with each image, what it names and the manifest below that, once all of it is here."""
    named = {text: reference_of(settings, text) for text in references}
    if len(references) == 1 and is_store(settings.store):
        with opened(settings) as storage:
            if here := image_here(storage, named[references[0]], settings.preferred_platform):
                digest, image = here
                show(storage, named[references[0]], digest, image.manifest)
                return
    from layerfs.api.machinery import manifest_of, pinned
    from layerfs.cli.running import with_provider

    async def main(machinery: "Machinery") -> list[Unmet | None]:
        async def one(text: str) -> None:
            digest = await pinned(machinery, named[text])
            manifest = await manifest_of(machinery, named[text], digest)
            show(machinery.storage, named[text], digest, manifest)

        return await each(references, one)

    end(with_provider(settings, main))


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
            "state": (status := _status(storage, layer)).state,
            **about_lazy(layer.key, status, why_whole(layer)),
            "created_by": command_text(command),
        }
        for layer, command in zip(image.layers, image.commands(), strict=True)
    ]


def _status(storage: "ImageStorage", layer: ImageLayer) -> LayerStatus:
    return layer_status(storage, layer.key, storage.lazy.count)


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
