"""The stack of an image before it is here: skeletons, whole layers, and who is asked for the rest."""

import logging
import os
from collections.abc import Callable
from functools import partial

import msgspec
import trio

from layerfs.api.here import kept_whole
from layerfs.api.machinery import Machinery, manifest_of, pinned
from layerfs.cli.bells import BELL
from layerfs.cli.here import image_of
from layerfs.cli.running import native_stack, with_provider
from layerfs.errors import NotInStore, UsageError
from layerfs.fetch.tasks import all_of, held
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.readiness import NotReady, Standby
from layerfs.host.stubs import stub_refusal
from layerfs.layer.overlayfs import stub_xattrs
from layerfs.needs import TocNeed
from layerfs.oci import Image, ImageReference
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.covering import make_cover
from layerfs.store.scratch import Scratch, make_scratch

log = logging.getLogger(__name__)


class _Refusal(Exception):
    """The image has to be here before it is mounted; the text says why."""


class LazyStack(msgspec.Struct, frozen=True):
    """Lower directories, topmost first, and where the bytes of their files come from."""

    lowers: tuple[str, ...]
    data: tuple[str, ...]


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
        except _Refusal as exc:
            if whole is None:
                raise UsageError(f"--lazy always: {exc}") from exc
            log.info("%s: fetched whole: %s", reference, exc)
            await native_stack(machinery, reference, whole)

    async def lazily(machinery: Machinery) -> None:
        storage = machinery.storage
        asked = _require_ability(settings, storage, standby)
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(storage, manifest, machinery.platform)
        tocs = [layer.key.toc for layer in image.layers if layer.key.toc is not None]
        if not tocs:
            raise _Refusal(f"{reference}: no layer has a TOC (eStargz and zstd:chunked have one)")
        with kept_whole(storage, image.view, *tocs, *(layer.digest for layer in image.layers)):
            need = TocNeed(reference.repository, image, tuple(range(len(image.layers))))
            async with held(storage.locks.needing_bell()):
                mount = _Asked(settings, asked)
                await all_of(partial(machinery.provider.obtain, need), mount.find)
                await trio.to_thread.run_sync(_use, settings, storage, image, target, mount.bell(), use)

    with_provider(settings, work)


class _Asked:
    """The mount that the overlay asks."""

    def __init__(self, settings: Settings, standby: Standby) -> None:
        self._settings = settings
        self._standby = standby
        self._found: str | NotReady = ""

    async def find(self) -> None:
        """Have it; `bell` says what came of that, as nobody ends the work of others for it."""
        try:
            word = await trio.to_thread.run_sync(self._standby.begin)
            self._found = os.fsdecode(word)
        except NotReady as exc:
            self._found = exc

    def bell(self) -> str:
        """Return what of the mount answers. Raises _Refusal."""
        if isinstance(self._found, NotReady):
            raise _Refusal(f"no mount serves {self._settings.store}, and none can be made: {self._found}")
        return f"{self._found}/{BELL}"


def _require_ability(settings: Settings, storage: ImageStorage, standby: Standby | None) -> Standby:
    """Return *standby* if a stack can be lazy. Raises _Refusal."""
    if settings.lazy == "never":
        raise _Refusal("switched off in the configuration")
    if not in_initial_user_namespace():
        raise _Refusal("in a user namespace overlayfs follows no redirects out of several layers")
    problem = storage.lazy.problem()
    if problem:
        raise _Refusal(problem)
    if standby is None:
        raise _Refusal("only root can mount such an overlay")
    return standby


def _use(
    settings: Settings,
    storage: ImageStorage,
    image: Image,
    target: bytes,
    bell: str,
    use: Callable[[LazyStack, Scratch], object],
) -> None:
    shown = {layer.key: _shown(storage, image, layer.number) for layer in image.layers}
    trees = [shown[layer.key] for layer in image.layers]
    scratch = make_scratch(settings.store, target, trees[0].path)
    try:
        trial, cover = scratch.path / "trial", scratch.path / "cover"
        trial.mkdir()
        refusal = stub_refusal(trial, *stub_xattrs(storage.capabilities.owner))
        if refusal:
            raise _Refusal(refusal)
        cover.mkdir()
        size = sum(sum(tree.record.layer.tables) for tree in trees)
        make_cover(cover, [tree.path for tree in trees], size, form=storage.capabilities, merger="")
        lowers = dict.fromkeys(str(tree.path) for tree in reversed(trees))  # a repeated one at its topmost
        storage.lazy.objects.remove_void()  # the kernel would read them
        objects = str(storage.lazy.objects.directory)
        data = (f"{bell}/ring", objects, f"{bell}/direct")
        use(LazyStack((str(cover), *lowers), data), scratch)
    except BaseException:
        scratch.remove()
        raise


def _shown(storage: ImageStorage, image: Image, number: int) -> LayerDir:
    """Return the directory of one layer: its skeleton, or all of it. Raises NotInStore."""
    layer = image.layers[number]
    toc = layer.key.toc
    skeleton = None if toc is None else storage.lazy.open_skeleton_of(toc, layer.digest)
    found = skeleton or storage.open_layer(layer.digest)
    if found is None:
        raise NotInStore(f"layer {layer.digest}: fetched, but removed again meanwhile; try again")
    return found
