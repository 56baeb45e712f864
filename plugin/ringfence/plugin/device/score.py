"""A host's trust score: its attestation result, less what its age, its reputation and its integrity take off."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.attestation.result import AttestationResult
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk.port import Reason

_MIDDLE = 50


@dataclass(frozen=True, slots=True)
class Posture:
    """What the gateway itself saw of a host lately.

    `status_changes` counts the attestation statuses that followed one another within the last day, `failed_proofs` the
    proofs of its key, receipts or grants that did not hold.
    """

    status_changes: int = 0
    failed_proofs: int = 0


@dataclass(frozen=True, slots=True)
class DeviceScore:
    """0 (not trusted) to 100; `reasons` say what was taken off, their points of 100."""

    score: int
    reasons: tuple[Reason, ...] = ()


def score(
    result: AttestationResult, reputation: int, posture: Posture, *, now: int, settings: DeviceSettings
) -> DeviceScore:
    """The trust in the host of `result`, whose `reputation` is 0 to 100 (50: nobody knows it), at `now`.

    Nothing ever lifts the score above the verifier's own: a good past does not make up for a bad quote. A result that
    has ended, or is from the future, is worth nothing.
    """
    if not result.issued_at <= now < result.expires_at:
        return DeviceScore(0, (Reason("validity", 100, "the attestation result is not valid at this time"),))
    reasons = []
    if result.score < 100:
        text = f"the verifier calls the host {result.status.value}"
        reasons.append(Reason("attestation", 100 - result.score, text))
    used = (now - result.issued_at) / (result.expires_at - result.issued_at)
    if points := int(settings.age_points * max(0.0, 2 * used - 1)):
        reasons.append(Reason("age", points, f"the attestation result is {now - result.issued_at} s old"))
    if reputation < _MIDDLE and (points := settings.reputation_points * (_MIDDLE - reputation) // _MIDDLE):
        reasons.append(Reason("reputation", points, f"its reputation is {reputation}, and {_MIDDLE} is the middle"))
    if posture.status_changes > 0 and (points := min(100, settings.change_points * posture.status_changes)):
        text = f"its attestation status changed {posture.status_changes} times within a day"
        reasons.append(Reason("status-changes", points, text))
    if posture.failed_proofs > 0 and (points := min(100, settings.proof_points * posture.failed_proofs)):
        reasons.append(Reason("failed-proofs", points, f"{posture.failed_proofs} of its proofs did not hold"))
    taken = sum(reason.points for reason in reasons)
    return DeviceScore(max(0, 100 - taken), tuple(reasons))
