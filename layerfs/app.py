"""The wiring: from Settings to a running daemon, or to a provider for a command.

The only place that knows all parts; decides nothing that a package below could decide.
"""

import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from layerfs.containers import log_who_is_cut_off, waited_for
from layerfs.errors import InvalidSettings
from layerfs.extract.client import ExtractorPool
from layerfs.fetch.backoff import Backoff
from layerfs.fetch.fetcher import Fetcher
from layerfs.fetch.laziness import Laziness
from layerfs.fetch.opening import open_fetcher
from layerfs.fetch.origin import InProcess, Origin
from layerfs.fetch.progress import Journal
from layerfs.fetch.remote import open_remote
from layerfs.fetch.streams import ONE, Streams
from layerfs.fetch.tasks import background, held
from layerfs.host.mountpoint import Mountpoint
from layerfs.host.supervisor import NOBODY, Supervisor
from layerfs.keeping import keeping
from layerfs.registry import RegistrySettings
from layerfs.registry.mirrors.values import Mirrors
from layerfs.settings import Access, Settings
from layerfs.store import ImageStorage
from layerfs.store.layout import StoreLayout
from layerfs.supervision import Asked, InForce, Supervised, clock_of_files

if TYPE_CHECKING:
    from layerfs.gc.keeper import Keeper
    from layerfs.local import SourceName
    from layerfs.local.origin import LocalOrigin
    from layerfs.registry.client import RegistryClient
    from layerfs.view.tree import MountTree

ENDLESS: Final = 1e9
"""Seconds. Infinity cannot be sent to another process as JSON."""

log = logging.getLogger(__name__)


def asking(settings: Settings) -> "RegistryClient":
    """Return a client for any registry, to be entered. Brings HTTP along."""
    from layerfs.registry.client import RegistryClient

    return RegistryClient(registry_settings(settings))


def registry_settings(settings: Settings, environ: Mapping[str, str] = os.environ) -> RegistrySettings:
    """Say how registries are asked, whichever they are. Raises InvalidSettings for a missing authfile."""
    if settings.authfile is not None and not settings.authfile.exists():
        raise InvalidSettings(
            f"{settings.authfile}: no such file (expected the logins that --authfile names); "
            f"layerfs login --authfile {settings.authfile} REGISTRY makes it"
        )
    found = RegistrySettings(
        insecure=settings.insecure_registries,
        authfile=settings.authfile,
        offline=settings.offline,
        reachable_networks=settings.reachable_networks,
        max_bandwidth=settings.max_bandwidth,
        mirrors=_mirrors(settings, environ),
        mirror_only=settings.mirror_only,
        forward_credentials=settings.forward_credentials,
    )
    return found if settings.access == Access() else _as_said(settings.access, found)


def _mirrors(settings: Settings, environ: Mapping[str, str]) -> Mirrors:
    """Read who stands before registries; nobody does while offline. Raises InvalidSettings."""
    if settings.offline:
        return Mirrors()
    from layerfs.registry.mirrors.places import load

    return load(environ, settings.registries_conf, settings.hosts_dir)


def _as_said(access: Access, found: RegistrySettings) -> RegistrySettings:
    """Put what holds for one call over what is configured. Raises InvalidSettings."""
    from layerfs.registry.credentials import Credential

    if access.cert_dir is not None and not access.cert_dir.is_dir():
        raise InvalidSettings(
            f"--cert-dir {access.cert_dir}: no such directory (expected one with *.crt files)"
        )
    retry, longest = found.retry, access.timeout or ENDLESS
    if access.retry is not None:
        retry = msgspec.structs.replace(retry, attempts=access.retry + 1, window=ENDLESS)
    login = access.creds
    return msgspec.structs.replace(
        found,
        login=None if login is None else Credential.of("--creds", login.username, login.password or ""),
        tls_verify=access.tls_verify,
        cert_dir=access.cert_dir,
        retry=msgspec.structs.replace(
            retry, window=min(retry.window, longest), longest_wish=min(retry.longest_wish, longest)
        ),
        connect_timeout=min(found.connect_timeout, longest),
        idle_timeout=access.timeout or found.idle_timeout,
        document_timeout=access.timeout or found.document_timeout,
        commit_timeout=access.timeout or found.commit_timeout,
    )


def _new_backoff(access: Access) -> Backoff:
    """Return who judges whether a download that broke off goes on."""
    patience = access.timeout or ENDLESS
    return Backoff(patience=patience) if access.retry is None else Backoff(access.retry, patience=patience)


def registries_of(settings: Settings, environ: Mapping[str, str] = os.environ) -> RegistrySettings:
    """Say how registries are asked, and which: configured ones for others. Raises InvalidSettings."""
    found, allowed = registry_settings(settings, environ), settings.registries
    if allowed is None and settings.allow_other:
        from layerfs.registry.keychain import registries_with_logins

        logins = registries_with_logins(msgspec.structs.replace(found, environment=environ))
        allowed = settings.insecure_registries | logins
    return msgspec.structs.replace(found, allowed=allowed)


@asynccontextmanager
async def _origin(settings: Settings, in_force: "InForce | None", journal: Journal) -> AsyncIterator[Origin]:
    """Own who downloads: another process for a daemon, whose settings may change, this one otherwise."""
    if in_force is not None:
        died = partial(journal.died, "downloader")
        read, found = clock_of_files(), registries_of(settings)
        # Who mounts looks soon, and the first look would wait half a second of processor for the process. Not
        # before the mount answers: until then it would inherit pipes that whoever mounts reads to their end.
        early = None if found.offline else in_force.answers
        async with open_remote(found, early=early, came=journal.traffic.add, died=died) as remote:

            def renew(now: Settings) -> None:
                read, found = clock_of_files(), registries_of(now)
                remote.renew(found)
                in_force.asked = Asked(found, read, partial(remote.renew, found))

            in_force.asked = Asked(found, read, partial(remote.renew, found))
            in_force.tell(renew)
            in_force.at_need("downloader", remote.warm)
            yield remote
    else:
        from layerfs.registry.client import RegistryClient  # brings HTTP along

        async with RegistryClient(registries_of(settings)) as client:
            yield InProcess(client, inline=True)


@asynccontextmanager
async def providing(
    settings: Settings,
    storage: ImageStorage,
    keeper: "Keeper",
    local: "LocalOrigin | None" = None,
    *,
    in_force: "InForce | None" = None,
    pool: ExtractorPool | None = None,
) -> AsyncIterator[Fetcher]:
    """Own the registry client, the workers and the tasks that fetch into *storage*; *keeper* makes room.

    With *local* no registry is asked; in a daemon (*in_force*) another process downloads. *pool* stays open.
    """
    journal = Journal()
    origin: AbstractAsyncContextManager[Origin] = (
        _origin(settings, in_force, journal) if local is None else nullcontext(InProcess(local))
    )
    with nullcontext(pool) if pool else ExtractorPool() as extractors:
        extractors.on_death = partial(journal.died, "extractor")
        async with (
            origin as source,
            open_fetcher(
                storage,
                source,
                extractors,
                platform=settings.preferred_platform,
                budgets=settings.budgets,
                workers=extractors.limit,
                blob_files=None if local is None else local.blob_file,
                make_room=keeper.make_room,
                new_backoff=partial(_new_backoff, settings.access),
                laziness=_laziness(settings),
                streams=Streams(settings.streams) if local is None else ONE,
                journal=journal,
            ) as provider,
        ):
            if in_force is not None:
                in_use = await trio.to_thread.run_sync(waited_for, storage, settings.preferred_platform)
                provider.complete_behind(settings.background, in_use)
            yield provider


def _laziness(settings: Settings) -> Laziness:
    return Laziness(on=settings.lazy == "auto", whole=settings.verify_whole)


def keeper_of(settings: Settings, storage: ImageStorage) -> "Keeper":
    """Return who keeps *storage* within the limits of the settings; one for a process, as one look locks."""
    from layerfs.gc.keeper import Keeper
    from layerfs.gc.limits import Limits

    return Keeper(storage, Limits.of(settings))


@asynccontextmanager
async def fetching(
    storage: ImageStorage, in_force: InForce, local: "LocalOrigin | None" = None
) -> "AsyncIterator[tuple[Fetcher, Keeper]]":
    """Own what a daemon fetches with into a store that is kept within its limits, and who keeps it there.

    Raises as `providing` does.
    """
    keeper = keeper_of(in_force.settings, storage)
    serving = nullcontext() if storage.readonly else held(storage.locks.serving())
    with ExtractorPool() as pool:
        in_force.at_need("extractor", partial(trio.to_thread.run_sync, pool.warm))
        fetcher = providing(in_force.settings, storage, keeper, local, in_force=in_force, pool=pool)
        async with serving, fetcher as provider, keeping(keeper, provider.journal):
            yield provider, keeper


def open_bundle(settings: Settings, source: "SourceName") -> "tuple[Settings, LocalOrigin]":
    """Open a local source to be served in place, with a store of its own beside the default one.

    Its images are known by the names that they carry. Raises NotFound, UsageError, ImageError, StoreError.
    """
    from layerfs.local.origin import open_local  # what most mounts do not need

    local = open_local(source, settings.preferred_platform)
    store = StoreLayout(settings.store).bundle_cache(source.path, local.key)
    return msgspec.structs.replace(settings, store=store), local


async def serve(
    settings: Settings,
    mountpoint: Mountpoint,
    ready: Callable[[], None],
    local: "LocalOrigin | None" = None,
    *,
    again: Callable[[], Settings] | None = None,
    supervisor: Supervisor = NOBODY,
    replace: bool = False,
    beside: "Callable[[ImageStorage, Fetcher, Keeper, InForce], Awaitable[None]] | None" = None,
) -> None:
    """Mount the store at *mountpoint* and serve until unmounted or told to end.

    With *replace* it takes the place of the mount that is there. *beside* is run meanwhile.
    Calls *ready* once the mount answers, and *again* for the settings as they are by now whenever SIGHUP asks
    for a reload; without it SIGHUP is an end. Raises MountError, StoreError.
    """
    from layerfs.fuse import session  # no other command needs FUSE

    storage = ImageStorage(settings.store, shared=settings.share_store, maker=settings.store_owner)
    log.info("store %s: %s", settings.store, storage.capabilities)  # tries the disk, while nobody waits
    if local is not None:
        for tag, image in local.tags.items():
            storage.refs.write(tag, image.digest)
    in_force = InForce(settings, again)
    async with fetching(storage, in_force, local) as (provider, keeper), background() as nursery:
        in_force.tell(keeper.keep_to)
        supervised = Supervised(supervisor, in_force, provider.statistics)
        announce = supervised.announcing(nursery, mountpoint, ready)
        if beside is not None:
            nursery.start_soon(beside, storage, provider, keeper, in_force)
        provider.sweep_soon()
        provider.journal.happening.add("start", str(settings.store))
        view = _view(storage, mountpoint, in_force, provider, keeper)
        serve_view = partial(session.serve, view, provider, mountpoint, settings, replace=replace)
        await serve_view(ready=announce, hang_up=None if again is None else supervised.hang_up)
        supervised.stop()
        await trio.to_thread.run_sync(log_who_is_cut_off, storage)


def _view(
    storage: ImageStorage, mountpoint: Mountpoint, in_force: InForce, provider: Fetcher, keeper: "Keeper"
) -> "MountTree":
    """Return what the mount looks like."""
    from layerfs.fuse import tallies
    from layerfs.reporting import Reporter
    from layerfs.view import tree

    settings = in_force.settings
    return tree.build(
        storage,
        mountpoint.path,
        settings.preferred_platform,
        Reporter(storage, provider, keeper, in_force, Path(str(mountpoint)), tallies.requests),
        tag_ttl=settings.tag_ttl,
        lazy=_laziness(settings).allows,
        why_whole=provider.why_whole,
    )
