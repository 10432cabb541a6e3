"""All checks, in the order in which people read them; each is one that may fail without the others."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from layerfs.doctor import machine, registries, stores
from layerfs.doctor.observation import Observation, failure
from layerfs.errors import LayerfsError
from layerfs.registry import RegistrySettings
from layerfs.store import ImageStorage

_MACHINE = (
    machine.kernel, machine.fuse_device, machine.fusermount, machine.overlays, machine.limits, machine.clock,
)  # fmt: skip


def of_machine() -> Iterator[Observation]:
    """Look at everything that has nothing to do with a store or with registries."""
    for check in _MACHINE:
        yield from guarded(check.__name__.replace("_", " "), check)


def of_store(storage: ImageStorage) -> Iterator[Observation]:
    """Look at a store."""
    yield from guarded("store", lambda: stores.store(storage))


def of_registries(
    settings: Callable[[], RegistrySettings], environ: Mapping[str, str]
) -> Iterator[Observation]:
    """Look at logins and policies; no registry is asked."""
    yield from guarded("credentials", lambda: registries.logins(settings()))
    yield from guarded("policy", lambda: registries.policy(environ))


def guarded(name: str, check: Callable[[], Iterable[Observation]]) -> Iterator[Observation]:
    """Yield what *check* finds; a failure called *name* if it cannot look."""
    try:
        yield from check()
    except (OSError, LayerfsError) as exc:
        yield failure(name, f"cannot be checked: {exc}")
