"""Refs: which digest a tag resolved to, and when; and which images are kept by their digest.

Files that `cat` can read; the only index. Only legal references become paths, and only legal names are
listed. In a directory of refs a name with a colon is a tag, one with an ``@`` an image by its digest, and any
other a further component, so ``a`` and ``a/b`` are neighbours in peace; at the top everything is a registry.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from layerfs.errors import InvalidDigest, InvalidReference, StoreDamaged, StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.oci import Digest, ImageReference, Repository, Tag
from layerfs.oci.reference import is_component, is_registry, is_tag
from layerfs.store.disk import make_directories, read_small, write_durably
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks

_MAX_REF_SIZE: Final = 4096
_ATTEMPTS: Final = 100

log = logging.getLogger(__name__)


class _RefJson(msgspec.Struct, frozen=True):
    digest: str
    resolved_at: datetime


class RefEntry(msgspec.Struct, frozen=True):
    """What a tag resolved to, or a digest that is kept, and since when (UTC)."""

    digest: Digest
    resolved_at: datetime


class Refs:
    """All refs of a store. Thread-safe, and safe among processes."""

    def __init__(self, layout: StoreLayout, locks: Locks) -> None:
        self._layout = layout
        self._locks = locks

    def read(self, name: Tag | ImageReference) -> RefEntry | None:
        """Return what the tag *name* is pinned to, None if unknown. Raises InvalidReference.

        A reference with a digest is known if it is kept. A damaged ref is unknown: resolving the tag again
        heals it.
        """
        path = self._layout.ref(name)
        try:
            raw = read_small(path, _MAX_REF_SIZE)
            if raw is None:
                return None
            json = msgspec.json.decode(raw, type=_RefJson)
            digest = Digest.parse(json.digest)
            if isinstance(name, ImageReference) and name.digest not in (None, digest):
                raise StoreDamaged(f"it holds {digest} (expected its own name)")
            return RefEntry(digest, json.resolved_at.astimezone(UTC))
        except NotADirectoryError:
            return None
        except (StoreError, msgspec.DecodeError, UnicodeDecodeError, InvalidDigest) as exc:
            log.warning("%s: %s (treated as unknown)", path, exc)
            return None

    def keep(self, repository: Repository, digest: Digest) -> RefEntry:
        """Keep an image that no tag names. Raises InvalidReference, StoreFull, StoreReadOnly, StoreError."""
        name = repository.with_digest(digest)
        return self.read(name) or self.write(name, digest)

    def write(
        self, name: Tag | ImageReference, digest: Digest, resolved_at: datetime | None = None
    ) -> RefEntry:
        """Pin the tag *name* to *digest*. Raises InvalidReference, StoreFull, StoreReadOnly, StoreError."""
        path = self._layout.ref(name)
        entry = RefEntry(digest, resolved_at or datetime.now(UTC))
        raw = msgspec.json.encode(_RefJson(str(digest), entry.resolved_at)) + b"\n"
        temporary = self._layout.staged_ref()
        with self._locks.holding(temporary), disk_errors(f"{path}: cannot write"):
            self._rename_into(temporary, path, raw)
        return entry

    def remove(self, name: Tag | ImageReference) -> bool:
        """Forget *name*, and directories that hold no ref any more. True if it was known."""
        path = self._layout.ref(name)
        with disk_errors(f"{path}: cannot remove"):
            try:
                os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                return False
        self._prune(path.parent)
        return True

    def registries(self) -> list[str]:
        """Return the registries that have refs, in order."""
        return [name for name in _names(self._layout.refs) if is_registry(name)]

    def children(self, registry: str, path_prefix: str = "") -> list[str]:
        """Return the components below *path_prefix* that lead to further components, in order.

        Those that are only repositories are not among them: see `tagged`. A *registry* or prefix that
        is not legal has none.
        """
        directory = self._directory(registry, path_prefix)
        return [name for name in _names(directory) if is_component(name)] if directory else []

    def has_directory(self, registry: str, path_prefix: str = "") -> bool:
        """Say whether there is anything below *path_prefix*, or was; costs one stat."""
        directory = self._directory(registry, path_prefix)
        return directory is not None and directory.is_dir()

    def tagged(self, registry: str, path_prefix: str = "") -> list[tuple[str, str]]:
        """Return the names of repositories right below *path_prefix* with each of their tags, in order.

        As `tags` of each, but the directory, which may be long, is read once.
        """
        directory = self._directory(registry, path_prefix)
        return list(_tags(_names(directory))) if directory else []

    def tags(self, repository: Repository) -> list[str]:
        """Return the pinned tags of *repository*, in order."""
        path = self._layout.registry(repository.registry) / repository.path
        return [tag for name, tag in _tags(_names(path.parent)) if name == path.name]

    def has(self, repository: Repository) -> bool:
        """Say whether *repository* has a tag, or an image that is kept."""
        path = self._layout.registry(repository.registry) / repository.path
        return any(name.startswith((f"{path.name}:", f"{path.name}@")) for name in _names(path.parent))

    def targets(self, repository: Repository) -> frozenset[Digest]:
        """Return what the tags of *repository* are pinned to, and the images of it that are kept."""
        path = self._layout.registry(repository.registry) / repository.path
        names = _names(path.parent)
        kept = {digest for name, digest in _kept(names) if name == path.name}
        tags = (repository.with_tag(tag) for name, tag in _tags(names) if name == path.name)
        return frozenset(kept | {entry.digest for tag in tags if (entry := self.read(tag))})

    def all(self) -> Iterator[tuple[ImageReference, RefEntry]]:
        """Yield every readable ref, ordered by registry, then path component by component, then tag.

        Images that are kept by their digest come behind the tags of their repository.
        """
        for registry in self.registries():
            yield from self._below(registry, "")

    def _below(self, registry: str, prefix: str) -> Iterator[tuple[ImageReference, RefEntry]]:
        directory = self._directory(registry, prefix)
        names = _names(directory) if directory else []
        found: dict[str, list[str | Digest]] = {name: [] for name in names if is_component(name)}
        directories = frozenset(found)
        for name, tag in _tags(names):
            found.setdefault(name, []).append(tag)
        for name, digest in _kept(names):
            found.setdefault(name, []).append(digest)
        for name, targets in sorted(found.items()):
            path = f"{prefix}/{name}" if prefix else name
            try:
                repository = Repository.of(registry, path)
            except InvalidReference:
                continue
            for target in targets:
                reference = (
                    repository.with_digest(target)
                    if isinstance(target, Digest)
                    else repository.with_tag(target).reference
                )
                entry = self.read(reference)
                if entry is not None:
                    yield reference, entry
            if name in directories:
                yield from self._below(registry, path)

    def _directory(self, registry: str, prefix: str) -> Path | None:
        components = prefix.split("/") if prefix else []
        if not is_registry(registry) or not all(map(is_component, components)):
            return None
        return self._layout.registry(registry).joinpath(*components)

    def _rename_into(self, temporary: Path, path: Path, raw: bytes) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                make_directories(path.parent)
                write_durably(temporary, path, raw)
            except (FileNotFoundError, FileExistsError):
                # `remove` of a neighbour took the empty directory away, before or while mkdir looked.
                if attempt == _ATTEMPTS - 1:
                    raise
            except OSError:
                self._prune(path.parent)
                raise
            else:
                return

    def _prune(self, directory: Path) -> None:
        """Remove *directory* and those above it that hold no ref."""
        with contextlib.suppress(OSError):  # not empty: someone else's ref is in it
            while directory != self._layout.refs:
                os.rmdir(directory)
                directory = directory.parent


def _names(directory: Path) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as exc:
        log.warning("%s: %s (not listed)", directory, exc)
        return []


def _tags(names: list[str]) -> Iterator[tuple[str, str]]:
    for entry in names:
        name, colon, tag = entry.partition(":")
        if colon and is_component(name) and is_tag(tag):
            yield name, tag


def _kept(names: list[str]) -> Iterator[tuple[str, Digest]]:
    for entry in names:
        name, at, digest = entry.partition("@")
        if at and is_component(name):
            with contextlib.suppress(InvalidDigest):
                yield name, Digest.from_name(digest)
