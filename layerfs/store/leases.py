"""Leases: which digests a program needs, and until when. Files that `cat` can read, written by rename.

A lease ends with its time, or with the process that it is for: its pid, with the moment of its start and the
boot, so that no later process of that number keeps it. A pid of another pid namespace tells nothing here;
such a lease holds until it is removed, or its time is over.

Who takes a lease writes it first and looks for the layers then; who removes layers sets them aside first and
looks for leases then (`layerfs.store.removing`). So one of the two sees the other.
"""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, Self

import msgspec

from layerfs import host
from layerfs.errors import InvalidDigest, NotInStore, StoreError, UsageError
from layerfs.host.oserrors import disk_errors
from layerfs.host.processes import pid_namespace, start_time
from layerfs.oci import Digest, stack_digest
from layerfs.store.disk import make_directories, read_small, unlink, write_durably
from layerfs.store.layout import StoreLayout, staged
from layerfs.store.locks import Locks
from layerfs.store.records import Merger

LEASE_VERSION: Final = 1
NAMED_SECONDS: Final = 120
"""How long lower directories stay for whoever was told their names, to mount them."""
SUFFIX: Final = ".json"
_NAME: Final = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_BRIEF: Final = timedelta(minutes=10)
_MAX_SIZE: Final = 1 << 20
"""Bytes of the file of a lease: some ten thousand digests."""

log = logging.getLogger(__name__)


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """A process, told from all others of the same number."""

    pid: int
    started: int
    """Clock ticks from the boot to its start (proc_pid_stat(5), field 22)."""
    boot_id: str
    namespace: str
    """The pid namespace in which it has that number, as ``/proc/self/ns/pid`` shows it."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Describe a living process. Raises StoreError if there is none of this number."""
        started = start_time(pid)
        if started is None:
            raise StoreError(f"process {pid}: there is none (expected the holder of a lease)")
        return cls(pid=pid, started=started, boot_id=host.boot_id(), namespace=pid_namespace())

    def lives(self) -> bool:
        """Say whether the process lives, or nobody here can tell."""
        if self.boot_id != host.boot_id():
            return False
        return self.namespace != pid_namespace() or start_time(self.pid) == self.started


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The content of ``leases/<name>.json``."""

    version: int = LEASE_VERSION
    digests: tuple[str, ...]
    """Layers, covers and documents; a manifest or an index stands for all that it leads to."""
    made_at: datetime
    until: datetime | None = None
    holder: Holder | None = None

    def holds(self, now: datetime) -> bool:
        """Say whether the lease counts at *now*."""
        return not (self.until is not None and now >= self.until) and (
            self.holder is None or self.holder.lives()
        )

    def outlives_a_boot(self) -> bool:
        """Say whether the lease may mean something when the machine has started again."""
        return self.holder is None and (self.until is None or self.until - self.made_at > _BRIEF)

    def needed(self) -> frozenset[Digest]:
        """Return the digests."""
        return frozenset(map(Digest.parse, self.digests))


class HeldLease:
    """A lease that this process took: `release` or leaving the context ends it."""

    def __init__(self, leases: "Leases", name: str) -> None:
        self._leases = leases
        self.name = name

    def release(self) -> None:
        """End it; harmless a second time. Raises StoreError."""
        self._leases.remove(self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Leases:
    """All leases of a store. Thread-safe, and safe among processes."""

    def __init__(self, layout: StoreLayout, locks: Locks) -> None:
        self._directory = layout.leases
        self._locks = locks

    def take(
        self,
        name: str,
        digests: Iterable[Digest],
        *,
        until: datetime | None = None,
        pid: int | None = None,
    ) -> HeldLease:
        """Keep *digests* until the time *until*, or as long as the process *pid* lives.

        A lease of that name is replaced. Without both it is for this process; *pid* 0 is nobody's, and
        without a time lasts until it is removed. Raises UsageError for a name that is no file name,
        StoreFull, StoreReadOnly, StoreError.
        """
        if re.fullmatch(_NAME, name) is None:
            raise UsageError(f"{name!r}: no name of a lease (expected letters, digits, '_', '.' and '-')")
        process = pid if pid is not None or until is not None else os.getpid()
        lease = Lease(
            digests=tuple(sorted({str(digest) for digest in digests})),
            made_at=datetime.now(UTC),
            until=until,
            holder=Holder.of(process) if process else None,
        )
        temporary = staged(self._directory, name, "writing")
        path = self._directory / f"{name}{SUFFIX}"
        with disk_errors(f"{path}: cannot write"):
            make_directories(self._directory, 0o700)
            with self._locks.holding(temporary):
                write_durably(
                    temporary, path, msgspec.json.encode(lease) + b"\n", waiting=lease.outlives_a_boot()
                )
        return HeldLease(self, name)

    def name_stack(self, layers: Sequence[Digest], merger: Merger = "") -> None:
        """Keep a stack for `NAMED_SECONDS`: its directories were named to somebody who will mount them.

        What cannot be written is logged: then the directories may go before they are mounted.
        """
        stack = stack_digest(layers, merger)
        until = datetime.now(UTC) + timedelta(seconds=NAMED_SECONDS)
        try:
            self.take(f"lowerdir-{stack.short_id}", (*layers, stack), until=until)
        except StoreError as exc:
            log.info("%s: not kept for who was told of it: %s", stack, exc)

    def remove(self, name: str) -> bool:
        """End a lease; True if there was one. Raises StoreReadOnly, StoreError."""
        if re.fullmatch(_NAME, name) is None:
            return False
        return unlink(self._directory / f"{name}{SUFFIX}")

    def end(self, name: str) -> None:
        """End a lease. Raises NotInStore if there is none of that name; StoreReadOnly, StoreError."""
        if not self.remove(name):
            raise NotInStore(f"{name}: no such lease (layerfs lease ls lists them)")

    def all(self) -> Iterator[tuple[str, Lease]]:
        """Yield the leases, those that hold no more too, by name; none if they are not ours to see.

        Who may not see them may not remove anything either. Raises StoreError.
        """
        with disk_errors(f"{self._directory}: cannot read"):
            try:
                names = sorted(os.listdir(self._directory))
            except (FileNotFoundError, PermissionError):  # of another user, who lets us read what he has
                return
        for file_name in names:
            name = file_name.removesuffix(SUFFIX)
            if name != file_name and re.fullmatch(_NAME, name):
                with suppress(FileNotFoundError):
                    yield name, self._read(name)

    def holding(self) -> list[tuple[str, Lease]]:
        """Return the leases that hold now. Raises StoreError, also for one that cannot be read."""
        now = datetime.now(UTC)
        return [(name, lease) for name, lease in self.all() if lease.holds(now)]

    def sweep(self) -> int:
        """Remove leases that hold no more; returns how many. Raises StoreReadOnly, StoreError."""
        now = datetime.now(UTC)
        return sum(self.remove(name) for name, lease in self.all() if not lease.holds(now))

    def _read(self, name: str) -> Lease:
        """Return a lease. Raises FileNotFoundError; StoreError for what it does not understand."""
        path = self._directory / f"{name}{SUFFIX}"
        raw = read_small(path, _MAX_SIZE)
        if raw is None:
            raise FileNotFoundError(path)
        try:
            lease = msgspec.json.decode(raw, type=Lease)
            lease.needed()
        except (msgspec.DecodeError, UnicodeDecodeError, InvalidDigest) as exc:
            raise StoreError(
                f"{path}: {exc} (expected a lease of layerfs); nothing can be removed while it cannot be "
                f"read; layerfs lease rm {name} ends it"
            ) from exc
        return lease
