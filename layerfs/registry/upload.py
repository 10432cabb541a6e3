"""How blobs and manifests get into a registry (distribution-spec 1.1, "Push")."""

import logging
from typing import Final, Literal
from urllib.parse import urljoin, urlsplit

import msgspec

from layerfs.errors import DigestMismatch, NotFound, RegistryError, RegistryMisbehaved
from layerfs.oci import Digest, Repository
from layerfs.registry.attempts import Outcome
from layerfs.registry.body import Body
from layerfs.registry.calls import Call
from layerfs.registry.hosts import BlobOf, ManifestOf, UploadsOf
from layerfs.registry.reply import Reply
from layerfs.registry.requester import Requester

_log = logging.getLogger("layerfs.registry")

Way = Literal["existing", "mounted", "uploaded"]
"""How a registry came by a blob."""

_ACTIONS: Final = "pull,push"
_BEGUN: Final = frozenset({201, 202})
_DONE: Final = frozenset({200, 201, 202, 204})
"""201 is what the specification has; others are what registries say and clients take."""
_TOO_LARGE: Final = 413


async def push_blob(
    requester: Requester, repository: Repository, digest: Digest, body: Body, source: Repository | None
) -> Way:
    """Have a blob in *repository*: as it is there, mounted from *source*, or sent. Raises RegistryError."""
    what = f"blob {digest} of {repository}"
    head = Call(
        what=what,
        target=BlobOf(repository, digest),
        method="HEAD",
        statuses=frozenset({200, 404}),
        actions=_ACTIONS,
    )
    if (await _drained(requester, head)).status == 200:
        return "existing"
    post = Call(
        what=what, target=UploadsOf(repository, digest), method="POST", statuses=_BEGUN, actions=_ACTIONS
    )
    begun = None if source is None else await _mount(requester, post, source)
    if begun is not None and begun.status == 201:
        return "mounted"
    put = msgspec.structs.replace(post, method="PUT", statuses=_DONE | {_TOO_LARGE}, body=body)

    async def attempt() -> Outcome:
        """Begin an upload, and send all: what a broken one has received nobody knows."""
        nonlocal begun
        started, begun = begun or await _accepted(requester, post), None
        return await requester.send(put, _location(started, digest, what))

    reply = await requester.persist(attempt)
    await reply.drain()
    if reply.status == _TOO_LARGE:
        raise RegistryMisbehaved(
            f"{what}: {reply.request.origin}, or a proxy before it, takes no {body.size} bytes at once "
            "(status 413); raise its limit, client_max_body_size of nginx for instance"
        )
    return "uploaded"


async def push_manifest(
    requester: Requester, repository: Repository, reference: str | Digest, digest: Digest, body: Body
) -> None:
    """Put a manifest or index, whose blobs are there. Raises RegistryError, DigestMismatch."""
    what = f"manifest {repository}{'@' if isinstance(reference, Digest) else ':'}{reference}"
    call = Call(
        what=what,
        target=ManifestOf(repository, reference),
        method="PUT",
        statuses=_DONE,
        actions=_ACTIONS,
        body=body,
    )
    reply = await _accepted(requester, call)
    announced = reply.headers.get("docker-content-digest", str(digest)).strip()
    if announced != str(digest) and announced.startswith(f"{digest.algorithm}:"):
        raise DigestMismatch(f"{what}: the registry took it as {announced[:100]!r} (expected {digest})")


async def _mount(requester: Requester, post: Call, source: Repository) -> Reply | None:
    """Ask for the blob of another repository; None where that is not even answered by an upload."""
    target = post.target
    assert isinstance(target, UploadsOf)
    call = msgspec.structs.replace(post, target=msgspec.structs.replace(target, source=source))
    try:
        return await _drained(requester, call)
    except RegistryError as exc:  # no right to read there, or an old registry: bytes are sent instead
        _log.info("%s; not mounted from %s", exc, source)
        return None


async def _accepted(requester: Requester, call: Call) -> Reply:
    """Return the answer to what a registry may lack the place for. Raises RegistryError."""
    try:
        return await _drained(requester, call)
    except NotFound as exc:
        raise NotFound(f"{exc}; some registries want a repository made before anything is pushed") from exc


async def _drained(requester: Requester, call: Call) -> Reply:
    reply = await requester.open(call)
    await reply.drain()
    return reply


def _location(begun: Reply, digest: Digest, what: str) -> str:
    """Return where the bytes go. Raises RegistryMisbehaved."""
    location = begun.headers.get("location", "").strip()
    if not location:
        raise RegistryMisbehaved(f"{what}: status {begun.status} without Location (expected a URL)")
    try:
        url = urljoin(begun.request.url, location)
        user = "@" in urlsplit(url).netloc
    except ValueError:
        url, user = "", True
    if user:
        raise RegistryMisbehaved(f"{what}: a Location that is no plain URL; nothing was sent")
    joint = "&" if urlsplit(url).query else "?"
    return f"{url.partition('#')[0]}{joint}digest={digest}"
