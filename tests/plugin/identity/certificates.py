"""A small certificate authority that makes the chains that a test needs, good and bad."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
NOW = 1_790_000_000
WORKLOAD = "spiffe://example.org/ns/jobs/sa/alice"


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


@dataclass(frozen=True)
class Issued:
    certificate: x509.Certificate
    key: PrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    @property
    def thumbprint(self) -> str:
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def certificate(
    issuer: Issued | None = None,
    *,
    uris: tuple[str, ...] = (),
    ca: bool = False,
    key: PrivateKey | None = None,
    name: str = "",
    starts: int = NOW - 60,
    ends: int = NOW + 3600,
    signs: bool | None = None,
    digital_signature: bool = True,
    usage: bool = True,
    usage_critical: bool = True,
    path_length: int | None = None,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (),
) -> Issued:
    """A certificate by `issuer`, or by itself."""
    key = key or p256()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment(starts))
        .not_valid_after(moment(ends))
        .add_extension(x509.BasicConstraints(ca, path_length), critical=True)
    )
    if usage:
        signs = ca if signs is None else signs
        flags = x509.KeyUsage(
            digital_signature=digital_signature and not ca,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=signs,
            crl_sign=signs,
            encipher_only=False,
            decipher_only=False,
        )
        builder = builder.add_extension(flags, critical=usage_critical)
    if uris:
        names = [x509.UniformResourceIdentifier(uri) for uri in uris]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=not name)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    algorithm = None if isinstance(signer, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return Issued(builder.sign(signer, algorithm), key)


def authority(domain: str = "example.org", *, ends: int = NOW + 86_400, key: PrivateKey | None = None) -> Issued:
    return certificate(uris=(f"spiffe://{domain}",), ca=True, name=f"{domain} authority", ends=ends, key=key)
