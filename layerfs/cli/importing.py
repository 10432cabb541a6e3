"""``layerfs import``: images on this disk into the store, by the same way as those of a registry."""

import sys
from typing import TYPE_CHECKING, Annotated

import click

from layerfs import naming
from layerfs.cli import options, takes
from layerfs.cli.app import app
from layerfs.cli.output import print_json
from layerfs.errors import UnsupportedImage, UsageError
from layerfs.oci import Platform, Tag
from layerfs.settings import Settings

if TYPE_CHECKING:
    from layerfs.api.machinery import Machinery
    from layerfs.local import Contents, SourceImage, SourceName


@app.verb("import", epilog="Example: layerfs import oci:./alpine:3.20 docker.io/library/alpine:3.20")
@options.configured(*options.STORE, "share_store", "platform")
def import_(
    settings: Settings,
    source: Annotated[
        str,
        takes.argument(
            metavar="SOURCE",
            help="oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:REFERENCE] or dir:DIR",
        ),
    ],
    reference: Annotated[
        str | None,
        takes.argument(
            metavar="REFERENCE",
            help="The name in the store (default: the full name in SOURCE, else localhost/NAME:TAG).",
        ),
    ] = None,
    every: Annotated[bool, takes.option("--all", help="Import all images of SOURCE.")] = False,
    copy: Annotated[
        bool, takes.option("--copy", help="Copy layers where they could be shared with SOURCE by a link.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Bring images of archives and layouts into the store.

    They are verified and extracted, and their references printed. SOURCE is what skopeo, podman, docker and
    other tools write. Layers that are files of their own share their bytes with the store where the
    filesystem can do that: by reflink, else by hard link.
    """
    from layerfs.cli.running import with_provider
    from layerfs.local import SourceName, open_source
    from layerfs.local.origin import LocalOrigin

    parsed = SourceName.parse(source)
    contents = open_source(parsed)
    named = _named(contents, parsed, _target(settings, reference), settings.preferred_platform, every=every)

    async def work(machinery: "Machinery") -> None:
        await _import_all(machinery, named, every=every, as_json=as_json)

    with_provider(settings, work, LocalOrigin(contents, str(parsed), {}, link=not copy))


def _named(
    contents: "Contents", source: "SourceName", target: Tag | None, wanted: Platform, *, every: bool
) -> "list[tuple[Tag, SourceImage]]":
    """Return the images to import under their names.

    Raises UsageError, NotFound, PlatformMissing.
    """
    from layerfs.local import by_name, choose

    if every and (target or source.image):
        raise UsageError(
            "--all takes the names that the images carry (expected SOURCE without a name, alone)"
        )
    if every:
        return list(by_name(contents.images, source, wanted).items())
    image = choose(contents.images, source, wanted)
    return [(target or image.tag(source), image)]


async def _import_all(
    machinery: "Machinery", named: "list[tuple[Tag, SourceImage]]", *, every: bool, as_json: bool
) -> None:
    """Import the images one by one; of *every* one in a source, those that are none are left out."""
    results = []
    for target, image in named:
        try:
            done = await _import(machinery, target, image, silent=as_json or not sys.stderr.isatty())
        except UnsupportedImage as exc:
            if not every:
                raise
            click.echo(f"layerfs: {target}: left out: {exc}", err=True)
            continue
        results.append(done)
        if not as_json:
            click.echo(target)
    if as_json:
        print_json(results)


async def _import(
    machinery: "Machinery", target: Tag, source: "SourceImage", *, silent: bool
) -> dict[str, object]:
    """Have everything of one image, and only then its name."""
    from layerfs.api.here import kept_whole
    from layerfs.api.machinery import fetch_image, made_durable, manifest_of
    from layerfs.cli.here import image_of
    from layerfs.cli.progress import shown

    storage = machinery.storage
    async with made_durable(storage):
        with kept_whole(storage, source.digest):
            manifest = await manifest_of(machinery, target, source.digest)
            image = image_of(storage, manifest, machinery.platform)
            blobs = {layer.digest for layer in image.layers}
            present = frozenset(blob for blob in blobs if storage.open_layer(blob) is not None)
            async with shown(machinery.provider.journal, image, present, silent=silent):
                await fetch_image(machinery, target, image)
            storage.refs.write(target, source.digest)
    return {
        "reference": str(target),
        "digest": str(source.digest),
        "layers": [{"digest": str(layer.digest), "size": layer.size} for layer in image.layers],
    }


def _target(settings: Settings, reference: str | None) -> Tag | None:
    """Parse the name that the user chose. Raises InvalidReference, UsageError."""
    if reference is None:
        return None
    parsed = naming.reference(settings, reference)
    if parsed.digest is not None or parsed.tag is None:
        raise UsageError(f"{reference}: a digest follows from the image (expected a name with a tag)")
    return parsed.tag
