"""Certificates for the tests of real hosts: a server's, and a client's with its SHA-256 beside it."""

from __future__ import annotations

import datetime
import hashlib
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID


def make_certificates(folder: Path) -> None:
    """`server.pem`, `server.key`, `client.pem`, `client.key` and `client.sha256` in `folder`."""
    for who in ("server", "client"):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        now = datetime.datetime.now(datetime.UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{who}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        (folder / f"{who}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        der = certificate.public_bytes(Encoding.DER)
        (folder / f"{who}.sha256").write_text(hashlib.sha256(der).hexdigest())


def client_context(folder: Path) -> ssl.SSLContext:
    """A client that shows its certificate and checks the server's."""
    context = ssl.create_default_context(cafile=str(folder / "server.pem"))
    context.load_cert_chain(folder / "client.pem", folder / "client.key")
    return context
