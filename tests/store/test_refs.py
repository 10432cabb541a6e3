import json
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from layerfs.oci import Digest, ImageReference, Repository, Tag
from layerfs.store import ImageStorage
from tests.store.helpers import leftovers

DIGEST = Digest.of(b"image")


def ref(text: str) -> Tag:
    tag = ImageReference.parse(text).tag
    assert tag is not None
    return tag


def test_a_ref_is_a_file_that_can_be_read_with_cat(storage: ImageStorage, store: Path) -> None:
    storage.refs.write(ref("localhost:5000/team/app:1.0"), DIGEST)
    path = store / "refs/localhost:5000/team/app:1.0"
    content = json.loads(path.read_text())
    assert content["digest"] == str(DIGEST)
    age = datetime.now(UTC) - datetime.fromisoformat(content["resolved_at"])
    assert timedelta(0) <= age < timedelta(minutes=1)


def test_a_ref_comes_back_in_another_process(storage: ImageStorage, store: Path) -> None:
    when = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    storage.refs.write(ref("alpine:3.20"), DIGEST, when)
    entry = ImageStorage(store).refs.read(ref("alpine:3.20"))
    assert entry is not None
    assert (entry.digest, entry.resolved_at) == (DIGEST, when)


def test_unknown_refs_are_none(storage: ImageStorage) -> None:
    storage.refs.write(ref("alpine:3.20"), DIGEST)
    assert storage.refs.read(ref("alpine:3.21")) is None
    assert storage.refs.read(ref("docker.io/library/alpine/deeper:3.20")) is None
    assert storage.refs.read(ref("quay.io/a:b")) is None
    assert not storage.refs.remove(ref("quay.io/a:b"))
    assert storage.refs.tags(Repository.parse("quay.io/a")) == []
    assert storage.refs.children("quay.io") == []
    assert storage.refs.tagged("quay.io", "a/b") == []


def test_a_repository_and_the_one_above_it_live_side_by_side(storage: ImageStorage) -> None:
    for text in ("r.io/a:1", "r.io/a/b:1", "r.io/a/b:2", "r.io/a/b/c:1", "r.io/ab:1"):
        storage.refs.write(ref(text), DIGEST)
    refs = storage.refs
    assert refs.registries() == ["r.io"]
    assert refs.children("r.io") == ["a"]
    assert refs.children("r.io", "a") == ["b"]
    assert refs.tagged("r.io") == [("a", "1"), ("ab", "1")]
    assert refs.tagged("r.io", "a") == [("b", "1"), ("b", "2")]
    assert refs.tags(Repository.of("r.io", "a")) == ["1"]
    assert refs.tags(Repository.of("r.io", "a/b")) == ["1", "2"]
    listed = [str(reference) for reference, _ in refs.all()]
    assert listed == ["r.io/a:1", "r.io/a/b:1", "r.io/a/b:2", "r.io/a/b/c:1", "r.io/ab:1"]


def test_removing_a_ref_takes_empty_directories_along_and_nothing_else(
    storage: ImageStorage, store: Path
) -> None:
    storage.refs.write(ref("r.io/a/b/c:1"), DIGEST)
    storage.refs.write(ref("r.io/a:1"), DIGEST)
    assert storage.refs.remove(ref("r.io/a/b/c:1"))
    assert os.listdir(store / "refs/r.io") == ["a:1"]
    assert storage.refs.remove(ref("r.io/a:1"))
    assert os.listdir(store / "refs") == []


@pytest.mark.parametrize(
    "name",
    [".hidden", "UPPER", "a..b", "-a", "a:b:c", "a:.tag", ":tag", "a:", f"a:{'t' * 129}", "ä:1", "a@b"],
)
def test_names_that_are_not_legal_are_not_listed(storage: ImageStorage, store: Path, name: str) -> None:
    storage.refs.write(ref("r.io/a:1"), DIGEST)
    (store / "refs/r.io" / name).write_text("{}")
    (store / "refs" / name.replace(":", "_")).mkdir()
    refs = storage.refs
    assert [str(reference) for reference, _ in refs.all()] == ["r.io/a:1"]
    assert refs.tags(Repository.of("r.io", "a")) == ["1"]
    assert refs.registries() in (["r.io"], ["UPPER", "r.io"])  # a host may be in upper case


@pytest.mark.parametrize("registry", ["", "..", ".", "a/b", "/etc", "r.io/../..", "x"])
@pytest.mark.parametrize("prefix", ["", "..", "a/..", "/", "a//b", "A"])
def test_listing_what_is_not_legal_lists_nothing(storage: ImageStorage, registry: str, prefix: str) -> None:
    assert storage.refs.children(registry, prefix) == []
    assert storage.refs.tagged(registry, prefix) == []
    assert storage.refs.children("r.io", prefix) == []


@pytest.mark.allow_warnings
@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"\xff", b"{}", b'{"digest":"sha256:1","resolved_at":"2024-01-01T00:00:00Z"}',
        b'{"digest":"%s","resolved_at":"yesterday"}' % str(DIGEST).encode(), b" " * 10_000,
    ],
)  # fmt: skip
def test_a_damaged_ref_is_unknown_and_healed_by_the_next_write(storage: ImageStorage, content: bytes) -> None:
    storage.refs.write(ref("r.io/a:1"), DIGEST)
    storage.refs.write(ref("r.io/b:1"), DIGEST)
    (storage.images_dir / "refs/r.io/a:1").write_bytes(content)
    assert storage.refs.read(ref("r.io/a:1")) is None
    assert [str(reference) for reference, _ in storage.refs.all()] == ["r.io/b:1"]
    storage.refs.write(ref("r.io/a:1"), DIGEST)
    assert storage.refs.read(ref("r.io/a:1")) is not None


def test_an_image_that_is_kept_by_its_digest_is_a_ref_of_that_name(storage: ImageStorage) -> None:
    repository = Repository.of("r.io", "a")
    kept = storage.refs.keep(repository, DIGEST)
    assert storage.refs.keep(repository, DIGEST) == kept
    storage.refs.write(ref("r.io/a:1"), DIGEST)
    assert [str(reference) for reference, _ in storage.refs.all()] == ["r.io/a:1", f"r.io/a@{DIGEST}"]
    assert storage.refs.tags(repository) == ["1"]
    assert storage.refs.children("r.io") == []
    assert storage.refs.remove(repository.with_digest(DIGEST))
    assert [str(reference) for reference, _ in storage.refs.all()] == ["r.io/a:1"]


@pytest.mark.allow_warnings
def test_a_kept_digest_that_holds_another_is_unknown(storage: ImageStorage) -> None:
    storage.refs.keep(Repository.of("r.io", "a"), DIGEST)
    path = storage.images_dir / f"refs/r.io/a@{DIGEST.name}"
    path.write_text(path.read_text().replace(DIGEST.hex, "1" * 64))
    assert list(storage.refs.all()) == []


def test_writing_and_removing_neighbours_at_once_loses_nothing(storage: ImageStorage) -> None:
    failures: list[BaseException] = []

    def churn(number: int) -> None:
        try:
            for _ in range(50):
                mine = ref(f"r.io/deep/er/repo:{number}")
                storage.refs.write(mine, DIGEST)
                assert storage.refs.read(mine) is not None
                assert storage.refs.remove(mine)
        except BaseException as exc:  # noqa: BLE001 - the main thread reports it
            failures.append(exc)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(storage.refs.all()) == []
    assert leftovers(storage.images_dir) == []


REGISTRIES = st.sampled_from(["docker.io", "localhost", "localhost:5000", "[::1]:80", "R.io"])
PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "a.b", "a__b", "0"]), min_size=1, max_size=4).map("/".join)
TAGS = st.sampled_from(["latest", "1", "1.0", "A", "_", "a.b-c", "downloading", "x." + "0" * 32 + ".writing"])


class RefsAgreeWithADictionary(RuleBasedStateMachine):
    """Any sequence of writes and removals, some by another process's eyes."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(os.environ["LAYERFS_TEST_REFS"]) / os.urandom(8).hex()
        self.stores = [ImageStorage(self.directory), ImageStorage(self.directory)]
        self.model: dict[ImageReference, Digest] = {}

    @rule(registry=REGISTRIES, path=PATHS, tag=TAGS, content=st.binary(max_size=2), which=st.integers(0, 1))
    def write(self, registry: str, path: str, tag: str, content: bytes, which: int) -> None:
        pinned = Repository.of(registry, path).with_tag(tag)
        self.stores[which].refs.write(pinned, Digest.of(content))
        self.model[pinned.reference] = Digest.of(content)

    @rule(registry=REGISTRIES, path=PATHS, content=st.binary(max_size=1), which=st.integers(0, 1))
    def keep(self, registry: str, path: str, content: bytes, which: int) -> None:
        repository, digest = Repository.of(registry, path), Digest.of(content)
        self.stores[which].refs.keep(repository, digest)
        self.model[repository.with_digest(digest)] = digest

    @rule(registry=REGISTRIES, path=PATHS, tag=TAGS)
    def remove_anything(self, registry: str, path: str, tag: str) -> None:
        pinned = Repository.of(registry, path).with_tag(tag).reference
        known = self.model.pop(pinned, None)
        assert self.stores[0].refs.remove(pinned) == (known is not None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove_known(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.model, key=str)))
        del self.model[key]
        assert self.stores[1].refs.remove(key)

    @invariant()
    def agree(self) -> None:
        refs = self.stores[0].refs
        assert {reference: entry.digest for reference, entry in refs.all()} == self.model
        assert refs.registries() == sorted({each.repository.registry for each in self.model})
        for reference, digest in self.model.items():
            entry = refs.read(reference)
            assert entry is not None
            assert entry.digest == digest
            assert refs.tags(reference.repository) == sorted(
                each.tag.name for each in self.model if each.tag and each.repository == reference.repository
            )

    @invariant()
    def nothing_empty_is_left(self) -> None:
        for directory, names, files in os.walk(self.directory / "refs"):
            assert names or files or directory == str(self.directory / "refs")


@pytest.fixture(autouse=True)
def _place_for_machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAYERFS_TEST_REFS", str(tmp_path))


def test_refs_agree_with_a_dictionary() -> None:
    from hypothesis.stateful import run_state_machine_as_test

    run_state_machine_as_test(
        RefsAgreeWithADictionary, settings=settings(max_examples=25, stateful_step_count=20, deadline=None)
    )
