"""A docket: what has been established about one decision, stage by stage, and the record it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from ringfence.audit.kinds import Decision, Stage
from ringfence.errors import Kind, RingfenceError
from ringfence.plugin.api import StageView
from ringfence.plugin.errors import DEVICE_CHANGED, POLICY_FAILED, REPLAY_CAPACITY, RISK_TOO_HIGH, SESSION_CAPACITY

_BLAMELESS: Final = frozenset({DEVICE_CHANGED, POLICY_FAILED, REPLAY_CAPACITY, RISK_TOO_HIGH, SESSION_CAPACITY})

Value = TypeVar("Value")
Outcome = TypeVar("Outcome", covariant=True)


@dataclass(frozen=True, slots=True)
class Decided(Generic[Outcome]):
    """A decision: its ruling is the outcome when every stage allowed, else the error of the stage that denied."""

    record: Decision
    trace: tuple[StageView, ...]
    ruling: Outcome | RingfenceError

    @property
    def blames_caller(self) -> bool:
        """Whether a stage denied for what the caller did, and not for what the host or the gateway lacks.

        A risk that is too high is not counted as a refusal of its own: who tries again would never get out.
        """
        if not isinstance(self.ruling, RingfenceError):
            return False
        return self.ruling.code.kind is not Kind.UNAVAILABLE and self.ruling.code not in _BLAMELESS


class Docket:
    """Runs stages in order and collects what they establish; only what is authenticated is ever written to it."""

    def __init__(self, decision_id: str, pipeline: Literal["session", "request"], ticks_ns: Callable[[], int]) -> None:
        self.decision_id = decision_id
        self.principal = ""
        self.session = ""
        self.action = ""
        self.resource = ""
        self.policies: tuple[str, ...] = ()
        self.bundle_digest = ""
        self.attestation_digest = ""
        self.grant_id = ""
        self.body_digest = ""
        self._pipeline = pipeline
        self._ticks_ns = ticks_ns
        self._stages: list[StageView] = []

    def run(self, name: str, stage: Callable[[], Value]) -> Value:
        """Runs one stage; a `RingfenceError` is its denial, recorded and passed on."""
        started = self._ticks_ns()
        code = "internal.bug"
        try:
            value = stage()
            code = ""
        except RingfenceError as error:
            code = error.code.name
            raise
        finally:
            micros = (self._ticks_ns() - started) // 1000
            self._stages.append(StageView(name, "deny" if code else "allow", code, micros))
        return value

    def decide(self, stages: Callable[[], Value]) -> Decided[Value]:
        """Runs all stages of a pipeline; the decision and its audit record."""
        try:
            return self._close(stages())
        except RingfenceError as error:
            return self._close(error)

    def _close(self, ruling: Value | RingfenceError) -> Decided[Value]:
        error = ruling if isinstance(ruling, RingfenceError) else None
        record = Decision(
            decision_id=self.decision_id,
            pipeline=self._pipeline,
            verdict="deny" if error else "allow",
            code=error.code.name if error else "",
            session=self.session,
            principal=self.principal,
            action=self.action,
            resource=self.resource,
            stages=tuple(Stage(view.name, view.verdict, view.code, view.micros) for view in self._stages),
            policies=self.policies,
            bundle_digest=self.bundle_digest,
            attestation_digest=self.attestation_digest,
            grant_id=self.grant_id,
            body_digest=self.body_digest,
            duration_us=sum(view.micros for view in self._stages),
        )
        return Decided(record, tuple(self._stages), ruling)
