"""Tags and documents: every failure at every step, what is kept, what the next attempt still asks for."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from layerfs.errors import (
    Denied,
    DigestMismatch,
    InvalidDocument,
    LayerfsError,
    NotFound,
    Offline,
    PlatformMissing,
    RateLimited,
    RegistryMisbehaved,
    RegistryTimeout,
    SizeMismatch,
    StoreFull,
    Unreachable,
    WorkerDied,
)
from layerfs.fetch.documents import DocumentFetcher
from layerfs.oci import Digest, Manifest, Platform, Repository, Resolved, Tag
from layerfs.oci.mediatype import OCI_MANIFEST
from layerfs.store import ImageStorage
from tests.support import images
from tests.support.fake_origin import FakeOrigin, Step

REPOSITORY = Repository("r.example", "a/b")
HERE, THERE = Platform("linux", "amd64"), Platform("linux", "s390x")
BUILT = images.image(images.layer(images.file("a")), platform=HERE)
INDEX = images.index(BUILT)
ERRORS = [
    Unreachable, RegistryTimeout, RegistryMisbehaved, RateLimited, Denied, NotFound, Offline, DigestMismatch,
    SizeMismatch, StoreFull, WorkerDied,
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A step that fails, as the *nth* of its kind, and what is in the store afterwards."""

    step: Step
    before: int
    kept: list[str]
    then: list[str]
    """What the next attempt asks for."""


STEPS = {
    "the index": Row("manifest", 0, [], ["manifest", "manifest", "config"]),
    "the manifest below it": Row("manifest", 1, ["index"], ["manifest", "config"]),
    "the config": Row("config", 0, ["index", "manifest"], ["config"]),
}


def fetcher(store: Path, origin: FakeOrigin, platform: Platform = HERE) -> DocumentFetcher:
    return DocumentFetcher(ImageStorage(store), origin, platform)


def kept(store: Path) -> list[str]:
    storage = ImageStorage(store)
    found = {"index": INDEX.digest, "manifest": BUILT.digest}
    return [name for name, digest in found.items() if storage.has_manifest(digest)] + [
        "config" for _ in range(storage.has_config(BUILT.config_digest))
    ]


class _Later(FakeOrigin):
    """Fails after some answers of the same step."""

    def fail(self, step: Step, before: int, error: LayerfsError) -> None:
        self._plan = (step, before, error)

    def _ask(self, step: Step, what: str) -> None:
        if step == self._plan[0] and self.steps().count(step) == self._plan[1]:
            self.failures[step].append(self._plan[2])
        super()._ask(step, what)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", STEPS)
async def test_a_step_that_fails_is_told_and_only_what_is_missing_is_asked_for_again(
    store: Path, name: str, error: type[LayerfsError]
) -> None:
    row = STEPS[name]
    origin = _Later((INDEX,))
    origin.fail(row.step, row.before, error("planned"))
    documents = fetcher(store, origin)
    with pytest.raises(error, match="planned"):
        await documents.image(REPOSITORY, INDEX.digest)
    assert kept(store) == row.kept
    healthy = FakeOrigin((INDEX,))
    found = await fetcher(store, healthy).image(REPOSITORY, INDEX.digest)
    assert found.digest == BUILT.digest
    assert healthy.steps() == row.then
    assert kept(store) == ["index", "manifest", "config"]


async def test_what_the_store_has_is_not_asked_for(store: Path) -> None:
    await fetcher(store, FakeOrigin((INDEX,))).image(REPOSITORY, INDEX.digest)
    origin = FakeOrigin((INDEX,))
    await fetcher(store, origin).image(REPOSITORY, INDEX.digest)
    await fetcher(store, origin).image(REPOSITORY, BUILT.digest)
    assert origin.asked == []


async def test_whoever_foresees_hears_of_a_manifest_before_its_config_is_asked_for(store: Path) -> None:
    origin, heard = FakeOrigin((INDEX,)), []

    def foreseen(repository: Repository, manifest: Manifest, into: bool) -> None:
        heard.append((repository, manifest.digest, into, origin.steps()))

    documents = fetcher(store, origin)
    documents.foreseen = foreseen
    await documents.image(REPOSITORY, INDEX.digest, into=True)
    await documents.image(REPOSITORY, INDEX.digest)
    assert heard == [(REPOSITORY, BUILT.digest, True, ["manifest", "manifest"])]


@pytest.mark.parametrize("pinned", [False, True], ids=["new", "pinned before"])
async def test_the_document_is_wanted_with_the_meaning_of_a_tag_that_nobody_knew(
    store: Path, pinned: bool
) -> None:
    origin, tag = FakeOrigin((INDEX,)), REPOSITORY.with_tag("1")
    if pinned:
        ImageStorage(store).refs.write(tag, Digest.of(b"old"))
    await fetcher(store, origin).resolve(tag)
    assert origin.wanted_whole == [not pinned]


async def test_an_index_without_this_platform_is_kept_for_others(store: Path) -> None:
    with pytest.raises(PlatformMissing, match="s390x"):
        await fetcher(store, FakeOrigin((INDEX,)), THERE).image(REPOSITORY, INDEX.digest)
    assert kept(store) == ["index"]
    origin = FakeOrigin((INDEX,))
    await fetcher(store, origin).image(REPOSITORY, INDEX.digest)
    assert origin.steps() == ["manifest", "config"]


@pytest.mark.parametrize("error", ERRORS)
async def test_a_tag_that_cannot_be_resolved_keeps_its_pin(store: Path, error: type[LayerfsError]) -> None:
    tag = REPOSITORY.with_tag("1")
    origin = FakeOrigin((INDEX,))
    documents = fetcher(store, origin)
    refs = ImageStorage(store).refs
    origin.failures["resolve"] = [error("planned")]
    with pytest.raises(error, match="planned"):
        await documents.resolve(tag)
    assert refs.read(REPOSITORY.with_tag("1")) is None
    refs.write(REPOSITORY.with_tag("1"), Digest.of(b"old"))
    origin.failures["resolve"] = [error("planned")]
    with pytest.raises(error):
        await documents.resolve(tag)
    entry = refs.read(REPOSITORY.with_tag("1"))
    assert entry is not None
    assert entry.digest == Digest.of(b"old")


@pytest.mark.parametrize("raw", [False, True], ids=["digest alone", "with the document"])
async def test_a_tag_is_pinned_and_what_came_along_is_kept(store: Path, raw: bool) -> None:
    origin = FakeOrigin((INDEX,), resolved_raw=raw)
    assert await fetcher(store, origin).resolve(REPOSITORY.with_tag("1")) == INDEX.digest
    entry = ImageStorage(store).refs.read(REPOSITORY.with_tag("1"))
    assert entry is not None
    assert entry.digest == INDEX.digest
    assert kept(store) == ["index"]
    assert origin.steps() == (["resolve"] if raw else ["resolve", "manifest"])


class _Wrong(FakeOrigin):
    """Answers with what is no manifest, or names what it does not have."""

    wrong: Resolved | None = None

    async def resolve(self, tag: Tag, *, whole: bool = False) -> Resolved:
        return self.wrong or await super().resolve(tag, whole=whole)


PAGE = b"<html>log in</html>"
WRONG_ANSWERS = {
    "lag": (Resolved(Digest.of(b"pushed just now"), OCI_MANIFEST, None), RegistryMisbehaved),
    "portal": (Resolved(Digest.of(PAGE), "text/html", PAGE), InvalidDocument),
    "an empty object": (Resolved(Digest.of(b"{}"), "application/json", b"{}"), InvalidDocument),
}


@pytest.mark.parametrize("pinned", [False, True], ids=["new", "pinned before"])
@pytest.mark.parametrize("name", WRONG_ANSWERS)
async def test_pin_before_proof(store: Path, name: str, pinned: bool) -> None:
    """A tag is pinned only to a manifest that is in the store; the next attempt asks again."""
    tag = REPOSITORY.with_tag("1")
    origin = _Wrong((INDEX,))
    origin.wrong, error = WRONG_ANSWERS[name]
    storage = ImageStorage(store)
    if pinned:
        storage.refs.write(tag, BUILT.digest)
    with pytest.raises(error):
        await fetcher(store, origin).resolve(tag)
    entry = storage.refs.read(tag)
    assert (entry and entry.digest) == (BUILT.digest if pinned else None)
    origin.wrong = None
    assert await fetcher(store, origin).resolve(tag) == INDEX.digest


@pytest.mark.parametrize("name", ["manifests", "configs"])
async def test_a_damaged_document_is_fetched_anew(store: Path, name: str) -> None:
    await fetcher(store, FakeOrigin((BUILT,))).image(REPOSITORY, BUILT.digest)
    [path] = (store / name).glob("*.json")
    right = path.read_bytes()
    path.write_bytes(images.flip_byte(right))
    await fetcher(store, FakeOrigin((BUILT,))).image(REPOSITORY, BUILT.digest)
    assert path.read_bytes() == right


async def test_who_waited_for_another_process_finds_the_document(store: Path, autojump_clock: object) -> None:
    storage = ImageStorage(store)
    origin = FakeOrigin((INDEX,))
    lock = storage.lock(INDEX.digest, REPOSITORY.registry)
    assert lock.try_acquire()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fetcher(store, origin).document, REPOSITORY, INDEX.digest)
        await trio.sleep(1)
        assert origin.asked == []
        storage.save_manifest(INDEX.manifest, INDEX.digest)
        lock.release()
    assert origin.asked == []
