"""Error codes of the gateway's stages."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class GateError(RingfenceError):
    """A stage denied."""


class StepUpError(GateError):
    """A stage asks for more: `missing` names the identity factors that would help (RFC 9470)."""

    def __init__(self, code: Code, message: str, *, field: str = "", hint: str = "", missing: tuple[str, ...]) -> None:
        super().__init__(code, message, field=field, hint=hint)
        self.missing = missing


class LimitedError(GateError):
    """A stage refuses for now; after `retry_after_s` seconds it may not (RFC 6585 section 4)."""

    def __init__(self, code: Code, message: str, *, field: str = "", hint: str = "", retry_after_s: int) -> None:
        super().__init__(code, message, field=field, hint=hint)
        self.retry_after_s = retry_after_s


PRINCIPAL_UNKNOWN = Code("identity.unknown_key", Kind.UNAUTHENTICATED)
HELLO_REPLAYED = Code("identity.replayed", Kind.CONFLICT)
SESSION_UNKNOWN = Code("session.unknown", Kind.UNAUTHENTICATED)
SESSION_EXPIRED = Code("session.expired", Kind.UNAUTHENTICATED)
SESSION_FOREIGN = Code("session.foreign", Kind.UNAUTHENTICATED)
SESSION_POLICY = Code("session.policy_changed", Kind.UNAUTHENTICATED)
CHANNEL_FOREIGN = Code("session.foreign_channel", Kind.UNAUTHENTICATED)
SESSION_CAPACITY = Code("session.capacity", Kind.EXHAUSTED)
REQUEST_REPLAYED = Code("integrity.replayed", Kind.CONFLICT)
REPLAY_CAPACITY = Code("integrity.replay_capacity", Kind.EXHAUSTED)
JOB_FOREIGN = Code("integrity.foreign_job", Kind.DENIED)
DEVICE_UNATTESTED = Code("device.not_attested", Kind.UNAVAILABLE)
DEVICE_CHANGED = Code("device.trust_changed", Kind.UNAUTHENTICATED)
RISK_TOO_HIGH = Code("risk.too_high", Kind.DENIED)
POLICY_DENIED = Code("policy.denied", Kind.DENIED)
STEP_UP_REQUIRED = Code("policy.step_up_required", Kind.UNAUTHENTICATED)
EVIDENCE_MALFORMED = Code("identity.evidence_malformed", Kind.INVALID)
DECISION_UNKNOWN = Code("gateway.no_decision", Kind.NOT_FOUND)
UPSTREAM_UNKNOWN = Code("gateway.unknown_upstream", Kind.NOT_FOUND)
BODY_HIDDEN = Code("integrity.body_hidden", Kind.UNPROCESSABLE)
POLICY_FAILED = Code("policy.evaluation_failed", Kind.DENIED)
NOT_FOUND = Code("gateway.not_found", Kind.NOT_FOUND)
METHOD_UNKNOWN = Code("gateway.method_not_allowed", Kind.NOT_FOUND)
BODY_TOO_LARGE = Code("gateway.body_too_large", Kind.TOO_LARGE)
BODY_CUT_SHORT = Code("gateway.body_cut_short", Kind.INVALID)
HEADERS_MALFORMED = Code("gateway.headers_malformed", Kind.INVALID)
GATEWAY_BUSY = Code("gateway.busy", Kind.EXHAUSTED)
TOO_MANY_REFUSALS = Code("gateway.too_many_refusals", Kind.EXHAUSTED)
LISTEN_FAILED = Code("gateway.listen_failed", Kind.UNAVAILABLE)
