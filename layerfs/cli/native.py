"""The native lower directories of an image: as they are here, or else fetched.

What is here already needs neither trio nor HTTP nor a worker, which take most of the time of a short command.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from layerfs.api.here import image_here, kept, layers_here, stack_paths
from layerfs.cli import interrupts
from layerfs.cli.here import opened, warn_of_platform
from layerfs.cli.opening import is_store
from layerfs.oci import Image, ImageReference
from layerfs.oci.image import ImageLayer
from layerfs.settings import Settings
from layerfs.store import LayerDir
from layerfs.store.records import Merger

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from layerfs.extract.client import ExtractorPool


def use_native_stack(
    settings: Settings,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    fetch: bool = True,
    named: bool = False,
    merger: Merger = "",
) -> None:
    """Call *use* with the native lower directories of an image, topmost first, and make them durable after.

    They are those for *merger*. Nobody removes them meanwhile; if *named*, not for some time after. Unless
    *fetch* they need not be there. Raises StoreUnfit where the kernel cannot use the layers of this store,
    NotInStore without *fetch* if the manifest is not here, LayerfsError.
    """
    if fetch and use_as_it_is(settings, reference, use, named=named, merger=merger):
        return
    with _extractors(settings, reference, fetch=fetch) as pool:
        from layerfs.cli import running

        running.fetch_native_stack(
            settings, reference, use, fetch=fetch, named=named, merger=merger, pool=pool
        )


def use_as_it_is(
    settings: Settings,
    reference: ImageReference,
    use: Callable[[list[str]], object],
    *,
    named: bool = False,
    merger: Merger = "",
) -> bool:
    """Do as `use_native_stack` if nothing has to be fetched or made for it; say whether that was so."""
    if not is_store(settings.store):
        return False
    with opened(settings) as storage, interrupts.finishing():
        form = storage.capabilities
        if not (form.marker_names if merger else form.whiteout_devices):
            return False
        here = image_here(storage, reference, settings.preferred_platform)
        if here is None:
            return False
        _, image = here
        with kept(storage, image, merger, named=named):
            layers = [layer.digest for layer in image.layers]  # looked for again, now that nobody takes them
            if storage.cover(layers, merger) is None or layers_here(storage, image) is None:
                return False
            warn_of_platform(image, settings.platform)
            use(stack_paths(storage, image, merger))
        storage.make_durable()
    return True


def have_layers(settings: Settings, reference: ImageReference) -> list[LayerDir]:
    """Fetch the layers of an image where they are not here; return them, base first. Raises LayerfsError."""
    return [layer for _, layer in have_image(settings, reference)[1]]


def have_image(
    settings: Settings, reference: ImageReference
) -> tuple[Image, list[tuple[ImageLayer, LayerDir]]]:
    """Fetch an image where it is not here; return it with its layer directories. Raises LayerfsError."""
    if is_store(settings.store):
        with opened(settings) as storage:
            _, image = image_here(storage, reference, settings.preferred_platform) or (None, None)
            found = layers_here(storage, image) if image else None
        if image and found is not None:
            warn_of_platform(image, settings.platform)
            return image, list(zip(image.layers, found, strict=True))
    with _extractors(settings, reference) as pool:
        from layerfs.cli import running

        return running.fetched_image(settings, reference, pool=pool)


def _extractors(
    settings: Settings, reference: ImageReference, *, fetch: bool = True
) -> "AbstractContextManager[ExtractorPool]":
    """Return extractors; one starts now if an image is to be fetched that the store has no name of."""
    from layerfs.cli.early import extractors, is_unknown

    return extractors(needed=fetch and not settings.offline and is_unknown(settings, [str(reference)]))
