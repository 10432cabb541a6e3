"""What a store has of an image, read and kept without trio, HTTP or workers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import click

from layerfs.api.here import require_platform, runs_on
from layerfs.cli.opening import open_store
from layerfs.errors import StoreError
from layerfs.oci import Image, Manifest, Platform
from layerfs.settings import Settings
from layerfs.store import ImageStorage


@contextmanager
def opened(settings: Settings) -> Iterator[ImageStorage]:
    """Yield the store; remove behind the block what dead processes left. Raises what `open_store` does."""
    with open_store(settings) as storage:
        try:
            yield storage
        finally:
            if not storage.readonly:
                with suppress(StoreError):  # leftovers cost room and nothing else
                    storage.sweep_staged()


def _say(text: str) -> None:
    click.echo(text, err=True)


def image_of(
    storage: ImageStorage,
    manifest: Manifest,
    wanted: Platform | None,
    say: Callable[[str], None] = _say,
) -> Image:
    """Pair a manifest with its config, both in the store; warn of an image for another machine.

    Raises UnsupportedImage for an artifact, PlatformMissing for an image of another platform than was said.
    """
    manifest.require_image()
    image = Image.of(manifest, storage.load_config(manifest.config.digest))
    warn_of_platform(image, wanted, say)
    return image


def warn_of_platform(image: Image, wanted: Platform | None, say: Callable[[str], None] = _say) -> None:
    """Warn of an image for another machine. Raises PlatformMissing for one of another than was *wanted*."""
    require_platform(image, wanted)
    usual = Platform.of_this_machine()
    if wanted is None and not runs_on(image, usual):
        about = f"an image for {image.config.platform} alone (this is {usual})"
        say(f"layerfs: {image.manifest.digest}: {about}")
