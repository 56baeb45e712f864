"""A docket: what has been established about one decision, stage by stage, and the record it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ringfence.audit.records import Decision, Stage
from ringfence.errors import Kind, RingfenceError
from ringfence.plugin.api import StageView

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
        """Whether a stage denied for what the caller did, and not for what the host or the gateway lacks."""
        return isinstance(self.ruling, RingfenceError) and self.ruling.code.kind is not Kind.UNAVAILABLE


class Docket:
    """Runs stages in order and collects what they establish; only what is authenticated is ever written to it."""

    def __init__(self, decision_id: str, pipeline: Literal["session", "request"], clock_ns: Callable[[], int]) -> None:
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
        self._clock_ns = clock_ns
        self._stages: list[StageView] = []

    def run(self, name: str, stage: Callable[[], Value]) -> Value:
        """Runs one stage; a `RingfenceError` is its denial, recorded and passed on."""
        started = self._clock_ns()
        code = "internal.bug"
        try:
            value = stage()
            code = ""
        except RingfenceError as error:
            code = error.code.name
            raise
        finally:
            micros = (self._clock_ns() - started) // 1000
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
