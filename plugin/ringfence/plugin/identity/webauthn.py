"""The factor "webauthn": an authenticator has verified its user, by a PIN or a biometric that never leaves it.

Source: Web Authentication Level 3, section 7.2. What is proven is that the authenticator verified its user; by what
means is its own affair, so it is reported as user-verified and never as biometric. The challenge is the transcript, so
an assertion that was phished or recorded is worth nothing in another session.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from msgspec import Meta

from ringfence.plugin.identity import ceremony
from ringfence.plugin.identity.ceremony import Encoded, RelyingParty
from ringfence.plugin.identity.credentials import Credential, CredentialStore, read_key
from ringfence.plugin.identity.errors import ASSERTION_SIGNATURE, CREDENTIAL_UNKNOWN, IdentityError
from ringfence.plugin.identity.port import Binding, Proven

NAME: Final = "webauthn"
COUNTER_ODDITY: Final = "webauthn.counter_went_back"
_HANDLE: Final = b"ringfence webauthn user handle v1\0"


class _AssertionResponse(msgspec.Struct, frozen=True):
    client_data: Encoded = msgspec.field(name="clientDataJSON")
    authenticator_data: Encoded = msgspec.field(name="authenticatorData")
    signature: Encoded
    user_handle: Encoded | None = msgspec.field(name="userHandle", default=None)


class Assertion(msgspec.Struct, frozen=True):
    """The JSON form of an authentication's response."""

    id: Annotated[Encoded, Meta(min_length=1)]
    type: Literal["public-key"]
    response: _AssertionResponse


def user_handle(principal: str) -> bytes:
    """The handle that an authenticator keeps for a principal: 32 bytes that do not tell its name (section 14.6.1)."""
    return hashlib.sha256(_HANDLE + principal.encode()).digest()


def check_assertion(
    data: bytes, challenge: bytes, party: RelyingParty, store: CredentialStore
) -> tuple[Credential, int]:
    """The credential that made an assertion, and the counter that it shows.

    Raises `identity.evidence_malformed`, `_evidence_too_large`, `_credential_unknown`, `_ceremony_misdirected`,
    `_user_not_verified` or `_assertion_signature`.
    """
    assertion = ceremony.decode(data, Assertion, "The assertion")
    credential = store.find(ceremony.raw(assertion.id))
    if credential is None:
        raise _unknown("This credential is not enrolled here.")
    said = assertion.response
    if said.user_handle and not hmac.compare_digest(ceremony.raw(said.user_handle), user_handle(credential.owner)):
        raise _unknown("This credential belongs to another user than it says.")
    client_data, authenticator = ceremony.raw(said.client_data), ceremony.raw(said.authenticator_data)
    ceremony.check_client_data(client_data, "webauthn.get", challenge, party)
    signed = ceremony.authenticator_data(authenticator)
    ceremony.check_authenticator(signed, party)
    try:
        read_key(credential.key).verify(
            authenticator + hashlib.sha256(client_data).digest(), ceremony.raw(said.signature)
        )
    except (InvalidSignature, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        raise IdentityError(
            ASSERTION_SIGNATURE, "The assertion is not signed with the credential's key.", field="signature"
        ) from None
    return credential, signed.counter


class WebAuthnFactor:
    """Verifies assertions of the credentials in `store`; each proves its owner for `lifetime_s`."""

    name: Final = NAME

    def __init__(self, party: RelyingParty, store: CredentialStore, *, lifetime_s: int) -> None:
        self._party = party
        self._store = store
        self._lifetime_s = lifetime_s

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        """`evidence` is the JSON form of the response to a challenge that is `binding.transcript`.

        A counter that went back says that the credential may have been copied (section 6.1.1): that raises the risk.
        """
        credential, counter = check_assertion(evidence, binding.transcript, self._party, self._store)
        in_order = await self._store.advance(credential.credential, counter)
        return Proven(
            NAME,
            credential.owner,
            True,
            now + self._lifetime_s,
            attributes=("user_verified=true", f"authenticator_attested={str(credential.attested).lower()}"),
            oddities=() if in_order else (COUNTER_ODDITY,),
        )


def _unknown(why: str) -> IdentityError:
    return IdentityError(
        CREDENTIAL_UNKNOWN, why, field="credential", hint="Enrol the security key first, or use another one."
    )
