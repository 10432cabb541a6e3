"""Situations in which a file of mirrors is wrong, or leads nowhere."""

from collections.abc import Callable
from typing import Final

from tests.cli.situations import Place, Situation

_CONF: Final = {"CONTAINERS_REGISTRIES_CONF": "HOME/r.conf"}
_HOSTS: Final = {"LAYERFS_CONFIG": "HOME/hosts.toml"}


def _conf(text: str) -> Callable[[Place], object]:
    return lambda place: (place.layerfs.home / "r.conf").write_text(text.replace("HOST", place.faulty.host))


def _hosts(text: str) -> Callable[[Place], object]:
    def prepare(place: Place) -> None:
        directory = place.layerfs.home / "certs.d/a.io"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "hosts.toml").write_text(text)
        (place.layerfs.home / "hosts.toml").write_text('hosts_dir = "~/certs.d"\n')

    return prepare


_MIRROR: Final = '[[registry]]\nlocation = "HOST/a"\n[[registry.mirror]]\nlocation = "HOST/cache"\n'
_BLOCKED: Final = '[[registry]]\nlocation = "evil.io"\nblocked = true\n'

OF_MIRRORS: Final = {
    "mirrors": (
        Situation("neither has it", "pull HOST/a/b:nope", 3, _conf(_MIRROR), environment=_CONF),
        Situation("blocked", "pull evil.io/a", 4, _conf(_BLOCKED), environment=_CONF),
        Situation("a short name of several", "pull thing", 2,
                  _conf('unqualified-search-registries = ["a.io", "b.io"]\n'), environment=_CONF),
        Situation("version 1", "pull a.io/b", 2, _conf('[registries.search]\nregistries = ["a.io"]\n'),
                  environment=_CONF),
        Situation("a helper", "pull a.io/b", 2, _conf('credential-helpers = ["secretservice"]\n'),
                  environment=_CONF),
        Situation("a scheme", "pull a.io/b", 2, _conf('[[registry]]\nlocation = "https://a.io"\n'),
                  environment=_CONF),
        Situation("no such file", "pull a.io/b", 2, environment={"CONTAINERS_REGISTRIES_CONF": "HOME/none"}),
        Situation("an unknown capability", "pull a.io/b", 2,
                  _hosts('[host."https://b.io"]\ncapabilities = ["pul"]\n'), environment=_HOSTS),
        Situation("an unknown key", "config check a.io/b", 2, _hosts('servers = "https://b.io"\n'),
                  environment=_HOSTS),
        Situation("a host that may do nothing", "pull a.io/b", 4,
                  _hosts('server = "https://b.io"\ncapabilities = ["push"]\n'), environment=_HOSTS),
        Situation("an authority that is none", "pull a.io/b", 2,
                  _hosts('server = "https://b.io"\nca = "hosts.toml"\n'), environment=_HOSTS),
    ),
}  # fmt: skip
