"""Refusals as callers see them: the problem, the challenge of a step-up, and when to come back."""

from __future__ import annotations

import msgspec
import pytest

from ringfence.errors import Code, Kind
from ringfence.plugin.answers import CODE_FIELD, DECISION_FIELD, challenge, refusal
from ringfence.plugin.api import PROBLEM, Problem, StageView
from ringfence.plugin.errors import STEP_UP_REQUIRED, GateError, LimitedError, StepUpError
from ringfence.plugin.hosts.port import Answer
from ringfence.plugin.threats.errors import LOCKED_OUT


def problem(answer: Answer) -> Problem:
    assert not answer.allowed
    assert dict(answer.headers)["content-type"] == PROBLEM
    read = msgspec.json.decode(answer.body, type=Problem)
    assert read.status == answer.status
    return read


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_of_error_refuses_with_its_status(kind: Kind) -> None:
    trace = (StageView("policy", "deny", "test.code", 7),)
    error = GateError(Code("test.code", kind), "No.", field="f", hint="Do not.")
    answer = refusal(error, decision_id="d" * 32, trace=trace)
    assert answer.status == kind.http
    said = problem(answer)
    assert (said.code, said.message, said.field, said.hint) == ("test.code", "No.", "f", "Do not.")
    assert (said.decision_id, said.trace, said.missing) == ("d" * 32, trace, ())
    fields = dict(answer.headers)
    assert (fields[CODE_FIELD], fields[DECISION_FIELD]) == ("test.code", "d" * 32)
    assert ("www-authenticate" in fields) == (kind.http == 401)
    assert ("retry-after" in fields) == (kind.http == 429)


def test_a_step_up_names_the_missing_factors_as_rfc_9470_does() -> None:
    error = StepUpError(STEP_UP_REQUIRED, "More.", missing=("oidc", "webauthn"))
    answer = refusal(error)
    assert answer.status == 401
    assert problem(answer).missing == ("oidc", "webauthn")
    said = dict(answer.headers)["www-authenticate"]
    assert 'error="insufficient_user_authentication"' in said
    assert 'acr_values="urn:ringfence:factor:oidc urn:ringfence:factor:webauthn"' in said
    assert challenge(()) == 'Signature realm="ringfence"'


def test_a_lock_out_says_how_long_it_lasts() -> None:
    answer = refusal(LimitedError(LOCKED_OUT, "Wait.", retry_after_s=37))
    assert (answer.status, dict(answer.headers)["retry-after"]) == (429, "37")
