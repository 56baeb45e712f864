"""A docket: what has been established about one decision, stage by stage, and the record it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from msgspec import structs

from ringfence.audit.kinds import Asked, Decision, Stage
from ringfence.errors import Kind, RingfenceError
from ringfence.plugin.api import StageView
from ringfence.plugin.errors import (
    DEVICE_CHANGED,
    POLICY_FAILED,
    REPLAY_CAPACITY,
    RISK_TOO_HIGH,
    SESSION_CAPACITY,
    STEP_UP_REQUIRED,
    StepUpError,
)
from ringfence.plugin.threats.errors import LOCKED_OUT, RATE_EXCEEDED
from ringfence.policies import Query

_BLAMELESS: Final = frozenset(
    {
        DEVICE_CHANGED,
        POLICY_FAILED,
        REPLAY_CAPACITY,
        RISK_TOO_HIGH,
        SESSION_CAPACITY,
        STEP_UP_REQUIRED,
        LOCKED_OUT,
        RATE_EXCEEDED,
    }
)
_MAX_REASONS: Final = 16

Value = TypeVar("Value")
Outcome = TypeVar("Outcome", covariant=True)


@dataclass(frozen=True, slots=True)
class Decided(Generic[Outcome]):
    """A decision: its ruling is the outcome when every stage allowed, else the error of the stage that denied."""

    record: Decision
    ruling: Outcome | RingfenceError

    @property
    def trace(self) -> tuple[StageView, ...]:
        """The stages as a caller is shown them."""
        return tuple(StageView(one.name, one.verdict, one.code, one.micros) for one in self.record.stages)

    @property
    def blames_caller(self) -> bool:
        """Whether a stage denied for what the caller did, and not for what the host or the gateway lacks.

        A risk that is too high is not counted as a refusal of its own: who tries again would never get out.
        """
        if not isinstance(self.ruling, RingfenceError):
            return False
        return self.ruling.code.kind is not Kind.UNAVAILABLE and self.ruling.code not in _BLAMELESS


class Docket:
    """Stages in order and what they establish; only what is authenticated is ever written to it, but for `source`.

    A stage lasts from `begin` to the next one's, or to the end.
    """

    __slots__ = (
        "_marks",
        "_pipeline",
        "_ticks_ns",
        "action",
        "asked",
        "attestation_digest",
        "body_digest",
        "bundle_digest",
        "decision_id",
        "grant_id",
        "nonce",
        "nonce_until",
        "policies",
        "principal",
        "reasons",
        "resource",
        "session",
        "source",
    )

    def __init__(
        self,
        decision_id: str,
        pipeline: Literal["session", "request", "factor", "question"],
        ticks_ns: Callable[[], int],
        *,
        action: str,
        resource: str,
        source: str,
        bundle_digest: str,
    ) -> None:
        self.decision_id = decision_id
        self.action = action
        self.resource = resource
        self.source = source
        self.bundle_digest = bundle_digest
        self.principal = ""
        self.session = ""
        self.policies: tuple[str, ...] = ()
        self.reasons: tuple[str, ...] = ()
        self.asked: Query | None = None
        self.attestation_digest = ""
        self.grant_id = ""
        self.body_digest = ""
        self.nonce = ""
        self.nonce_until = 0
        self._pipeline = pipeline
        self._ticks_ns = ticks_ns
        self._marks: list[tuple[str, int]] = []

    def begin(self, stage: str) -> None:
        """The stage called `stage` begins; the one before it has allowed."""
        self._marks.append((stage, self._ticks_ns()))

    def decide(self, stages: Callable[[], Value]) -> Decided[Value]:
        """Runs all stages of a pipeline, which raise a `RingfenceError` to deny; the decision and its audit record."""
        try:
            return self._close(stages(), None)
        except RingfenceError as error:
            return self._close(error, error)

    def _close(self, ruling: Value | RingfenceError, error: RingfenceError | None) -> Decided[Value]:
        ended = self._ticks_ns()
        code = error.code.name if error is not None else ""
        marks = self._marks
        until = marks[0][1] if marks else ended
        ends = [began for _, began in marks[1:]]
        ends.append(ended)
        stages = [
            Stage(name, "allow", "", (end - began) // 1000) for (name, began), end in zip(marks, ends, strict=False)
        ]
        if code and stages:
            stages[-1] = Stage(stages[-1].name, "deny", code, stages[-1].micros)
        missing = error.missing if isinstance(error, StepUpError) else ()
        query = self.asked
        record = Decision(
            decision_id=self.decision_id,
            pipeline=self._pipeline,
            verdict="allow" if error is None else "challenge" if missing else "deny",
            code=code,
            session=self.session,
            principal=self.principal,
            action=self.action,
            resource=self.resource,
            source=self.source,
            stages=tuple(stages),
            policies=self.policies,
            missing=missing,
            reasons=self.reasons[:_MAX_REASONS],
            asked=None if query is None else Asked(query.groups, structs.asdict(query.context)),
            bundle_digest=self.bundle_digest,
            attestation_digest=self.attestation_digest,
            grant_id=self.grant_id,
            body_digest=self.body_digest,
            nonce="" if error is not None else self.nonce,
            nonce_until=0 if error is not None else self.nonce_until,
            duration_us=(ended - until) // 1000,
        )
        return Decided(record, ruling)
