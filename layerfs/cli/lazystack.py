"""The stack of an image before it is here: skeletons, whole layers, and who is asked for the rest."""

from collections.abc import Callable

import msgspec
import trio

from layerfs.api.here import kept_whole
from layerfs.api.machinery import Machinery, manifest_of, pinned
from layerfs.cli.bells import BELL
from layerfs.cli.here import image_of
from layerfs.cli.running import with_provider
from layerfs.errors import NotInStore
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.stubs import stub_refusal
from layerfs.layer.overlayfs import stub_xattrs
from layerfs.needs import TocNeed
from layerfs.oci import Image, ImageReference
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.covering import make_cover
from layerfs.store.scratch import Scratch, make_scratch


class _Refusal(Exception):
    """The image has to be here before it is mounted; the text says why."""


class LazyStack(msgspec.Struct, frozen=True):
    """Lower directories, topmost first, and where the bytes of their files come from."""

    lowers: tuple[str, ...]
    data: tuple[str, ...]


def use_lazy_stack(
    settings: Settings,
    reference: ImageReference,
    mount: str | None,
    target: bytes,
    use: Callable[[LazyStack, Scratch], object],
) -> str:
    """Call *use* with the stack of an image for an overlay at *target*, and the scratch that it lies in.

    *mount* can be asked for files of the store (`layerfs.cli.bells`); None if there is no such mount. Nothing
    removes what the stack names meanwhile. Returns why the image has to be here before it is mounted, and
    then *use* was not called; empty if all is well. Raises LayerfsError.
    """

    async def work(machinery: Machinery) -> str:
        try:
            await lazily(machinery)
        except _Refusal as exc:
            return str(exc)
        return ""

    async def lazily(machinery: Machinery) -> None:
        storage = machinery.storage
        bell = _require_ability(settings, storage, mount)
        manifest = await manifest_of(machinery, reference, await pinned(machinery, reference))
        image = image_of(storage, manifest, machinery.platform)
        tocs = [layer.key.toc for layer in image.layers if layer.key.toc is not None]
        if not tocs:
            raise _Refusal(f"{reference}: no layer has a TOC (eStargz and zstd:chunked have one)")
        with kept_whole(storage, image.view, *tocs, *(layer.digest for layer in image.layers)):
            numbers = tuple(range(len(image.layers)))
            await machinery.provider.obtain(TocNeed(reference.repository, image, numbers))
            await trio.to_thread.run_sync(_use, settings, storage, image, target, bell, use)

    return with_provider(settings, work)


def _require_ability(settings: Settings, storage: ImageStorage, mount: str | None) -> str:
    """Return what of *mount* answers. Raises _Refusal."""
    if settings.lazy == "never":
        raise _Refusal("switched off in the configuration")
    if not in_initial_user_namespace():
        raise _Refusal("in a user namespace overlayfs follows no redirects out of several layers")
    problem = storage.lazy.problem()
    if problem:
        raise _Refusal(problem)
    if mount is None:
        raise _Refusal(f"no mount serves {settings.store} (layerfs mount DIR makes one)")
    return f"{mount}/{BELL}"


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
