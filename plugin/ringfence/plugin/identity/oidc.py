"""The factor "oidc": an access token of one pinned issuer, bound to a key of whoever sends it.

Sources: RFC 7519, RFC 8725, RFC 9068 (JWT access tokens), RFC 8705 (bound to a certificate), RFC 9449 (DPoP). A bearer
token that is bound to nothing is verified all the same, but proves no key: whoever copies it has it.
"""

from __future__ import annotations

import base64
import hmac
from typing import Any, Final

import msgspec

from ringfence.plugin.identity import claims as claim_rules
from ringfence.plugin.identity import dpop, jose
from ringfence.plugin.identity.claims import Claims
from ringfence.plugin.identity.errors import TOKEN_CONFIRMATION, IdentityError, malformed, too_large
from ringfence.plugin.identity.keyring import Keyring
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.identity.settings import OidcSettings

NAME: Final = "oidc"
MAX_EVIDENCE: Final = jose.MAX_TOKEN + dpop.MAX_PROOF + 64


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A token and, where it is bound to a key by its `jkt`, the DPoP proof."""

    token: str
    proof: str = ""


def encode_evidence(token: str, proof: str = "") -> bytes:
    """What this factor takes, from the fields `Authorization` (its token) and `DPoP` of a request."""
    return msgspec.json.encode(Evidence(token, proof))


def decode_evidence(data: bytes) -> Evidence:
    """Raises `identity.evidence_too_large`, `identity.evidence_malformed`."""
    if len(data) > MAX_EVIDENCE:
        raise too_large("The token", len(data), MAX_EVIDENCE, field="token")
    try:
        return msgspec.json.decode(data, type=Evidence)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("The token", "it is not a token and a proof", field="token") from None


class OidcFactor:
    """Verifies the tokens of the one issuer of `settings`, with the keys of `keyring`."""

    name: Final = NAME

    def __init__(self, settings: OidcSettings, keyring: Keyring) -> None:
        self._settings = settings
        self._keyring = keyring
        self._algorithms = frozenset(settings.algorithms)
        self._types = frozenset(settings.types)

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        """`evidence` is what `encode_evidence` makes."""
        settings, held = self._settings, decode_evidence(evidence)
        token = jose.parse(
            held.token.encode("utf-8", "replace"), algorithms=self._algorithms, types=self._types, field="token"
        )
        key = await self._keyring.key(token.header.kid, now=now)
        payload = jose.verified(token, key, field="token")
        claims = jose.claims(payload, Claims, field="token")
        claim_rules.check(
            claims,
            issuer=settings.issuer,
            audience=settings.audience,
            now=now,
            leeway_s=settings.leeway_s,
            max_lifetime_s=settings.max_lifetime_s,
        )
        said: dict[str, Any] = jose.claims(payload, dict[str, Any], field="token")
        return Proven(
            NAME,
            f"{claims.iss}#{claims.sub}",
            self._bound(claims, held, binding, now),
            int(claims.exp),
            claim_rules.groups(said, settings.groups_claim),
            claim_rules.attributes(said, settings.attribute_claims),
        )

    def _bound(self, claims: Claims, held: Evidence, binding: Binding, now: int) -> bool:
        """Whether the token is bound to a key that is proven here. A binding that does not hold refuses the token."""
        confirmation = claims.cnf
        if confirmation is None:
            return False
        if confirmation.x5t is None and confirmation.jkt is None:
            raise _unconfirmed("it is bound to a key in a way that is not known here")
        if confirmation.x5t is not None:
            expected = base64.urlsafe_b64encode(bytes.fromhex(binding.thumbprint)).rstrip(b"=")
            if not expected or not hmac.compare_digest(confirmation.x5t.encode(), expected):
                raise _unconfirmed("it is bound to another certificate than the channel's")
        if confirmation.jkt is not None:
            if not self._settings.proof_url:
                raise _unconfirmed("it needs a DPoP proof, and no address for one is configured here")
            request = dpop.Expected(
                method=self._settings.proof_method,
                url=self._settings.proof_url,
                token=held.token,
                transcript=binding.transcript,
                thumbprint=confirmation.jkt,
                max_age_s=self._settings.proof_age_s,
            )
            dpop.check(held.proof.encode("utf-8", "replace"), request, now=now)
        return True


def _unconfirmed(why: str) -> IdentityError:
    return IdentityError(
        TOKEN_CONFIRMATION,
        f"The token is refused: {why}.",
        field="cnf",
        hint="Send it on the channel, or with the proof, that it was issued for.",
    )
