"""Enrolling a WebAuthn credential. Source: Web Authentication Level 3, section 7.1. Pure.

Who may enrol is for the caller to decide: an operator, or somebody with an already strong session. The challenge is the
caller's, drawn for this one enrolment.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding
from fido2 import cbor
from fido2.attestation.base import InvalidAttestation, verify_x509_chain
from fido2.attestation.packed import PackedAttestation
from fido2.webauthn import AuthenticatorData
from msgspec import Meta

from ringfence.plugin.identity import ceremony
from ringfence.plugin.identity.ceremony import Encoded, RelyingParty
from ringfence.plugin.identity.credentials import Credential
from ringfence.plugin.identity.errors import ENROLMENT_REFUSED, IdentityError
from ringfence.plugin.identity.names import checked

MAX_ID: Final = 1023
_FAULTS: Final = (
    *ceremony.FAULTS,
    InvalidAttestation,
    InvalidSignature,
    UnsupportedAlgorithm,
    AssertionError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)


class _RegistrationResponse(msgspec.Struct, frozen=True):
    client_data: Encoded = msgspec.field(name="clientDataJSON")
    attestation: Encoded = msgspec.field(name="attestationObject")


class Registration(msgspec.Struct, frozen=True):
    """The JSON form of a registration's response."""

    id: Annotated[Encoded, Meta(min_length=1)]
    type: Literal["public-key"]
    response: _RegistrationResponse


def check_enrolment(
    data: bytes,
    *,
    owner: str,
    challenge: bytes,
    party: RelyingParty,
    allow_unattested: bool,
    authorities: tuple[x509.Certificate, ...] = (),
    now: int,
) -> Credential:
    """The credential to keep for `owner`.

    An attestation of the format "packed" that leads to one of `authorities` is verified; a credential that nobody
    vouches for ("none", or signed by itself) is taken only where `allow_unattested`. Raises `identity.name_unsafe`,
    `_evidence_malformed`, `_evidence_too_large`, `_ceremony_misdirected`, `_user_not_verified`, `_enrolment_refused`.
    """
    registration = ceremony.decode(data, Registration, "The registration")
    client_data = ceremony.raw(registration.response.client_data)
    ceremony.check_client_data(client_data, "webauthn.create", challenge, party)
    signed, form, statement = ceremony.attestation_object(ceremony.raw(registration.response.attestation))
    ceremony.check_authenticator(signed, party)
    made = signed.credential_data
    if made is None or made.credential_id != ceremony.raw(registration.id) or len(made.credential_id) > MAX_ID:
        raise _refused("it does not say which credential was made")
    ceremony.public_key(made.public_key)
    attested = _attested(form, statement, signed, hashlib.sha256(client_data).digest(), authorities, now)
    if not attested and not allow_unattested:
        raise _refused("no authority that is configured here vouches for the authenticator")
    return Credential(
        made.credential_id,
        checked(owner, field="owner"),
        cbor.encode(made.public_key),
        signed.counter,
        now,
        attested,
    )


def _attested(
    form: str,
    statement: Mapping[str, Any],
    signed: AuthenticatorData,
    client_data_hash: bytes,
    authorities: tuple[x509.Certificate, ...],
    now: int,
) -> bool:
    """Whether one of `authorities` vouches for the authenticator; a statement that does not hold is refused."""
    if form == "none":
        return False
    if form != "packed":
        raise _refused('its attestation has another format than "packed" and "none"')
    try:
        path = PackedAttestation().verify(statement, signed, client_data_hash).trust_path
    except _FAULTS:
        raise _refused("its attestation does not hold") from None
    return bool(path) and any(_leads_to(path, authority, now) for authority in authorities)


def _leads_to(path: list[bytes], authority: x509.Certificate, now: int) -> bool:
    """Whether `path` ends at `authority`, by signatures that count, of authorities, at a time when all are valid."""
    try:
        chain = [*(x509.load_der_x509_certificate(one) for one in path), authority]
        moment = datetime.datetime.fromtimestamp(now, datetime.UTC)
        for certificate, issuer in pairwise(chain):
            constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
            if (
                certificate.issuer != issuer.subject
                or not constraints.ca
                or not isinstance(certificate.signature_hash_algorithm, SHA256 | SHA384 | SHA512)
                or not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc
            ):
                return False
        verify_x509_chain([*path, authority.public_bytes(Encoding.DER)])
    except _FAULTS:
        return False
    return True


def _refused(why: str) -> IdentityError:
    return IdentityError(
        ENROLMENT_REFUSED,
        f"The enrolment is refused: {why}.",
        field="attestationObject",
        hint="Use an authenticator of a maker whose authority is configured, or allow unattested ones.",
    )
