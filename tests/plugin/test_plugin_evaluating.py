"""Questions to the policies: what may be stated, what counts where nothing is, and what only the gateway says."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import audit
from ringfence.attestation import AttestationResult, Status
from ringfence.attestation.result import digest as result_digest
from ringfence.audit.kinds import Decision as Recorded
from ringfence.audit.records import Entry, check_data, encode_data
from ringfence.crypto import COMPOSITE
from ringfence.errors import RingfenceError
from ringfence.plugin.errors import DEVICE_UNATTESTED, GateError
from ringfence.plugin.evaluating import KnownEntities, PolicyEvaluator
from ringfence.plugin.host import Attested, Host, Unreachable, plain_trust
from ringfence.plugin.hosts.authzen.port import Act, Decision, Entity, Question
from ringfence.plugin.pipeline.demands import Upstream
from ringfence.plugin.pipeline.means import Known, Means
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.history import History
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.stated import MOST
from ringfence.plugin.strangers import StrangerLimit
from ringfence.plugin.threats.calm import Calm
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
ALICE, BOB, AGENT, GATEWAY = (KeyPair(*COMPOSITE.generate()) for _ in range(4))
RESULT = AttestationResult(
    "verifier", AGENT.key_id, AGENT.public, Status.AFFIRMING, 90, (), NOW - 9, NOW + 300, "e" * 64
)
HOST = Attested(
    AGENT.key_id, RESULT, "token", result_digest("token"), "channel", plain_trust(RESULT, NOW), bytes(32), bytes(32)
)
TRUST = TrustList(
    (
        Pin("alice", Role.CLIENT, ALICE.public, NOW - 9, ("clients", "service-users", "job-submitters")),
        Pin("bob", Role.CLIENT, BOB.public, NOW - 9, ("clients",)),
    )
)
UPSTREAMS = {"service": Upstream("service", tenant="acme"), "checks": Upstream("checks", verifies_body=True)}
REQUEST = {
    "source": "192.0.2.1",
    "factors": ["session-mac"],
    "risk": 5,
    "method": "GET",
    "authority": "h",
    "path": "/a",
}
READ = {**REQUEST, "body_bytes": 0}
JOB = {
    "source": "unix",
    "factors": ["session-mac"],
    "risk": 5,
    "level": "high",
    "result": "bytes",
    "module_digest": "d" * 64,
    "body_verified": True,
    "body_bytes": 10,
    "memory_bytes": 10,
    "gpu_memory_bytes": 0,
    "deadline_ms": 10,
    "output_bytes": 10,
    "qubits": 0,
    "compute_units": 64,
}
DECIDER = CedarDecider(open_bundled("default"))
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    101,
    2**63,
    1.5,
    "",
    "x",
    "x" * 5000,
    [],
    ["b", "a", "a"],
    [1],
    ["x"] * 99,
    {"a": 1},
)


def keys(written: str) -> tuple[str, ...]:
    found = tuple(pin.key_id for pin in TRUST.pins if written in (pin.name, pin.key_id))
    if not found:
        raise GateError(DEVICE_UNATTESTED, "nobody")
    return found


def access(context: Any = READ, *, subject: str = "alice", resource: str = "service") -> Question:
    return Question(Entity("client", subject), Act("Access"), Entity("upstream", resource), context)


def job(context: Any = JOB) -> Question:
    return Question(Entity("client", "alice"), Act("SubmitJob"), Entity("host", AGENT.key_id), context)


def means() -> Means:
    return Means(
        trust=lambda: TRUST,
        sessions=MemorySessions(10),
        decider=DECIDER,
        replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=10, quota=10),
        risk=Assessor(RiskSettings()),
        threats=Calm(),
        ceiling=90,
        ticks_ns=lambda: 0,
        random=secrets.token_bytes,
        directory=lambda _principal, now: Known(("staff",), "acme", ("team=a",), now - 3),
        approvals=lambda _principal, _now: 2,
    )


class Asked:
    """An evaluator over a real log, with what became durable."""

    def __init__(self, log: audit.AuditLog) -> None:
        self.host: Host = HOST
        self.records: list[Recorded] = []
        settlement = Settlement(log, StrangerLimit(5), ticks_ns=lambda: 0, tell=self._tell)
        self.evaluator = PolicyEvaluator(
            means(), settlement, UPSTREAMS, keys=keys, host=self._latest, clock=lambda: NOW
        )

    async def __call__(self, question: Question) -> Decision:
        decision = await self.evaluator.evaluate(question)
        record = self.records[-1]
        assert decision.allowed is (record.verdict == "allow")
        assert decision.context["decision_id"] == record.decision_id
        assert record.pipeline == "question"
        return decision

    @property
    def context(self) -> dict[str, Any]:
        """What the policies were asked last."""
        asked = self.records[-1].asked
        assert asked is not None
        return dict(asked.context)

    async def _latest(self) -> Host:
        return self.host

    def _tell(self, record: audit.Record) -> None:
        assert isinstance(record, Recorded)
        self.records.append(record)


@pytest.fixture
def ask(tmp_path: Path) -> Iterator[Asked]:
    with audit.AuditLog.open(tmp_path, GATEWAY, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify) as log:
        yield Asked(log)


async def test_what_is_stated_in_full_is_decided_and_recorded(ask: Asked) -> None:
    assert (await ask(access())).allowed
    record = ask.records[-1]
    assert (record.principal, record.action, record.resource) == (ALICE.key_id, "Access", "service")
    assert (record.session, record.nonce) == ("", "")
    assert (await ask(job())).allowed
    opens = Question(Entity("client", ALICE.key_id), Act("OpenSession"), Entity("host", AGENT.key_id))
    assert (await ask(replace(opens, context={"source": "unix", "factors": ["signature"], "risk": 0}))).allowed


async def test_what_the_gateway_knows_comes_from_it(ask: Asked) -> None:
    await ask(access())
    known = ask.context
    assert (known["tenant"], known["attributes"], known["directory_age_s"], known["approvals"]) == (
        "acme",
        ("team=a",),
        3,
        2,
    )
    assert (known["device_status"], known["attestation_age_s"], known["now_s"]) == ("affirming", 9, NOW)
    assert known["resource_tenant"] == "acme"
    asked = ask.records[-1].asked
    assert asked is not None
    assert asked.groups == ("clients", "job-submitters", "service-users", "staff")


GATEWAYS_OWN = sorted(
    {"tenant", "attributes", "directory_age_s", "approvals", "requests_minute", "jobs_running", "now_s", "hour_utc"}
    | {"device_status", "device_trust", "device_reputation", "attestation_age_s", "weekday_utc", "resource_tenant"}
    | {"groups", "principal", "quantum", "module_signers"}
)


@pytest.mark.parametrize("name", GATEWAYS_OWN)
async def test_nobody_states_what_only_the_gateway_knows(ask: Asked, name: str) -> None:
    for question in (access({**READ, name: 0}), job({**JOB, name: 0})):
        decision = await ask(question)
        assert (decision.allowed, decision.context["code"]) == (False, "policy.bad_query")


async def test_what_is_left_out_counts_as_the_worst(ask: Asked) -> None:
    decision = await ask(access({name: value for name, value in READ.items() if name != "risk"}))
    assert decision.context["policies"] == ["forbid-high-risk"]
    await ask(access({"source": "s", "factors": ["svid"], "method": "GET", "authority": "h", "path": "/"}))
    assert {name: ask.context[name] for name in ("risk", "session_age_s", "channel_bound", "body_verified")} == {
        "risk": 100,
        "session_age_s": NOW,
        "channel_bound": False,
        "body_verified": False,
    }
    assert ask.context["body_bytes"] == -1
    texts = {"source": "s", "factors": ["svid"], "level": "high", "result": "bytes", "module_digest": "d" * 64}
    await ask(job(texts))
    numbers = {name for name, value in ask.context.items() if value == MOST}
    assert numbers == {
        "body_bytes",
        "memory_bytes",
        "gpu_memory_bytes",
        "deadline_ms",
        "output_bytes",
        "qubits",
        "compute_units",
    }
    assert (ask.context["quantum"], ask.context["body_verified"]) == (True, False)


@pytest.mark.parametrize(
    ("question", "name"),
    [(access(), name) for name in ("source", "method", "authority", "path")]
    + [(job(), name) for name in ("source", "level", "result", "module_digest")],
)
async def test_a_text_by_which_a_forbid_knows_it_must_be_there(ask: Asked, question: Question, name: str) -> None:
    stated = {known: value for known, value in question.context.items() if known != name}
    decision = await ask(replace(question, context=stated))
    assert (decision.allowed, decision.context["code"]) == (False, "policy.bad_query")


async def test_without_a_key_more_proof_is_asked_for(ask: Asked) -> None:
    decision = await ask(access({**READ, "factors": ["oidc"]}))
    assert (decision.allowed, decision.context["missing"]) == (False, ["webauthn"])
    assert ask.records[-1].verdict == "challenge"
    assert (await ask(access({**READ, "factors": ["cookie", "oidc"], "channel_bound": True}))).allowed


async def test_a_body_is_verified_where_the_upstream_does_that(ask: Asked) -> None:
    assert not (await ask(access(REQUEST))).allowed
    assert (await ask(access(REQUEST, resource="checks"))).allowed


@pytest.mark.parametrize(
    "question",
    [
        access(subject="mallory"),
        access(subject=AGENT.key_id),
        access(resource="elsewhere"),
        replace(access(), subject=Entity("group", "alice")),
        replace(access(), action=Act("Delete")),
        replace(access(), action=Act("SubmitJob")),
        replace(job(), action=Act("Access")),
        replace(job(), resource=Entity("host", "rf1other")),
    ],
)
async def test_what_the_gateway_does_not_know_is_denied(ask: Asked, question: Question) -> None:
    decision = await ask(question)
    assert (decision.allowed, decision.context["code"]) == (False, "policy.bad_query")
    assert ask.records[-1].principal == ""


async def test_a_host_that_is_not_attested_is_denied(ask: Asked) -> None:
    ask.host = Unreachable(AGENT.key_id, GateError(DEVICE_UNATTESTED, "It does not answer."))
    assert (await ask(access())).context["code"] == "device.not_attested"


async def test_what_cannot_be_recorded_is_not_decided(tmp_path: Path) -> None:
    with audit.AuditLog.open(tmp_path, GATEWAY, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify) as log:
        ask = Asked(log)
    with pytest.raises(RingfenceError, match=r"audit\."):
        await ask.evaluator.evaluate(access())
    assert ask.records == []


async def test_a_question_teaches_nothing_about_its_principal(ask: Asked) -> None:
    await ask(access())
    entry = Entry(1, 0, "", NOW * 10**9, ask.records[-1])
    assert History().observe(entry) is None


def test_whatever_is_stated_is_decided(ask: Asked) -> None:
    @given(
        context=st.dictionaries(st.sampled_from(sorted({*READ, *JOB, "other"})), st.sampled_from(ODD)),
        question=st.sampled_from([access(), job()]),
    )
    def decide(context: dict[str, Any], question: Question) -> None:
        stated = {**question.context, **context}
        record = ask.evaluator.decide(replace(question, context=stated), HOST, now=NOW).record
        check_data(record, encode_data(record))

    decide()


def test_a_search_finds_what_is_known() -> None:
    known = KnownEntities(means(), UPSTREAMS, agent=AGENT.key_id, clock=lambda: NOW)
    assert known.subjects("client") == ["alice", "bob"]
    assert (known.resources("upstream"), known.resources("host")) == (("checks", "service"), (AGENT.key_id,))
    assert (known.subjects("host"), known.resources("client")) == ((), ())
    assert known.actions() == ["Access", "OpenSession", "SubmitJob"]
