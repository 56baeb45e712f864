"""The line format: what it is byte for byte, and that nothing else is read as a record."""

from __future__ import annotations

import contextlib
import hashlib
import json
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.audit import (
    Alert,
    Asked,
    Attestation,
    AuditError,
    Decision,
    Job,
    JobLimits,
    Operator,
    Pool,
    Record,
    Session,
    Stage,
    Suppression,
    Threat,
)
from ringfence.audit.kinds import KINDS, Count, DecisionV1, Digest, Fact, Identifier, Position, Resource, Shadow
from ringfence.audit.merkle import leaf_hash
from ringfence.audit.records import (
    GENESIS,
    MAX_LINE,
    check_data,
    check_many,
    decode_line,
    encode_data,
    encode_line,
    line_start,
)

DIGEST = hashlib.sha256(b"x").hexdigest()

RECORDS: tuple[Record, ...] = (
    Decision(
        decision_id="d1",
        pipeline="request",
        verdict="deny",
        code="policy.forbidden",
        principal='Zoë "\n\x1b[31m',
        resource="/v1/jobs",
        stages=(Stage("session", "allow", "", 12), Stage("policy", "deny", "policy.forbidden", 90)),
        policies=("forbid-night",),
        asked=Asked(("clients",), {"risk": -3, "quantum": False, "source": "unix", "factors": ("oidc", "svid")}),
        bundle_digest=DIGEST,
    ),
    Session(event="opened", session="s1", principal="alice", expires_at=1_900_000_000),
    Attestation(event="refused", host_key_id="rf1host", status="none", code="attestation.none"),
    Job(event="admitted", job_id="j1", grant_id="g1", nonce="n1", limits=JobLimits(memory_bytes=2**32, qubits=4)),
    Alert(event="killed", job_id="j1", watched="checkpoints", measured=501, allowed=500),
    Pool(event="written", pool="p1", session="s1", principal="alice", job_id="j1", epoch=3, offset=4096, length=64),
    Suppression(code="httpsig.missing", source="198.51.100.7", refusals=3),
    Threat(event="replay-storm", against="source", subject="198.51.100.7", count=40, reaction="lock-out", until=9),
    Shadow(principal="p", action="Access", resource="service", enforced="allow", verdict="deny", bundle_digest=DIGEST),
    DecisionV1(decision_id="d0", pipeline="session", verdict="allow"),
    Operator(event="started", component="agent"),
)


def line_of(record: Record, seq: int = 1, prev: bytes = GENESIS) -> bytes:
    data = encode_data(record)
    return encode_line(seq, seq - 1, prev, 1_000, check_data(record, data), data)


def test_a_line_is_exactly_the_documented_bytes() -> None:
    data = b'{"event":"started","component":"agent","version":"","digest":"","dropped_bytes":0}'
    line = b'{"v":2,"seq":1,"base":0,"prev":"%s","time_ns":1000,"kind":"operator/1","data":%s}' % (b"0" * 64, data)
    assert line_of(RECORDS[-1]) == line
    assert line.startswith(line_start(1, 0, GENESIS))
    assert leaf_hash(line) == hashlib.sha256(b"\x00" + line).digest()


def test_each_kind_is_read_back_as_what_it_is() -> None:
    assert {record.kind for record in RECORDS} == set(KINDS)


def test_no_field_has_room_for_a_payload() -> None:
    """Every field is of a type that is bounded, so a new one of another type is noticed here."""
    bounded = {Identifier, Resource, Digest, Count, Position, JobLimits | None, Asked | None, dict[Identifier, Fact]}
    for record in (*RECORDS, JobLimits(), Asked((), {})):
        for name, hint in typing.get_type_hints(type(record), include_extras=True).items():
            origin = typing.get_origin(hint)
            if origin in (typing.ClassVar, typing.Literal):
                continue
            if origin is typing.Annotated and typing.get_origin(hint.__origin__) is tuple:
                hint = typing.get_args(hint.__origin__)[0]
            elif origin is typing.Annotated and typing.get_origin(hint.__origin__) is dict:
                hint = hint.__origin__
            assert hint in bounded or hint is Stage, (type(record), name)


def test_stages_are_arrays_in_order() -> None:
    data = json.loads(line_of(RECORDS[0]))["data"]
    assert data["stages"] == [["session", "allow", "", 12], ["policy", "deny", "policy.forbidden", 90]]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_kind_survives_the_line(record: Record) -> None:
    entry = decode_line(line_of(record, 7, DIGEST.encode()))
    assert (entry.seq, entry.base, entry.time_ns, entry.prev) == (7, 6, 1_000, DIGEST)
    assert entry.record == record


@pytest.mark.parametrize(
    "record",
    [
        Operator(event="started", component="x" * 257),
        Operator(event="started", component="a", digest="not a digest"),
        Operator(event="started", component="a", digest="\n"),
        Operator(event="started", component="a", digest=DIGEST + "\n"),
        Operator(event="exploded", component="a"),  # type: ignore[arg-type]
        Operator(event="started", component=7),  # type: ignore[arg-type]
        Operator(event="started", component=b"a payload"),  # type: ignore[arg-type]
        Operator(event="started", component="a", digest=DIGEST[:62] + "A" * 2),
        Operator(event="started", component="a", digest=DIGEST[:62] + " 0"),
        Operator(event="started", component="a", digest=DIGEST[:32]),
        Operator(event="started", component="a", digest="\u0660" * 64),
        Operator(event="started", component="a", digest=DIGEST[:62] + "\x7f\x00"),
        Decision(decision_id="d", pipeline="request", verdict="deny", bundle_digest=DIGEST, body_digest="g" * 64),
        Pool(event="read", pool="p", length=1.5),  # type: ignore[arg-type]
        Operator(event="started", component="\ud800"),
        Suppression(code="c", source="unix", refusals=0),
        Session(event="opened", session="s", principal="p", expires_at=2**64),
        Session(event="opened", session="s", principal="p", expires_at=-1),
        Decision(decision_id="d", pipeline="request", verdict="deny", policies=["p"]),  # type: ignore[arg-type]
        Decision(decision_id="d", pipeline="request", verdict="deny", asked=Asked((), {"risk": 2**63})),
        Decision(decision_id="d", pipeline="request", verdict="deny", asked=Asked((), {"x" * 257: 1})),
        Decision(decision_id="d", pipeline="request", verdict="deny", asked=Asked((), {str(n): n for n in range(65)})),
        Decision(
            decision_id="d",
            pipeline="request",
            verdict="deny",
            asked=Asked((), {"risk": 1.5}),  # type: ignore[dict-item]
        ),
        Decision(decision_id="d", pipeline="request", verdict="deny", policies=("\x00" * 256,) * 33),
        Decision(
            decision_id="d", pipeline="request", verdict="deny", resource="\x00" * 4096, policies=("\x00" * 256,) * 32
        ),
    ],
)
def test_a_record_that_could_not_be_read_back_is_refused(record: Record) -> None:
    with pytest.raises(AuditError) as caught:
        check_data(record, encode_data(record))
    assert caught.value.code.name == "audit.bad_record"
    assert caught.value.field == record.kind
    with contextlib.suppress(AuditError):
        refused_alone(record, encode_data(record))


def refused_alone(record: Record, data: bytes) -> None:
    """Among others it is the only one."""
    good = [encode_data(one) for one in RECORDS[:2]]
    first, refused, last = check_many([RECORDS[0], record, RECORDS[1]], [good[0], data, good[1]])
    assert (first, last) == (b"decision/2", b"session/1")
    assert isinstance(refused, AuditError)


GOOD = line_of(RECORDS[-1])


@pytest.mark.parametrize(
    "line",
    [
        GOOD + b"\n",
        b" " + GOOD,
        GOOD.replace(b'"v":2', b'"v":1'),
        GOOD.replace(b'"v":2', b'"v":2.0'),
        GOOD.replace(b'"seq":1', b'"seq":0'),
        GOOD.replace(b'"seq":1', b'"seq":01'),
        GOOD.replace(b'"base":0', b'"base":-1'),
        GOOD.replace(b'"kind":"operator/1"', b'"kind":"secret/1"'),
        GOOD.replace(b'"kind":"operator/1"', b'"kind":"operator/2"'),
        GOOD.replace(b'"kind":"operator/1"', b'"kind":"session/1"'),
        GOOD.replace(b'"version":""', b'"version":"","version":""'),
        GOOD.replace(b'"version":"",', b""),
        GOOD.replace(b'"version":""', b'"token":"hunter2","version":""'),
        GOOD.replace(b'"digest":""', b'"digest":"%s"' % (b"A" * 64)),
        GOOD.replace(b'"digest":""', b'"digest":"abcd"'),
        GOOD.replace(b'"digest":""', b'"digest":"%s"' % ("\u0660" * 64).encode()),
        GOOD.replace(b"agent", b"\\u0061gent"),
        GOOD.replace(b"agent", b"\xff"),
        GOOD.replace(b'"v":2', b'"more":0,"v":2'),
        GOOD.replace(b"0" * 64, b"A" * 64),
        GOOD.replace(b'{"event"', b"[" * 50_000),
        b"x" * (MAX_LINE + 1),
        b"",
        b"null",
    ],
)
def test_anything_but_the_canonical_line_is_refused(line: bytes) -> None:
    with pytest.raises(AuditError) as caught:
        decode_line(line)
    assert caught.value.code.name == "audit.corrupt"


def mutated() -> st.SearchStrategy[bytes]:
    """A good line with a stretch of it replaced."""
    lines = st.sampled_from([line_of(record) for record in RECORDS])
    spans = st.tuples(st.integers(0, 600), st.integers(0, 20), st.binary(max_size=20))
    return st.builds(lambda line, span: line[: span[0]] + span[2] + line[span[0] + span[1] :], lines, spans)


@given(st.one_of(st.binary(max_size=300), mutated()))
def test_a_decoder_raises_nothing_but_its_error(data: bytes) -> None:
    try:
        entry = decode_line(data)
    except AuditError:
        pass
    else:
        encoded = encode_data(entry.record)
        place = (entry.seq, entry.base, entry.prev.encode(), entry.time_ns)
        assert encode_line(*place, check_data(entry.record, encoded), encoded) == data


@given(
    st.builds(
        Decision,
        decision_id=st.text(max_size=300),
        pipeline=st.sampled_from(["session", "request", "factor"]),
        asked=st.none()
        | st.builds(
            Asked,
            st.lists(st.text(), max_size=3).map(tuple),
            st.dictionaries(
                st.text(), st.booleans() | st.integers() | st.text() | st.lists(st.text()).map(tuple), max_size=4
            ),
        ),
        verdict=st.sampled_from(["allow", "deny"]),
        resource=st.text(st.characters()),
        stages=st.lists(st.builds(Stage, st.text(), st.text(), st.text(), st.integers())).map(tuple),
        body_digest=st.sampled_from(["", DIGEST, "x"]),
        duration_us=st.integers(),
    )
)
def test_whatever_is_accepted_reads_back_the_same(record: Decision) -> None:
    with contextlib.suppress(AuditError):
        line = line_of(record)
        assert b"\n" not in line
        try:
            assert decode_line(line).record == record
        except AuditError as error:
            raise AssertionError from error
