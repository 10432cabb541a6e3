"""Answers as values, and errors as the distribution specification has them (error codes). Pure."""

import json
from typing import Final, Literal

import msgspec

from layerfs.foreign import LINE, printable
from layerfs.oci import Digest
from layerfs.store.blobs import VerifiedBlob

Code = Literal[
    "BLOB_UNKNOWN",
    "DIGEST_INVALID",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "RANGE_INVALID",
    "TOOMANYREQUESTS",
    "UNAVAILABLE",
    "UNSUPPORTED",
]
"""RANGE_INVALID and UNAVAILABLE are those of Docker's registry; the specification has none for them."""

Header = tuple[str, str]

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
REASONS: Final = {
    200: "OK",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    505: "HTTP Version Not Supported",
}
"""All statuses that are answered."""


class BlobPart(msgspec.Struct, frozen=True):
    """Bytes of a blob of the store, from *start* to before *stop*."""

    blob: VerifiedBlob
    start: int
    stop: int


class Served(msgspec.Struct, frozen=True):
    """What a digest names, before anybody has said which part of it he wants."""

    digest: Digest
    media_type: str
    body: bytes | VerifiedBlob

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.body) if isinstance(self.body, bytes) else self.body.size


class Answer(msgspec.Struct, frozen=True):
    """One answer. Its length follows from the body, or is *length* where that is not sent."""

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes | BlobPart = b""
    length: int | None = None

    @property
    def size(self) -> int:
        """Bytes that the header announces."""
        if self.length is not None:
            return self.length
        return len(self.body) if isinstance(self.body, bytes) else self.body.stop - self.body.start


class Refused(Exception):
    """What was asked for is not answered; never leaves this package.

    *message* may quote what was asked: it is made printable here.
    """

    def __init__(self, status: int, code: Code, message: str, *headers: Header) -> None:
        super().__init__(printable(message, 4 * LINE))
        self.status = status
        self.code = code
        self.headers = headers

    def reply(self) -> Answer:
        """Return the answer that says so."""
        body = json.dumps({"errors": [{"code": self.code, "message": str(self)}]}).encode() + b"\n"
        return Answer(self.status, (("Content-Type", JSON), *self.headers), body)
