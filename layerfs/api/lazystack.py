"""The stack of an image before it is here: skeletons, whole layers, and who is asked for the rest."""

import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import msgspec
import trio

from layerfs.api.here import kept_whole
from layerfs.api.machinery import Machinery
from layerfs.bells import BELL
from layerfs.errors import NotInStore
from layerfs.fetch.tasks import all_of, held
from layerfs.host.namespaces import in_initial_user_namespace
from layerfs.host.stubs import stub_refusal
from layerfs.layer.overlayfs import stub_xattrs
from layerfs.needs import TocNeed
from layerfs.oci import Digest, Image, ImageReference, Repository
from layerfs.settings import Settings
from layerfs.store import ImageStorage, LayerDir
from layerfs.store.covering import make_cover
from layerfs.store.scratch import Scratch, make_scratch

T = TypeVar("T")


class NotLazy(Exception):
    """The image has to be here before it is mounted; the text says why."""


class LazyStack(msgspec.Struct, frozen=True):
    """Lower directories, topmost first, and where the bytes of their files come from."""

    lowers: tuple[str, ...]
    data: tuple[str, ...]


def require_ability(settings: Settings, storage: ImageStorage) -> None:
    """Raise NotLazy if no overlay on *storage* can be lazy, whatever the image is."""
    if settings.lazy == "never":
        raise NotLazy("switched off in the configuration")
    if not in_initial_user_namespace():
        raise NotLazy("in a user namespace overlayfs follows no redirects out of several layers")
    problem = storage.lazy.problem()
    if problem:
        raise NotLazy(problem)
    if os.geteuid() != 0:
        raise NotLazy("only root can mount such an overlay")


async def use_lazy_stack(
    machinery: Machinery,
    reference: ImageReference,
    image: Image,
    target: bytes,
    find: Callable[[], Awaitable[str]],
    use: Callable[[LazyStack, Scratch], T],
) -> T:
    """Return what *use* returns for the stack of *image* for an overlay at *target*, and its scratch.

    *find* says which mount of the store can be asked for files, or raises NotLazy; called in another thread,
    *use* finds that nothing removes what it is given. Raises NotLazy, LayerfsError, and what *use* raises.
    """
    storage = machinery.storage
    tocs = [layer.key.toc for layer in image.layers if layer.key.toc is not None]
    if not tocs:
        raise NotLazy(f"{reference}: no layer has a TOC (eStargz and zstd:chunked have one)")
    with kept_whole(storage, image.view, *tocs, *(layer.digest for layer in image.layers)):
        need = TocNeed(reference.repository, image, tuple(range(len(image.layers))))
        async with held(storage.locks.needing_bell()):
            asked = _Asked(find)
            await all_of(partial(machinery.provider.obtain, need), asked.find)
            source = reference.repository, image.manifest.digest
            return await trio.to_thread.run_sync(_use, storage, image, source, target, asked.bell(), use)


class _Asked:
    """The mount that the overlay asks."""

    def __init__(self, find: Callable[[], Awaitable[str]]) -> None:
        self._find = find
        self._found: str | NotLazy = ""

    async def find(self) -> None:
        """Have it; `bell` says what came of that, as nobody ends the work of others for it."""
        try:
            self._found = await self._find()
        except NotLazy as exc:
            self._found = exc

    def bell(self) -> str:
        """Return what of the mount answers. Raises NotLazy."""
        if isinstance(self._found, NotLazy):
            raise self._found
        return f"{self._found}/{BELL}"


def _use(
    storage: ImageStorage,
    image: Image,
    source: tuple[Repository, Digest],
    target: bytes,
    bell: str,
    use: Callable[[LazyStack, Scratch], T],
) -> T:
    shown = {layer.key: _shown(storage, image, layer.number) for layer in image.layers}
    trees = [shown[layer.key] for layer in image.layers]
    scratch = make_scratch(storage.images_dir, target, trees[0].path)
    try:
        scratch.note_image(*source)
        trial, cover = scratch.path / "trial", scratch.path / "cover"
        trial.mkdir()
        refusal = stub_refusal(trial, *stub_xattrs(storage.capabilities.owner))
        if refusal:
            raise NotLazy(refusal)
        cover.mkdir()
        size = sum(sum(tree.record.layer.tables) for tree in trees)
        make_cover(cover, [tree.path for tree in trees], size, form=storage.capabilities, merger="")
        lowers = dict.fromkeys(str(tree.path) for tree in reversed(trees))  # a repeated one at its topmost
        storage.lazy.objects.remove_void()  # the kernel would read them
        objects = str(storage.lazy.objects.directory)
        data = (f"{bell}/ring", objects, f"{bell}/direct")
        return use(LazyStack((str(cover), *lowers), data), scratch)
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
