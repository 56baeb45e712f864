"""The factor "device": the caller's own device is attested, and its key takes part now.

The evidence is an attestation result (EAR) of a pinned verifier, and a signature over the transcript by the key that
the result confirms (`cnf`): a result that was copied from the device is worth nothing without that key. Source: RFC
9334 (RATS), section 10 on freshness; the profile of `ringfence.attestation.result`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ringfence.attestation import AttestationError, Status
from ringfence.attestation import result as results
from ringfence.crypto import COMPOSITE, CryptoError, Signer
from ringfence.plugin.identity.errors import DEVICE_REFUSED, IdentityError, malformed, too_large
from ringfence.plugin.identity.port import Binding, Proven

NAME: Final = "device"
CONTEXT: Final = b"ringfence identity factor device v1"
MAX_EVIDENCE: Final = 64 * 1024
_GOOD: Final = {"affirming": frozenset({Status.AFFIRMING}), "warning": frozenset({Status.AFFIRMING, Status.WARNING})}


class Evidence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The attestation result, and the device key's signature over the transcript."""

    result: Annotated[str, Meta(max_length=results.MAX_TOKEN)]
    signature: Annotated[bytes, Meta(max_length=8192)]


def make_evidence(token: str, device: Signer, transcript: bytes) -> bytes:
    """What `device` shows for `transcript`; `token` is a fresh attestation result that confirms its key."""
    return msgspec.json.encode(Evidence(token, device.sign(transcript, CONTEXT)))


def decode_evidence(data: bytes) -> Evidence:
    """Raises `identity.evidence_too_large`, `identity.evidence_malformed`."""
    if len(data) > MAX_EVIDENCE:
        raise too_large("The device's evidence", len(data), MAX_EVIDENCE, field="device")
    try:
        return msgspec.json.decode(data, type=Evidence)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise malformed("The device's evidence", "it is not a result and a signature", field="device") from None


class DeviceFactor:
    """Verifies results of what `verifiers` (key id -> public key) pins at the time.

    `minimum` is "affirming" or "warning"; a result counts for `max_age_s` after it was issued, and never longer than it
    says itself.
    """

    name: Final = NAME

    def __init__(self, verifiers: Callable[[int], Mapping[str, bytes]], *, minimum: str, max_age_s: int) -> None:
        self._verifiers = verifiers
        self._good = _GOOD[minimum]
        self._max_age_s = max_age_s

    async def verify(self, evidence: bytes, binding: Binding, *, now: int) -> Proven:
        """`evidence` is what `make_evidence` makes; the subject is the id of the device's key."""
        held = decode_evidence(evidence)
        try:
            result = results.check(held.result, verifiers=self._verifiers(now), now=now)
            COMPOSITE.verify(result.agent_key, binding.transcript, held.signature, CONTEXT)
        except AttestationError as error:
            raise _refused(f"its attestation result does not hold ({error.code})") from None
        except CryptoError:
            raise _refused("its key has not signed this session") from None
        ends_at = min(result.expires_at, result.issued_at + self._max_age_s)
        if ends_at <= now:
            raise _refused("its attestation result is too old")
        if result.status not in self._good:
            raise _refused(f"its status is {result.status.name.lower()}")
        attributes = (f"device_status={result.status.name.lower()}", f"device_score={result.score}")
        return Proven(NAME, result.subject, True, ends_at, attributes=attributes)


def _refused(why: str) -> IdentityError:
    return IdentityError(
        DEVICE_REFUSED, f"The device is refused: {why}.", field="device", hint="Let the device be attested again."
    )
