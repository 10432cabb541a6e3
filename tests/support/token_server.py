"""A token server that docker-registry believes: signed tokens from an htpasswd-like table.

Source: distribution's docs, "Token Authentication Implementation". Signing is left to openssl.
"""

import base64
import json
import subprocess
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

from tests.support.certificates import Certificate

ISSUER = "layerfs tests"
SERVICE = "docker-registry of the tests"


@dataclass
class TokenServer:
    """A context manager. Repositories below ``public/`` are open to all, others to ``users``."""

    signer: Certificate
    users: dict[str, str]
    asked: list[str] = field(default_factory=list)
    """The scopes of the requests."""

    def __enter__(self) -> Self:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    @property
    def environment(self) -> dict[str, str]:
        """What makes docker-registry send its clients here."""
        return {
            "REGISTRY_AUTH": "token",
            "REGISTRY_AUTH_TOKEN_REALM": f"http://127.0.0.1:{self._server.server_address[1]}/auth",
            "REGISTRY_AUTH_TOKEN_SERVICE": SERVICE,
            "REGISTRY_AUTH_TOKEN_ISSUER": ISSUER,
            "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": str(self.signer.certificate),
        }

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        query = parse_qs(urlsplit(handler.path).query)
        scopes = query.get("scope", [""])
        self.asked += scopes
        given = handler.headers.get("Authorization", "").removeprefix("Basic ")
        user, _, password = base64.b64decode(given).decode().partition(":")
        known = self.users.get(user) == password and bool(user)
        status = 200 if known or not user else 401
        body = json.dumps({"token": self._token(scopes, known), "expires_in": 300}).encode()
        handler.send_response_only(status)
        handler.send_header("Content-Length", str(len(body) if status == 200 else 0))
        handler.end_headers()
        if status == 200:
            handler.wfile.write(body)

    def _token(self, scopes: list[str], known: bool) -> str:
        access = []
        for scope in scopes:
            kind, _, rest = scope.partition(":")
            name, _, actions = rest.rpartition(":")
            if known or name.startswith("public/"):
                access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": "", "aud": SERVICE, "nbf": now - 60, "iat": now, "exp": now + 300}
        chain = "".join(self.signer.certificate.read_text().strip().splitlines()[1:-1])
        header = {"typ": "JWT", "alg": "ES256", "x5c": [chain]}
        text = f"{_json(header)}.{_json(claims | {'jti': str(now), 'access': access})}"
        return f"{text}.{_encoded(self._signature(text.encode()))}"

    def _signature(self, text: bytes) -> bytes:
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.signer.key)]
        der = subprocess.run(command, input=text, capture_output=True, check=True).stdout
        return _integer(der, 3) + _integer(der, 4 + der[3] + 1)


def _integer(der: bytes, at: int) -> bytes:
    """Return one of the two numbers of a signature in DER as 32 bytes; *at* is its length octet."""
    number = int.from_bytes(der[at + 1 : at + 1 + der[at]], "big")
    return number.to_bytes(32, "big")


def _json(value: object) -> str:
    return _encoded(json.dumps(value).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")
