"""A docket: what ran, in which order, and nothing that a stage did not establish."""

from __future__ import annotations

import itertools

import pytest

from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.pipeline.docket import Docket

DENIAL = RingfenceError(Code("test.denied", Kind.DENIED), "No.")


def fail(error: Exception) -> str:
    raise error


def docket() -> Docket:
    return Docket("id", "request", itertools.count(0, 7000).__next__)


def test_an_allowed_decision_has_every_stage_and_its_time() -> None:
    case = docket()
    decided = case.decide(lambda: case.run("one", lambda: "a") + case.run("two", lambda: "b"))
    assert decided.ruling == "ab"
    assert [(view.name, view.verdict, view.code, view.micros) for view in decided.trace] == [
        ("one", "allow", "", 7),
        ("two", "allow", "", 7),
    ]
    assert (decided.record.verdict, decided.record.code, decided.record.duration_us) == ("allow", "", 14)


def test_a_denial_ends_the_decision() -> None:
    case = docket()
    decided = case.decide(lambda: case.run("one", lambda: fail(DENIAL)) + case.run("two", lambda: "b"))
    assert decided.ruling is DENIAL
    assert [(view.name, view.verdict, view.code) for view in decided.trace] == [("one", "deny", "test.denied")]
    record = decided.record
    assert (record.verdict, record.code) == ("deny", "test.denied")
    assert (record.principal, record.session, record.grant_id, record.body_digest) == ("", "", "", "")


def test_a_bug_is_no_decision_and_no_allow() -> None:
    case = docket()
    with pytest.raises(ZeroDivisionError):
        case.decide(lambda: case.run("one", lambda: fail(ZeroDivisionError())))
    after = case.decide(lambda: "never mind")
    assert [(view.verdict, view.code) for view in after.trace] == [("deny", "internal.bug")]
