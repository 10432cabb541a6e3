"""Content addresses. The one place where text becomes a digest, and a digest a file name."""

import hashlib
import re
import sys
from base64 import b32encode
from binascii import b2a_base64
from typing import Protocol, Self

import msgspec

from layerfs.errors import DigestMismatch, InvalidDigest, SizeMismatch

_HEX_DIGITS = {"sha256": 64, "sha512": 128}
_LOWER_HEX = frozenset("0123456789abcdef")
_GRAMMAR = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[a-zA-Z0-9=_-]+")
"""A digest of any algorithm (image-spec, descriptor.md#digests)."""
_SHORT_ID_LENGTH = 26
_OBJECT_ID_LENGTH = 22
_OBJECT_ID_HEX = 36
"""Digits that an object's id is made of: a whole number of groups of base64."""
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""RFC 4648 section 5."""


def object_id(hex_: str) -> str:
    """Return `Digest.object_id` of the digest of so many hex digits, for whoever has very many of them."""
    head = b2a_base64(bytes.fromhex(hex_[:_OBJECT_ID_HEX]), newline=False)[:_OBJECT_ID_LENGTH]
    return head.translate(_URL_SAFE).decode("ascii")


class Hasher(Protocol):
    """What hashlib returns, as far as we use it."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take in more bytes."""

    def hexdigest(self) -> str:
        """Return the hash of all bytes so far, as lowercase hex."""


class Digest(msgspec.Struct, frozen=True, order=True):
    """Content address; equal digests mean equal bytes (image-spec, descriptor.md#digests)."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``algorithm:hex``; sha256 and sha512, lowercase. Raises InvalidDigest."""
        algorithm, _, hex_ = text.partition(":")
        if len(hex_) != _HEX_DIGITS.get(algorithm) or not _LOWER_HEX.issuperset(hex_):
            raise InvalidDigest(
                f"not a supported digest: {text[:200]!r} (expected sha256: and 64, or sha512: and 128, "
                "lowercase hex digits)"
            )
        return cls(sys.intern(algorithm), hex_)  # one text for all digests

    @classmethod
    def is_known(cls, text: str) -> bool:
        """Say whether *text* is of an algorithm that `parse` reads, or nothing that could be a digest."""
        return text.partition(":")[0] in _HEX_DIGITS or _GRAMMAR.fullmatch(text) is None

    @classmethod
    def from_name(cls, name: str) -> Self:
        """Read the file-name form, ``sha256-<hex>``. Raises InvalidDigest."""
        if ":" in name:  # a digest must not have two names
            raise InvalidDigest(f"not the name of a digest: {name[:200]!r} (expected sha256-<hex>)")
        return cls.parse(name.replace("-", ":", 1))

    @classmethod
    def of(cls, content: bytes, algorithm: str = "sha256") -> Self:
        """Hash *content*."""
        return cls(algorithm, hashlib.new(algorithm, content).hexdigest())

    @classmethod
    def finish(cls, algorithm: str, hasher: Hasher) -> Self:
        """Return what *hasher*, made for *algorithm*, has computed."""
        return cls(algorithm, hasher.hexdigest())

    def check(self, raw: bytes, what: str, *, size: int | None = None) -> None:
        """Raise SizeMismatch or DigestMismatch unless *raw* hashes to this, and is *size* bytes if known."""
        if size is not None and len(raw) != size:
            raise SizeMismatch(f"{what}: {len(raw)} bytes (expected {size})")
        self.require(Digest.of(raw, self.algorithm), what)

    def require(self, found: "Digest", what: str) -> None:
        """Raise DigestMismatch unless *found*, computed from the bytes of *what*, is this digest."""
        if found != self:
            raise DigestMismatch(f"{what}: the bytes hash to {found} (expected {self})")

    def hasher(self) -> Hasher:
        """Return a fresh hash object of this digest's algorithm."""
        return hashlib.new(self.algorithm)

    @property
    def name(self) -> str:
        """The digest as one path component: ``sha256-<hex>``."""
        return f"{self.algorithm}-{self.hex}"

    @property
    def shown(self) -> str:
        """Enough of it for a person to find it by: ``sha256:`` and twelve digits, as docker shows it."""
        return f"{self.algorithm}:{self.hex[:12]}"

    @property
    def short_id(self) -> str:
        """26 base32 characters, 130 bits: short in a mount option, too long for a collision to be found."""
        return b32encode(bytes.fromhex(self.hex)).decode("ascii")[:_SHORT_ID_LENGTH].lower()

    @property
    def object_id(self) -> str:
        """22 characters of base64, 132 bits: what a file of a lazy layer is called among the objects.

        Shorter than `short_id` for as much: `layerfs.layer.overlayfs.object_redirect` says why that matters.
        """
        return object_id(self.hex)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"
