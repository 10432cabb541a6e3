"""An image mounted before it is here, for a command: by what is asked to serve its files, or else whole."""

import logging
import os
from collections.abc import Callable

import trio

from layerfs.api.lazystack import LazyStack, NotLazy, require_ability
from layerfs.api.lazystack import use_lazy_stack as use_stack
from layerfs.api.machinery import Machinery, manifest_of, pinned
from layerfs.cli.here import image_of
from layerfs.cli.running import native_stack, with_provider
from layerfs.errors import UsageError
from layerfs.host.readiness import NotReady, Standby
from layerfs.oci import ImageReference
from layerfs.settings import Settings
from layerfs.store.scratch import Scratch

log = logging.getLogger(__name__)


def use_lazy_stack(
    settings: Settings,
    reference: ImageReference,
    standby: Standby | None,
    target: bytes,
    use: Callable[[LazyStack, Scratch], object],
    whole: Callable[[list[str]], object] | None,
) -> None:
    """Call *use* with the stack of an image for an overlay at *target*, and the scratch that it lies in.

    *standby* says which mount can be asked for files of the store (`layerfs.cli.belldaemon`). Where the image
    has to be here before it is mounted, call *whole* with its native lower directories instead. Nothing
    removes what is passed meanwhile. Raises LayerfsError; UsageError for want of *whole*.
    """

    async def work(machinery: Machinery) -> None:
        try:
            await lazily(machinery)
        except NotLazy as exc:
            if whole is None:
                raise UsageError(f"--lazy always: {exc}") from exc
            log.info("%s: fetched whole: %s", reference, exc)
            await native_stack(machinery, reference, whole)

    async def lazily(machinery: Machinery) -> None:
        require_ability(settings, machinery.storage)
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(machinery.storage, manifest, machinery.platform)
        await use_stack(machinery, reference, image, target, find, use)

    async def find() -> str:
        assert standby is not None, "root has one, and others cannot be lazy"
        try:
            return os.fsdecode(await trio.to_thread.run_sync(standby.begin))
        except NotReady as exc:
            raise NotLazy(f"no mount serves {settings.store}, and none can be made: {exc}") from exc

    with_provider(settings, work)
