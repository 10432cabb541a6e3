"""What a registry is asked for, as a value. Pure."""

from collections.abc import Callable
from typing import Final

import msgspec

from layerfs.oci import Digest, Repository
from layerfs.registry.body import Body
from layerfs.registry.hosts import BlobOf, Greeting, Host, ManifestOf, Target, UploadsOf
from layerfs.registry.ranges import ALL, Range
from layerfs.registry.redirects import Request
from layerfs.registry.token import RepositoryRights

_SUCCESS: Final = frozenset({200})
READING: Final = "pull"
"""The rights to a repository that looking needs."""
Content = tuple[Repository, Digest]
"""Bytes that are the same whoever gives them."""


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """What to ask a registry for."""

    what: str
    """For messages: ``manifest docker.io/library/alpine:3.20``."""
    target: Target
    method: str = "GET"
    accept: str = "*/*"
    range: Range = ALL
    limit: int | None = None
    """Read the body, at most so many bytes, before returning; one that breaks off is asked for again."""
    statuses: frozenset[int] = _SUCCESS
    """Which answers to return; others become errors. Empty: all that are not worth a retry."""
    download: bool = False
    """A blob: takes a place among the downloads, not among the requests."""
    spare: bool = False
    """Waits for no place: there is other work, which it stands beside."""
    actions: str = READING
    """The rights to the repository that it needs."""
    body: Body | None = None
    check: Callable[[bytes], None] | None = None
    """Judges a body that was read. Raises VerificationError: then another server is asked."""

    @property
    def registry(self) -> str:
        """The registry that is meant, whichever host is asked."""
        return self.target.registry if isinstance(self.target, Greeting) else self.target.repository.registry

    def rights(self, host: Host) -> RepositoryRights:
        """Return the rights that it needs at *host*."""
        if isinstance(self.target, Greeting):
            return RepositoryRights()
        source = self.target.source if isinstance(self.target, UploadsOf) else None
        path = host.path_of
        return RepositoryRights(path(self.target.repository), self.actions, path(source) if source else "")

    @property
    def content(self) -> Content | None:
        """The blob or manifest that it names by digest, if it does."""
        match self.target:
            case BlobOf(repository, digest) | ManifestOf(repository, Digest() as digest):
                return repository, digest
        return None

    @property
    def writes(self) -> bool:
        """Whether it changes what a registry has, or asks for a change."""
        return self.actions != READING

    def request(self, host: Host, authorization: str | None) -> Request:
        """Return the HTTP request."""
        return Request(
            method=self.method,
            url=host.url(self.target),
            accept=self.accept,
            range=self.range,
            authorization=authorization,
            insecure=host.insecure,
            body=self.body,
            kind=host.kind,
            more=host.headers,
            link=host.link,
        )
