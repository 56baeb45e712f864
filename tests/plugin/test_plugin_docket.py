"""A docket: what ran, in which order, and nothing that a stage did not establish."""

from __future__ import annotations

import itertools

import pytest

from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.errors import STEP_UP_REQUIRED, StepUpError
from ringfence.plugin.pipeline.docket import Docket

DENIAL = RingfenceError(Code("test.denied", Kind.DENIED), "No.")


def docket() -> Docket:
    ticks = itertools.count(0, 7000).__next__
    return Docket("id", "request", ticks, action="Act", resource="host", source="unix", bundle_digest="")


def run(case: Docket, *stages: str, error: Exception | None = None) -> str:
    for stage in stages:
        case.begin(stage)
    if error is not None:
        raise error
    return "granted"


def test_an_allowed_decision_has_every_stage_and_its_time() -> None:
    case = docket()
    decided = case.decide(lambda: run(case, "one", "two"))
    assert decided.ruling == "granted"
    assert [(view.name, view.verdict, view.code, view.micros) for view in decided.trace] == [
        ("one", "allow", "", 7),
        ("two", "allow", "", 7),
    ]
    assert (decided.record.verdict, decided.record.code, decided.record.duration_us) == ("allow", "", 14)


def test_a_denial_is_the_last_stage_that_began() -> None:
    case = docket()
    decided = case.decide(lambda: run(case, "one", "two", error=DENIAL))
    assert decided.ruling is DENIAL
    assert [(view.name, view.verdict, view.code) for view in decided.trace] == [
        ("one", "allow", ""),
        ("two", "deny", "test.denied"),
    ]
    record = decided.record
    assert (record.verdict, record.code) == ("deny", "test.denied")
    assert (record.principal, record.session, record.grant_id, record.body_digest) == ("", "", "", "")


def test_a_denial_spends_no_nonce_and_a_challenge_names_what_is_missing() -> None:
    case = docket()
    case.nonce, case.nonce_until = "nonce", 9
    challenge = StepUpError(STEP_UP_REQUIRED, "More.", missing=("webauthn",))
    record = case.decide(lambda: run(case, "policy", error=challenge)).record
    assert (record.verdict, record.missing, record.nonce, record.nonce_until) == ("challenge", ("webauthn",), "", 0)


def test_a_bug_is_no_decision_and_no_allow() -> None:
    case = docket()
    with pytest.raises(ZeroDivisionError):
        case.decide(lambda: run(case, "one", error=ZeroDivisionError()))
