"""Break-glass approvals: statements by which other people let a principal do for a while what it usually may not.

A statement is signed by a pinned person with the composite key, names one principal, says why, and ends after eight
hours at the latest. Whether an approval is needed, and how many, is for the policies (`context.approvals`). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from ringfence.config import KeyId
from ringfence.crypto import COMPOSITE, CryptoError, Signer
from ringfence.plugin.identity.errors import APPROVAL_MALFORMED, APPROVAL_REFUSED, IdentityError
from ringfence.plugin.identity.names import checked
from ringfence.trust import Role, TrustError, TrustList

CONTEXT: Final = b"ringfence approval v1"
MAX_FILE: Final = 16 * 1024
MAX_LIFETIME_S: Final = 8 * 3600
MAX_REASON: Final = 500
SKEW_S: Final = 60

Time = Annotated[int, Meta(ge=0, lt=253_402_300_800)]


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the owner of the key `approver` states: `principal` is approved for `reason` between two times (seconds)."""

    v: Annotated[int, Meta(ge=1, le=1)]
    principal: str
    reason: Annotated[str, Meta(min_length=1, max_length=MAX_REASON)]
    approver: KeyId
    issued_at: Time
    expires_at: Time


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    statement: Annotated[bytes, Meta(max_length=4096)]
    signature: Annotated[bytes, Meta(max_length=8192)]


def make(signer: Signer, *, principal: str, reason: str, now: int, lifetime_s: int) -> bytes:
    """A signed statement. Raises `identity.approval_malformed` and `identity.name_unsafe` for one that cannot count."""
    approval = Approval(1, principal, reason, signer.key_id, now, now + lifetime_s)
    _check(approval)
    statement = msgspec.json.encode(approval)
    return msgspec.json.encode(_Signed(statement, signer.sign(statement, CONTEXT)))


def verify(data: bytes, trust: TrustList, *, now: int) -> Approval:
    """The statement in `data`, once its signature holds under the pinned key that it names.

    Raises `identity.approval_malformed`, `identity.approval_refused`, `identity.name_unsafe`.
    """
    if len(data) > MAX_FILE:
        raise _malformed(f"it has {len(data)} bytes, more than {MAX_FILE}")
    try:
        signed = msgspec.json.decode(data, type=_Signed)
        approval = msgspec.json.decode(signed.statement, type=Approval)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise _malformed("it is no signed approval") from None
    _check(approval)
    try:
        pin = trust.find(Role.CLIENT, approval.approver, now)
        COMPOSITE.verify(pin.public, signed.statement, signed.signature, CONTEXT)
    except TrustError as error:
        raise _refused(f"its signer is not known ({error.code})") from None
    except CryptoError:
        raise _refused("its signature does not hold") from None
    return approval


def count(approvals: Iterable[Approval], trust: TrustList, *, principal: str, group: str, now: int) -> int:
    """How many different people in `group`, the principal not among them, approve of it now. `approvals` are verified.

    Whose key it is, and in which groups, is asked of `trust` again: a pin that was removed takes its approvals with it.
    """
    approvers = set()
    for approval in approvals:
        if approval.principal != principal or not approval.issued_at - SKEW_S <= now < approval.expires_at:
            continue
        try:
            pin = trust.find(Role.CLIENT, approval.approver, now)
        except TrustError:
            continue
        if group in pin.groups:
            approvers.add(pin.name)
    return len(approvers - {principal})


def _check(approval: Approval) -> None:
    checked(approval.principal, field="principal")
    if not approval.reason.isprintable() or not approval.reason.strip():
        raise _malformed("its reason has control characters, or says nothing")
    if not 0 < approval.expires_at - approval.issued_at <= MAX_LIFETIME_S:
        raise _malformed(f"it lasts for longer than {MAX_LIFETIME_S // 3600} hours, or for no time at all")


def _malformed(why: str) -> IdentityError:
    return IdentityError(
        APPROVAL_MALFORMED, f"The approval is refused: {why}.", field="approval", hint="Make one with `approve`."
    )


def _refused(why: str) -> IdentityError:
    return IdentityError(
        APPROVAL_REFUSED, f"The approval is refused: {why}.", field="approval", hint="Pin the approver as a client."
    )
