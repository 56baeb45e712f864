"""A recorded decision is explained as a person needs it, from the log alone, and nothing in it drives a terminal."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from ringfence import audit
from ringfence.audit.kinds import Asked, Decision, Stage
from ringfence.cli import main
from ringfence.crypto import COMPOSITE
from ringfence.plugin.explaining import explain
from ringfence.trust import KeyPair

DENIED = Decision(
    decision_id="d1" * 16,
    pipeline="request",
    verdict="challenge",
    code="policy.step_up_required",
    principal="rf1alice\x1b[31m",
    action="Access",
    resource="service",
    source="192.0.2.1",
    session="s" * 32,
    stages=(Stage("parse", "allow", "", 12), Stage("policy", "deny", "policy.step_up_required", 90)),
    policies=("strong-users",),
    missing=("webauthn",),
    reasons=("risk.refusals 24: about 2 requests of this principal were refused lately",),
    asked=Asked(("service-users",), {"risk": 24, "session_age_s": 7, "quantum": False, "factors": (), "tenant": ""}),
    duration_us=102,
)


def test_it_says_who_asked_for_what_and_what_would_help() -> None:
    text = "\n".join(explain(DENIED, 1_800_000_000_000_000_000, shown=ascii))
    for said in (
        "ASKED FOR MORE: 'Access' on 'service'",
        "'rf1alice\\x1b[31m'",
        "192.0.2.1",
        "deny   policy            90 us",
        "The policies did not permit it. The code is 'policy.step_up_required'.",
        "These identity factors would help: 'webauthn'.",
        "about 2 requests of this principal were refused lately",
        "session_age_s: '7 s'",
        "quantum: 'no'",
        "factors: 'none'",
        "strong-users",
    ):
        assert said in text, said
    assert "\x1b" not in text


def test_an_allowed_decision_needs_no_reason() -> None:
    allowed = Decision(decision_id="a", pipeline="session", verdict="allow", grant_id="g1", resource="host")
    lines = explain(allowed, 0)
    assert lines[0] == "ALLOWED: open a session on host"
    assert "Why" not in lines
    assert "  grant          g1" in lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    signer = KeyPair(*COMPOSITE.generate())
    folder = tmp_path / "gateway"
    with audit.AuditLog.open(folder, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify) as opened:
        opened.wait(opened.append(DENIED))
    return folder


def test_the_command_finds_a_decision_by_its_beginning(log: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "explain", "d1d1d1d1", "--log", str(log.parent)]) == 0
    shown = capsys.readouterr().out
    assert "strong-users" in shown
    assert "\x1b" not in shown
    assert main(["gateway", "explain", "d1" * 16, "--log", str(log), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["decision"]["missing"] == ["webauthn"]


@pytest.mark.parametrize("wanted", ["d1", "d2" * 16, ""])
def test_an_id_that_is_not_there_is_said_so(log: Path, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway", "explain", wanted, "--log", str(log)]) == 2
    assert "gateway.no_decision" in capsys.readouterr().err


def test_a_gateway_without_configuration_or_action_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gateway"]) == 2
    assert "--config" in capsys.readouterr().err
