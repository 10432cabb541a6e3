"""Every error that crosses a room, by who is at fault.

The family decides what a caller may do about it: data that is wrong stays wrong, so an `ImageError` is never
retried; a `RegistryError` may pass; a `StoreError` is this machine's. The errno and the exit code of each
class stand in one table each, at the edge that needs them (`layerfs.fuse.errnos`, `layerfs.cli.failures`).

::

    LayerfsError
    ├── UsageError                  the caller asked for what cannot be
    │   ├── InvalidReference            not an image reference
    │   └── InvalidSettings             a flag, variable or configuration line
    ├── ImageError                  the image is not what it claims; retrying cannot help
    │   ├── InvalidDigest               text that is no digest of a supported algorithm
    │   ├── InvalidDocument             a manifest, index or config that breaks its schema
    │   ├── UnsupportedImage            legal, but nothing that can be extracted
    │   ├── PlatformMissing             the index has no entry for the wanted platform
    │   ├── VerificationError           bytes that differ from their description
    │   │   ├── SizeMismatch
    │   │   ├── DigestMismatch
    │   │   └── DiffIdMismatch
    │   └── InvalidLayer                an archive that breaks the rules
    │       ├── InvalidArchive              no tar, or a damaged one
    │       ├── PathEscape                  a name or link that leads outside
    │       ├── InvalidWhiteout             a marker that hides nothing
    │       ├── InvalidToc                  a table of contents that breaks the rules
    │       └── BudgetExceeded              more than the settings allow
    ├── RegistryError               the bytes could not be had
    │   ├── NotFound                    the registry does not have it
    │   ├── Denied                      the registry refuses it to us
    │   ├── RateLimited                 too many requests, after all retries
    │   ├── Unreachable                 no connection
    │   ├── RegistryTimeout             connected, but silent
    │   ├── RegistryMisbehaved          an answer that breaks the protocol
    │   ├── NoRanges                    whole blobs are all that it sends
    │   └── Offline                     needed from a registry that we may not ask
    ├── StoreError                  this machine's disk
    │   ├── StoreFull
    │   ├── StoreReadOnly
    │   ├── StoreDamaged                a file that is not what we wrote
    │   ├── StoreMismatch               of another owner or version, or open to others
    │   ├── StoreUnfit                  on a filesystem that cannot hold it
    │   └── NotInStore                  asked for something that was never fetched
    ├── WorkerDied                  an extractor or downloader ended without an answer
    ├── OutOfMemory                 an extractor had less memory than its job needs
    ├── GivenUp                     work that its caller called off
    │   └── NobodyReads                 whoever would use the bytes has failed
    ├── WaitInterrupted             the caller got a signal while it waited
    ├── WaitTimedOut                the deadline of one wait; the work goes on
    ├── WaitRefused                 too many callers wait already
    ├── MountError                  the mount could not be made or undone
    └── OutputLost                  standard output takes no more
        └── ReaderGone                  whoever read it has ended
"""

from typing import Final, TypeVar

from layerfs.foreign import printable

_LONGEST: Final = 4000  # characters: a page, for the longest lists that an error gives


class LayerfsError(Exception):
    """Base of all; its text names the thing, the expectation and the observation.

    A printable line, whatever it quotes: an error of one event must not look like two in a log.
    """

    asked: tuple[str, ...] = ()
    """Where several servers could have had it: who was asked, and what each answered."""

    def __str__(self) -> str:
        asked = f" (asked: {'; '.join(self.asked)})" if self.asked else ""
        return printable(super().__str__() + asked, _LONGEST)

    @property
    def text(self) -> str:
        """The message without who was asked, a printable line too."""
        return printable(super().__str__(), _LONGEST)

    @property
    def asked_lines(self) -> list[str]:
        """Who was asked, a printable line each."""
        return [printable(line, _LONGEST) for line in self.asked]


class UsageError(LayerfsError):
    """The caller asked for what cannot be."""


class InvalidReference(UsageError):
    """Text that is not an image reference."""


class InvalidSettings(UsageError):
    """A flag, variable or configuration line that cannot be obeyed."""


class ImageError(LayerfsError):
    """The image is not what it claims to be; asking again gives the same."""


class InvalidDigest(ImageError):
    """Text that is not a digest of a supported algorithm."""


class InvalidDocument(ImageError):
    """A manifest, index or config that breaks its schema; the text names the field."""


class UnsupportedImage(ImageError):
    """A legal document that holds nothing which can be extracted."""


class PlatformMissing(ImageError):
    """The index has no entry for the wanted platform; the text lists those it has."""


class VerificationError(ImageError):
    """Bytes that differ from their description."""


class SizeMismatch(VerificationError):
    """More or fewer bytes than the descriptor says."""


class DigestMismatch(VerificationError):
    """The bytes hash to another digest."""


class DiffIdMismatch(VerificationError):
    """The uncompressed layer is not the one that the image's config names."""


class InvalidLayer(ImageError):
    """A layer archive that breaks the rules; the text says entry and reason."""


class InvalidArchive(InvalidLayer):
    """Not a tar archive, or a damaged or truncated one."""


class PathEscape(InvalidLayer):
    """A member's name or link that leads out of the layer directory."""


class InvalidWhiteout(InvalidLayer):
    """A whiteout marker that hides nothing it could hide."""


class InvalidToc(InvalidLayer):
    """A table of contents that breaks the rules, or contradicts itself; the layer can be read without it."""


class BudgetExceeded(InvalidLayer):
    """A layer larger than the settings allow; the text names the setting."""


class RegistryError(LayerfsError):
    """The bytes could not be had; later it may work."""


class NotFound(RegistryError):
    """The registry does not have the repository, tag or blob."""


class Denied(RegistryError):
    """The registry refuses it to us; the text says which credentials were tried."""


class RateLimited(RegistryError):
    """The registry says too many requests, after all retries."""


class Unreachable(RegistryError):
    """No connection to the registry."""


class RegistryTimeout(RegistryError):
    """Connected, but nothing came for too long."""


class RegistryMisbehaved(RegistryError):
    """An answer that breaks the distribution specification."""


class NoRanges(RegistryError):
    """A registry sends whole blobs only, so no part of one can be had without the rest."""


class Offline(RegistryError):
    """Needed from a registry that the settings forbid to ask."""


class StoreError(LayerfsError):
    """The local store cannot do what was asked."""


class StoreFull(StoreError):
    """No space or no quota left."""


class StoreReadOnly(StoreError):
    """The store may not be written, and something is missing in it."""


class StoreDamaged(StoreError):
    """A file in the store that is not what layerfs wrote there."""


class StoreMismatch(StoreError):
    """A store of another owner, kind of owner or version, or one that others could change."""


class StoreUnfit(StoreError):
    """The store's filesystem cannot hold what overlayfs needs, or a name; the image is not at fault."""


class NotInStore(StoreError):
    """Asked for something that was never fetched; the text says what would fetch it."""


class WorkerDied(LayerfsError):
    """A process that worked for us ended without an answer; the next access starts another."""


class OutOfMemory(LayerfsError):
    """A process that worked for us lacked memory: says nothing of the image, and later it may work."""


class GivenUp(LayerfsError):
    """Whoever asked for the work called it off."""


class NobodyReads(GivenUp):
    """Whoever would use the bytes has failed, and says why."""


class WaitInterrupted(LayerfsError):
    """The waiting caller got a signal that ends a system call."""


class WaitTimedOut(LayerfsError):
    """The deadline of one wait passed; what was waited for goes on."""


class WaitRefused(LayerfsError):
    """Too many callers wait already, in all or for what is at the same place; later it may work."""


class MountError(LayerfsError):
    """A mount could not be made or undone."""


class OutputLost(LayerfsError):
    """Standard output takes no more: the disk below it is full, for instance."""


class ReaderGone(OutputLost):
    """The program that read standard output has ended, and that is no failure."""


def name_of(error: LayerfsError) -> str:
    """Return the name under which `named` rebuilds *error* in another process."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == __name__)


def named(name: str, message: str, asked: tuple[str, ...] = ()) -> LayerfsError:
    """Return the error of the class *name*, as another process told it; WorkerDied if there is none."""
    kind = globals().get(name)
    if isinstance(kind, type) and issubclass(kind, LayerfsError):
        error = kind(message)
        error.asked = asked
        return error
    return WorkerDied(f"{name}: {message}")


E = TypeVar("E", bound=LayerfsError)


def retold(error: E, message: str = "") -> E:
    """Return *error* anew, with *message* in the place of its own if one is given; who was asked stays."""
    found = type(error)(message) if message else type(error)(*error.args)
    found.asked = error.asked
    return found
