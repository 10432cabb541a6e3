"""Whom registries are asked through: where podman's and containerd's files are, and what is beyond them."""

from pathlib import Path
from typing import Annotated

import msgspec

from layerfs.settings.kinds import FLAG, HOSTS_EACH, PATH
from layerfs.settings.row import by


class MirrorSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the settings that is about mirrors; each mirror itself is named by those files."""

    registries_conf: Annotated[
        Path | None,
        by(
            PATH,
            "Read mirrors from this registries.conf alone; absolute, or below ~. By default from podman's "
            "places, see containers-registries.conf(5).",
            example="/etc/containers/registries.conf",
        ),
    ] = None
    hosts_dir: Annotated[
        Path | None,
        by(
            PATH,
            "Directory with HOST/hosts.toml in the place of ~/.config/containerd/certs.d and "
            "/etc/containerd/certs.d; absolute, or below ~.",
            example="/etc/containerd/certs.d",
        ),
    ] = None
    mirror_only: Annotated[
        bool,
        by(FLAG, "Fetch from mirrors alone, and nothing from a registry itself, also if all mirrors fail."),
    ] = False
    forward_credentials: Annotated[
        frozenset[str],
        by(
            HOSTS_EACH,
            "HOST[:PORT] of mirrors that may be sent the login of the registry that they stand for, as a "
            "Dragonfly on this machine needs for private images. They learn it; none by default.",
            example=["127.0.0.1:4001"],
        ),
    ] = frozenset()
