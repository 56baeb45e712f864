"""Grants: the gateway's decision as the agent checks it, authenticated under the key of their channel. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from ringfence.agent.api.errors import (
    GRANT_EXPIRED,
    GRANT_FOREIGN,
    GRANT_FORGED,
    GRANT_MALFORMED,
    GrantError,
)
from ringfence.agent.api.jobs import JobLimits
from ringfence.crypto import CryptoError, mac, verify_mac

CHANNEL_PURPOSE: Final = "channel"
GRANT_KEY: Final = "grant"
PROOF_KEY: Final = "host proof request"
GRANT_LIFETIME_S: Final = 60
_MAX_GRANT = 4096


class Grant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One use of one host for one body. `body_digest` is the SHA-256 of the submission as the caller sent it."""

    grant_id: str
    audience: str
    gateway: str
    session: str
    principal: str
    body_digest: bytes
    limits: JobLimits
    bundle_digest: str
    attestation_digest: str
    issued_at: int
    expires_at: int


def seal_grant(key: bytes, grant: Grant) -> tuple[bytes, bytes]:
    """A grant's bytes and their tag under the channel's grant key."""
    encoded = msgspec.msgpack.encode(grant)
    return encoded, mac(key, encoded)


def open_grant(key: bytes, encoded: bytes, tag: bytes, *, audience: str, gateway: str, now: int) -> Grant:
    """The grant, proven to come from `gateway` for `audience` and to be valid now; its id is still to be spent."""
    if len(encoded) > _MAX_GRANT:
        raise GrantError(GRANT_MALFORMED, f"The grant has {len(encoded)} bytes, more than {_MAX_GRANT}.")
    try:
        verify_mac(key, encoded, tag)
    except CryptoError:
        raise GrantError(
            GRANT_FORGED, "The grant is not authenticated by the channel's key.", hint="Ask the gateway for a grant."
        ) from None
    try:
        grant = msgspec.msgpack.decode(encoded, type=Grant)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GrantError(GRANT_MALFORMED, f"The grant does not parse: {error}.") from None
    if grant.audience != audience or grant.gateway != gateway:
        raise GrantError(
            GRANT_FOREIGN, f"The grant is for {grant.audience} by {grant.gateway}, not for this host.", field="audience"
        )
    lifetime = grant.expires_at - grant.issued_at
    if not 0 < lifetime <= GRANT_LIFETIME_S or not grant.issued_at - GRANT_LIFETIME_S <= now < grant.expires_at:
        raise GrantError(GRANT_EXPIRED, "The grant is not valid at this time.", field="expires_at")
    return grant
