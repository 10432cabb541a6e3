"""Opening a store: who may, whether others may read it, and what its filesystem can carry once that matters.

Puts `gate`, `owner` and `probe` into an order in which looking at a store writes nothing.
"""

import logging
import os
import threading

import msgspec

from layerfs.errors import StoreError
from layerfs.host.oserrors import disk_errors
from layerfs.layer.record import Identity
from layerfs.store.gate import StoreGate
from layerfs.store.layout import StoreLayout
from layerfs.store.locks import Locks
from layerfs.store.owner import (
    Capabilities,
    Owner,
    capabilities_of,
    read_owner,
    require_owner,
    require_version,
    write_owner,
)
from layerfs.store.probe import tried
from layerfs.store.soundness import identity_of

log = logging.getLogger(__name__)


class Opening:
    """What one process knows of who owns a store. Thread-safe once `enter` has returned."""

    def __init__(self, layout: StoreLayout, locks: Locks, gate: StoreGate) -> None:
        self._layout = layout
        self._locks = locks
        self._gate = gate
        self._owner = Owner.of_this_process()
        self._tried = True
        self._trying = threading.Lock()

    def enter(self, shared: bool | None) -> bool:
        """Make the store if there is none, and say if it may be written; *shared* is what the user says.

        Raises StoreMismatch, StoreFull, StoreReadOnly, StoreDamaged, StoreError.
        """
        writable = self._gate.enter()
        recorded = read_owner(self._layout)
        if recorded is not None and writable and self._is_own_copy(recorded):
            self._take_over(recorded)
            recorded = None
        elif recorded is not None:
            require_owner(recorded, self._layout, writable=writable)
            self._owner = recorded
        if not writable:
            return False
        was_shared = self._owner.shared
        self._owner = msgspec.structs.replace(
            self._owner, shared=was_shared if shared is None else shared, identity=self._identity()
        )
        self._gate.set_modes(shared=self._owner.shared, anew=not was_shared)
        if recorded is None:
            self._locks.create()
            self._owner = tried(self._layout, self._locks, self._owner)
        if self._owner != recorded:
            write_owner(self._layout, self._locks, self._owner)
        self._tried = recorded is None
        return True

    def _identity(self) -> Identity:
        with disk_errors(f"{self._layout.root}: cannot look at"):
            return identity_of(self._layout.root.resolve())

    def _is_own_copy(self, recorded: Owner) -> bool:
        """Say whether this user has copied the store, from wherever: a copy is of whoever made it."""
        if recorded.identity is None or recorded.identity.is_that_of(self._identity()):
            return False
        with disk_errors(f"{self._layout.root}: cannot look at"):
            return self._layout.root.stat().st_uid == os.geteuid()

    def _take_over(self, recorded: Owner) -> None:
        require_version(recorded, self._layout)
        log.info("%s: a copy of a store of %s; layers are extracted anew", self._layout.root, recorded)
        mine = Owner.of_this_process()
        self._owner = msgspec.structs.replace(mine, shared=recorded.shared and recorded.same(mine))

    def known_form(self) -> Capabilities:
        """Return the form of the trees as far as it is known; nothing is tried."""
        return capabilities_of(self._owner)

    def reached_by(self, uid: int) -> bool:
        """Say whether processes that /proc gives *uid* might use the store unseen.

        An ordinary user's private store is closed to other users; root gets in, and leases what he uses.
        """
        return self._owner.owner != "user" or self._owner.shared or uid == self._owner.uid

    def capabilities(self) -> Capabilities:
        """Return the form of the trees; what the filesystem can carry is tried when it is asked first."""
        with self._trying:
            if not self._tried:
                self._try_again()
                self._tried = True
        return capabilities_of(self._owner)

    def _try_again(self) -> None:
        """Try what may have changed since the store was made; without an answer the last one holds."""
        try:
            found = tried(self._layout, self._locks, self._owner)
            if found != self._owner:
                write_owner(self._layout, self._locks, found)
        except StoreError as exc:
            log.info("%s: not tried what it can carry: %s", self._layout.root, exc)
        else:
            self._owner = found
