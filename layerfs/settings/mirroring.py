"""Whom registries are asked through: where podman's and containerd's files are, and what is beyond them."""

from dataclasses import dataclass, field
from pathlib import Path

from layerfs.settings.kinds import FLAG, HOSTS_EACH, PATH
from layerfs.settings.row import by


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorSettings:
    """The part of the settings that is about mirrors; each mirror itself is named by those files."""

    registries_conf: Path | None = field(
        default=None,
        metadata=by(
            PATH,
            "Read mirrors from this registries.conf alone; absolute, or below ~. By default from podman's "
            "places, see containers-registries.conf(5).",
            example="/etc/containers/registries.conf",
        ),
    )
    hosts_dir: Path | None = field(
        default=None,
        metadata=by(
            PATH,
            "Directory with HOST/hosts.toml in the place of ~/.config/containerd/certs.d and "
            "/etc/containerd/certs.d; absolute, or below ~.",
            example="/etc/containerd/certs.d",
        ),
    )
    mirror_only: bool = field(
        default=False,
        metadata=by(
            FLAG, "Fetch from mirrors alone, and nothing from a registry itself, also if all mirrors fail."
        ),
    )
    forward_credentials: frozenset[str] = field(
        default=frozenset(),
        metadata=by(
            HOSTS_EACH,
            "HOST[:PORT] of mirrors that may be sent the login of the registry that they stand for, as a "
            "Dragonfly on this machine needs for private images. They learn it; none by default.",
            example=["127.0.0.1:4001"],
        ),
    )
