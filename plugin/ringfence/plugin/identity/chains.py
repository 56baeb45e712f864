"""Certificate chains as a trusted host passes them on: bytes into certificates, the leaf first. Pure."""

from __future__ import annotations

from typing import Final

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

from ringfence.plugin.identity.errors import IdentityError, malformed, too_large

MAX_CHAIN: Final = 32 * 1024
MAX_CERTIFICATES: Final = 5
_PEM: Final = b"-----BEGIN CERTIFICATE-----"
_SEQUENCE: Final = 0x30

FAULTS: Final = (
    ValueError,  # every ASN.1 fault, and names that are no text
    TypeError,  # a point that is on no curve
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    x509.AttributeNotFound,
    CryptographyDeprecationWarning,  # where warnings are errors
)
"""What reading a hostile certificate, or a lazily parsed part of one, may raise in `cryptography`."""


def decode(data: bytes) -> tuple[x509.Certificate, ...]:
    """The certificates in `data`, at most five: PEM, or DER one behind the other.

    Raises `identity.evidence_malformed`, and beyond 32 KiB `identity.evidence_too_large`.
    """
    if len(data) > MAX_CHAIN:
        raise too_large("The certificate chain", len(data), MAX_CHAIN, field="certificate")
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            if data.count(_PEM) > MAX_CERTIFICATES:
                raise _malformed(f"it has more than {MAX_CERTIFICATES} certificates")
            chain = tuple(x509.load_pem_x509_certificates(data))
        else:
            chain = tuple(x509.load_der_x509_certificate(one) for one in _apart(data))
    except FAULTS as error:
        raise _malformed(f"it is no X.509 ({type(error).__name__})") from None
    if not chain:
        raise _malformed("it is empty")
    if any(certificate.serial_number <= 0 for certificate in chain):
        raise _malformed("a serial number in it is not positive (RFC 5280, section 4.1.2.2)")
    return chain


def _apart(data: bytes) -> list[bytes]:
    """DER values that stand one behind the other (X.690, section 8.1.3), cut apart by their own lengths."""
    parts: list[bytes] = []
    while data:
        if len(parts) == MAX_CERTIFICATES:
            raise _malformed(f"it has more than {MAX_CERTIFICATES} certificates")
        if len(data) < 4 or data[0] != _SEQUENCE or data[1] not in {0x81, 0x82}:
            raise _malformed("a certificate does not begin as one does")
        octets = data[1] & 0x7F
        size = 2 + octets + int.from_bytes(data[2 : 2 + octets])
        if size > len(data):
            raise _malformed("a certificate is cut short")
        parts.append(data[:size])
        data = data[size:]
    return parts


def _malformed(why: str) -> IdentityError:
    return malformed("The certificate chain", why, field="certificate")
