"""Makes a certificate authority and server certificates with openssl, for tests that speak TLS."""

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM."""

    certificate: Path
    key: Path

    def server_context(self) -> ssl.SSLContext:
        """Return what a server needs to show it."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        made.load_cert_chain(self.certificate, self.key)
        return made


def authority(directory: Path, name: str = "authority") -> Certificate:
    """Make a certificate authority."""
    made = Certificate(directory / f"{name}.crt", directory / f"{name}.key")
    # What RFC 5280 asks of authorities; Python 3.13 believes no others (VERIFY_X509_STRICT).
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(
        *("req", "-x509", *_new_key(made), "-days", "2", "-subj", f"/CN={name}", *usage),
        *("-out", str(made.certificate)),
    )
    return made


def issue(directory: Path, by: Certificate, *names: str) -> Certificate:
    """Make a certificate for hosts, signed by an authority."""
    made = Certificate(directory / f"{names[0]}.pem", directory / f"{names[0]}.key.pem")
    request = directory / f"{names[0]}.csr"
    extensions = directory / f"{names[0]}.ext"
    kinds = ("IP" if name[0].isdigit() else "DNS" for name in names)
    alternatives = ",".join(f"{kind}:{name}" for kind, name in zip(kinds, names, strict=True))
    extensions.write_text(f"subjectAltName={alternatives}\nauthorityKeyIdentifier=keyid\n")
    _openssl("req", *_new_key(made), "-subj", f"/CN={names[0]}", "-out", str(request))
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(by.certificate), "-CAkey", str(by.key)),
        *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(made.certificate)),
    )
    return made


def _new_key(made: Certificate) -> list[str]:
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    return [*curve, "-nodes", "-keyout", str(made.key)]


def _openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True)
