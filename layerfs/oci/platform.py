"""Operating system, architecture, variant: normalised, and how an index is searched.

The order of candidates is containerd's (platforms/compare.go), the normal forms too.
"""

from collections.abc import Iterator
from typing import Self

import msgspec

from layerfs.errors import InvalidSettings
from layerfs.foreign import printable
from layerfs.spared import platform as host

_ARCHITECTURES = {
    "x86_64": ("amd64", ""), "x86-64": ("amd64", ""), "aarch64": ("arm64", ""), "i386": ("386", ""),
    "i686": ("386", ""), "armhf": ("arm", "v7"), "armv7l": ("arm", "v7"), "armel": ("arm", "v6"),
    "armv6l": ("arm", "v6"), "loongarch64": ("loong64", ""),
}  # fmt: skip
_VARIANTS = {
    ("amd64", "v1"): "", ("arm64", "8"): "", ("arm64", "v8"): "", ("arm64", "v8.0"): "",
    ("arm64", "9"): "v9", ("arm64", "9.0"): "v9", ("arm64", "v9.0"): "v9",
    ("arm", ""): "v7", ("arm", "5"): "v5", ("arm", "6"): "v6", ("arm", "7"): "v7", ("arm", "8"): "v8",
}  # fmt: skip

_LONGEST = 80
"""Characters of a word; three of them are still a file name."""


class Platform(msgspec.Struct, frozen=True, order=True):
    """A platform in its normal form; ``variant`` is empty where the architecture implies it."""

    os: str
    architecture: str
    variant: str = ""

    @classmethod
    def of(cls, os: str, architecture: str, variant: str = "") -> Self:
        """Normalise the words that documents and machines use."""
        os, architecture, variant = (printable(word, _LONGEST) for word in (os, architecture, variant))
        os = {"macos": "darwin"}.get(os.lower(), os.lower())
        architecture, implied = _ARCHITECTURES.get(architecture.lower(), (architecture.lower(), ""))
        variant = variant.lower() or implied
        return cls(os, architecture, _VARIANTS.get((architecture, variant), variant))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``os/arch[/variant]`` as ``--platform`` takes it. Raises InvalidSettings."""
        parts = text.split("/")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InvalidSettings(f"not a platform: {text!r} (expected os/arch or os/arch/variant)")
        return cls.of(*parts)

    @classmethod
    def from_name(cls, name: str) -> Self | None:
        """Read the file-name form, ``os-arch[-variant]``; None for anything else."""
        parts = name.split("-")
        if not 2 <= len(parts) <= 3 or not all(parts):
            return None
        found = cls.of(*parts)
        return found if found.name == name else None

    @classmethod
    def of_this_machine(cls) -> Self:
        """Say what images run here natively."""
        return cls.of("linux", host.machine())

    @property
    def name(self) -> str:
        """The platform as one path component: ``linux-arm-v7``."""
        return str(self).replace("/", "-")

    def candidates(self) -> Iterator[Self]:
        """Yield the platforms that can run here, best first."""
        yield self
        own = type(self)
        if self.architecture == "amd64":
            level = int(self.variant[1:]) if self.variant[1:].isdecimal() else 1
            for lower in range(level - 1, 0, -1):
                yield own(self.os, "amd64", f"v{lower}" if lower > 1 else "")
            yield own(self.os, "386")
        elif self.architecture == "arm64":
            yield from (own(self.os, "arm64", variant) for variant in _arm64_below(self.variant))
            yield from (own(self.os, "arm", f"v{n}") for n in (8, 7, 6, 5))
        elif self.architecture == "arm" and self.variant[1:].isdecimal():
            yield from (own(self.os, "arm", f"v{n}") for n in range(int(self.variant[1:]) - 1, 4, -1))

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def _arm64_below(variant: str) -> Iterator[str]:
    """Yield the variants that an arm64 machine of *variant* also runs, best first."""
    major, _, minor = variant.removeprefix("v").partition(".")
    step = int(minor) if minor.isdecimal() else 0
    if major == "9":
        yield from (f"v9.{n}" if n else "v9" for n in range(step - 1, -1, -1))
        yield from (f"v8.{n}" for n in range(step + 5, 0, -1))
        yield ""
    elif major == "8":
        yield from (f"v8.{n}" if n else "" for n in range(step - 1, -1, -1))
