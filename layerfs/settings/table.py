"""What the user decided: flags, ``LAYERFS_`` variables, words of ``-o``, configuration files, defaults.

`Settings` is the one table: a row says what a setting is called, what may stand for it where, and how that is
read. Files (`layerfs.config`), options, words of ``-o`` and the manual (`layerfs.cli`) follow from it: a new
setting is a row here and its use.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from layerfs.layer.budgets import Budgets
from layerfs.oci import Platform
from layerfs.settings.access import Access
from layerfs.settings.kinds import (
    AMOUNT,
    BACKGROUND,
    FLAG,
    HOSTS,
    HOSTS_EACH,
    LAZY,
    LEVEL,
    NETWORKS,
    ORDER,
    PATH,
    PATTERNS,
    PLATFORM,
    RATE,
    SECONDS,
    STREAMS,
    USER,
    Amount,
    Background,
    Lazy,
    Level,
    Order,
)
from layerfs.settings.mirroring import MirrorSettings
from layerfs.settings.row import by, rows_of
from layerfs.settings.serving import ServeSettings


class Settings(MirrorSettings, frozen=True, kw_only=True):
    """Everything a daemon or a command needs to know."""

    store: Annotated[
        Path,
        by(
            PATH,
            "Where layers are kept; absolute, or below ~.",
            help="Where layers are kept (default: /var/lib/layerfs, or ~/.local/share/layerfs).",
            flags="--store",
            metavar="DIR",
            variable="LAYERFS_STORE",
            word=True,
            example="/srv/layerfs",
        ),
    ]
    store_owner: Annotated[
        int | None,
        by(
            USER,
            "User, by name or uid, whose shared store is believed beside one's own and root's.",
            help="Believe a store that this user made and shares.",
            flags="--store-owner",
            metavar="USER",
            word=True,
        ),
    ] = None
    """A uid."""
    share_store: Annotated[
        bool | None,
        by(
            FLAG,
            "Whether other users may read the store. At first they may not; it is remembered in the store.",
            help="Let other users read the store, or no longer (default: as said last; at first no).",
            flags="--share-store/--private-store",
            word=True,
        ),
    ] = None
    """None: as the store remembers it."""
    platform: Annotated[
        Platform | None,
        by(
            PLATFORM,
            "OS/ARCH[/VARIANT] to choose of an index.",
            help="Choose this platform of an index; an image of another is an error.",
            flags="--platform",
            metavar="OS/ARCH[/VARIANT]",
            variable="LAYERFS_PLATFORM",
            word=True,
        ),
    ] = None
    """None: this machine's, and of an image that has only one, that."""
    insecure_registries: Annotated[
        frozenset[str],
        by(
            HOSTS_EACH,
            "HOST[:PORT] of registries that are spoken to by plain HTTP.",
            help="Speak plain HTTP to this registry (loopback ones always). May be repeated.",
            flags="--insecure-registry",
            metavar="HOST[:PORT]",
            variable="LAYERFS_INSECURE_REGISTRY",
        ),
    ] = frozenset()
    """Hosts that are spoken to over plain HTTP, beside the loopback ones."""
    authfile: Annotated[
        Path | None,
        by(
            PATH,
            "Read credentials from this file only; absolute, or below ~.",
            help="Read credentials from this file only.",
            flags="--authfile",
            metavar="FILE",
            variable="LAYERFS_AUTHFILE",
            word=True,
            example="/etc/layerfs/auth.json",
        ),
    ] = None
    offline: Annotated[
        bool,
        by(
            FLAG,
            "Contact no registry.",
            help="Contact no registry; use what the store has.",
            flags="--offline/--online",
            variable="LAYERFS_OFFLINE",
            word=True,
        ),
    ] = False
    """Contact no registry; serve what the store has."""
    daemon: Annotated[
        bool,
        by(
            FLAG,
            "Whether a running mount of the store does a pull for a command of its user, with the same "
            "outcome, in a part of the time; on by default.",
            help="Have a running mount of the store do it, if there is one (default).",
            flags="--daemon/--no-daemon",
            variable="LAYERFS_DAEMON",
        ),
    ] = True
    """Pulls of commands are done by mounts."""
    fetch_timeout: Annotated[
        float,
        by(
            SECONDS,
            "Seconds that one access waits for a fetch; 900 by default.",
            help="How long one access waits for a fetch (default: 900).",
            flags="--fetch-timeout",
            metavar="SECONDS",
            word=True,
        ),
    ] = 900.0
    """Seconds that one waiting system call waits at most; the download goes on."""
    tag_ttl: Annotated[
        float | None,
        by(
            SECONDS,
            "Seconds after which a tag is resolved anew; never by default.",
            help="Ask the registry again what a tag means after this long (default: never; see pull).",
            flags="--tag-ttl",
            metavar="SECONDS",
            word=True,
        ),
    ] = None
    """Seconds after which a pinned tag is resolved anew; None for never."""
    streams: Annotated[
        int,
        by(
            STREAMS,
            "How many requests may fill one blob of more than 64 MiB at the same time, where a registry "
            "sends ranges and one request is slow; 1 to 16, 4 by default.",
        ),
    ] = 4
    max_bandwidth: Annotated[
        int | None,
        by(
            RATE,
            "Bytes a second that are fetched at most, in all, as 20MB or 512KiB; no limit by default.",
            help="Fetch at most so many bytes a second, as 20MB (default: as fast as it goes).",
            flags="--max-bandwidth",
            metavar="RATE",
            variable="LAYERFS_MAX_BANDWIDTH",
            word=True,
        ),
    ] = None
    """Bytes a second; None for no limit."""
    allow_other: Annotated[
        bool, by(FLAG, "Let other users read the mount.", flags="--allow-other/--private", word=True)
    ] = False
    registries: Annotated[
        frozenset[str] | None,
        by(
            HOSTS,
            "HOST[:PORT] of the only registries that may be contacted; any by default in a private mount.",
            help="Contact only these (default: any, with --allow-other those with a login or configuration).",
            flags="--registries",
            metavar="HOST,...",
            word=True,
        ),
    ] = None
    """Those that may be contacted. None: any by a private mount, and by one that others may read only those
    that have a login or are configured."""
    reachable_networks: Annotated[
        frozenset[str],
        by(
            NETWORKS,
            "NETWORK/BITS of networks that are not public, into which a registry elsewhere may lead: "
            "by redirects, its token server, URLs of foreign layers.",
        ),
    ] = frozenset()
    max_size: Annotated[
        Amount | None,
        by(
            AMOUNT,
            "What the store may take, in bytes, as 20GB, or a part of its disk, as 80%; a daemon removes "
            "garbage and then what was not used for longest.",
            help="Keep the store below this, as 20GB or 80% of its disk.",
            flags="--max-size",
            metavar="SIZE",
            word=True,
        ),
    ] = None
    min_free: Annotated[
        Amount | None,
        by(
            AMOUNT,
            "What the disk of the store keeps free, in bytes or as a part of it, in the same way.",
            help="Keep this much of the store's disk free.",
            flags="--min-free",
            metavar="SIZE",
            word=True,
        ),
    ] = None
    pin: Annotated[
        tuple[str, ...],
        by(
            PATTERNS,
            "Images that are never evicted, as docker.io/library/python:3.12 or registry/team/*.",
        ),
    ] = ()
    evict: Annotated[
        Order,
        by(
            ORDER,
            "What is evicted first: layers, that is their directories, which a blob brings back without a "
            "network (default), or blobs.",
        ),
    ] = "layers"
    lazy: Annotated[
        Lazy,
        by(
            LAZY,
            "auto: layers with a TOC (eStargz, zstd:chunked) are listed by it, and a file is fetched when it "
            "is opened (default); never: every layer is fetched whole.",
            help="Fetch single files of layers that allow it: auto or never (auto).",
            flags="--lazy",
            metavar="WHEN",
            word=True,
        ),
    ] = "auto"
    verify_whole: Annotated[
        tuple[str, ...],
        by(
            PATTERNS,
            "Repositories, as registry/team/*, whose layers are verified whole before any of it is shown.",
        ),
    ] = ()
    background: Annotated[
        Background,
        by(
            BACKGROUND,
            "When a daemon fetches the rest of lazy layers that somebody looks at: idle, two seconds after "
            "the last wait (default), always, or never.",
        ),
    ] = "idle"
    poll: Annotated[
        bool,
        by(
            FLAG,
            "Look for the next request for 50 microseconds before sleeping; a request takes half the time, "
            "for up to 2.3 times the CPU. On by default; off saves a battery.",
            flags="--poll/--no-poll",
            word=True,
        ),
    ] = True
    log_level: Annotated[
        Level,
        by(
            LEVEL,
            "debug, info, warning or error; info by default.",
            help="debug, info, warning, error (info).",
            key="log.level",
            flags="--log-level",
            metavar="LEVEL",
        ),
    ] = "info"
    log_json: Annotated[
        bool,
        by(
            FLAG,
            "One JSON object a line instead of text.",
            help="Log one JSON object a line.",
            key="log.json",
            flags="--log-json/--log-text",
        ),
    ] = False
    log_file: Annotated[
        Path | None,
        by(
            PATH,
            "Where a daemon in the background logs; absolute. Default: /var/log/layerfs.log.",
            key="log.file",
            example="/var/log/layerfs.log",
        ),
    ] = None
    """Where a daemon in the background logs, if not at the default place."""
    budgets: Budgets = msgspec.field(default_factory=Budgets)
    """What one layer may cost: the table ``[budgets]`` of a file, which has the fields of `Budgets`."""
    serve: ServeSettings = msgspec.field(default_factory=ServeSettings)
    """What others are given: the table ``[serve]`` of a file."""
    mount_options: tuple[str, ...] = ()
    """Words for the kernel, from ``-o``."""
    access: Access = msgspec.field(default_factory=Access)
    """How this one call talks to registries."""

    @property
    def preferred_platform(self) -> Platform:
        """What is chosen where there is a choice."""
        return self.platform or Platform.of_this_machine()


ROWS: Final = rows_of(Settings)
"""By field of `Settings`."""
