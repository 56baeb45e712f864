"""The line format: what it is byte for byte, and that nothing else is read as a record."""

from __future__ import annotations

import contextlib
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.audit import (
    Attestation,
    AuditError,
    Decision,
    Job,
    JobLimits,
    Operator,
    Record,
    Session,
    Stage,
    Suppression,
)
from ringfence.audit.checkpoint import decode_checkpoint
from ringfence.audit.records import GENESIS, MAX_LINE, decode_line, encode_body, encode_line, line_hash

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
        bundle_digest=DIGEST,
    ),
    Session(event="opened", session="s1", principal="alice", expires_at=1_900_000_000),
    Attestation(event="refused", host_key_id="rf1host", status="none", code="attestation.none"),
    Job(event="admitted", job_id="j1", grant_id="g1", nonce="n1", limits=JobLimits(memory_bytes=2**32, qubits=4)),
    Suppression(code="gateway.too_many_refusals", source="unix", refusals=3),
    Operator(event="started", component="agent"),
)


def line_of(record: Record, seq: int = 1, prev: str = GENESIS) -> bytes:
    return encode_line(seq, 1_000, prev, encode_body(record))


def test_a_line_is_exactly_the_documented_bytes() -> None:
    body = b'"kind":"operator","data":{"event":"started","component":"agent","version":"","digest":""}}\n'
    line = b'{"v":1,"seq":1,"time_ns":1000,"prev":"%s",%s' % (b"0" * 64, body)
    assert line_of(RECORDS[-1]) == line
    assert line_hash(line) == hashlib.sha256(line).hexdigest()


def test_stages_are_arrays_in_order() -> None:
    data = json.loads(line_of(RECORDS[0]))["data"]
    assert data["stages"] == [["session", "allow", "", 12], ["policy", "deny", "policy.forbidden", 90]]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.kind)
def test_every_kind_survives_the_line(record: Record) -> None:
    entry = decode_line(line_of(record, 7, DIGEST))
    assert (entry.seq, entry.time_ns, entry.prev, entry.record) == (7, 1_000, DIGEST, record)


@pytest.mark.parametrize(
    "record",
    [
        Operator(event="started", component="x" * 257),
        Operator(event="started", component="a", digest="not a digest"),
        Operator(event="started", component="a", digest="\n"),
        Operator(event="started", component="a", digest=DIGEST + "\n"),
        Operator(event="exploded", component="a"),  # type: ignore[arg-type]
        Operator(event="started", component=7),  # type: ignore[arg-type]
        Operator(event="started", component="\ud800"),
        Suppression(code="c", source="unix", refusals=0),
        Session(event="opened", session="s", principal="p", expires_at=2**64),
        Session(event="opened", session="s", principal="p", expires_at=-1),
        Decision(decision_id="d", pipeline="request", verdict="deny", policies=["p"]),  # type: ignore[arg-type]
        Decision(decision_id="d", pipeline="request", verdict="deny", policies=("\x00" * 256,) * 33),
        Decision(
            decision_id="d", pipeline="request", verdict="deny", resource="\x00" * 4096, policies=("\x00" * 256,) * 32
        ),
    ],
)
def test_a_record_that_could_not_be_read_back_is_refused(record: Record) -> None:
    with pytest.raises(AuditError) as caught:
        encode_body(record)
    assert caught.value.code.name == "audit.bad_record"
    assert caught.value.field == record.kind


GOOD = line_of(RECORDS[-1])


@pytest.mark.parametrize(
    "line",
    [
        GOOD[:-1],
        b" " + GOOD,
        GOOD.replace(b'"v":1', b'"v":2'),
        GOOD.replace(b'"v":1', b'"v":1.0'),
        GOOD.replace(b'"seq":1', b'"seq":0'),
        GOOD.replace(b'"seq":1', b'"seq":01'),
        GOOD.replace(b'"kind":"operator"', b'"kind":"secret"'),
        GOOD.replace(b'"kind":"operator"', b'"kind":"session"'),
        GOOD.replace(b'"version":""', b'"version":"","version":""'),
        GOOD.replace(b'"version":"",', b""),
        GOOD.replace(b'"version":""', b'"token":"hunter2","version":""'),
        GOOD.replace(b"agent", b"\\u0061gent"),
        GOOD.replace(b"agent", b"\xff"),
        GOOD.replace(b'"v":1', b'"more":0,"v":1'),
        GOOD.replace(b"0" * 64, b"A" * 64),
        GOOD.replace(b'{"event"', b"[" * 50_000),
        b"x" * (MAX_LINE + 1),
        b"\n",
        b"null\n",
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
        assert encode_line(entry.seq, entry.time_ns, entry.prev, encode_body(entry.record)) == data
    with contextlib.suppress(AuditError):
        decode_checkpoint(data)


@given(
    st.builds(
        Decision,
        decision_id=st.text(max_size=300),
        pipeline=st.sampled_from(["session", "request"]),
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
        assert line.count(b"\n") == 1
        try:
            assert decode_line(line).record == record
        except AuditError as error:
            raise AssertionError from error
