"""The offline verifier against everything an attacker can do to the files."""

from __future__ import annotations

import json

import pytest

from ringfence.audit import AuditError, Report, verify_log
from ringfence.audit.checkpoint import sign_checkpoint
from ringfence.audit.records import GENESIS, encode_body, encode_line, line_hash
from tests.audit.conftest import Ed25519Signer, started, verify_ed25519


def chain(numbers: list[int], prev: str = GENESIS, first: int = 1) -> list[bytes]:
    lines: list[bytes] = []
    for seq, number in enumerate(numbers, first):
        lines.append(encode_line(seq, 1_000 + seq, prev, encode_body(started(number))))
        prev = line_hash(lines[-1])
    return lines


def checkpoint(signer: Ed25519Signer, lines: list[bytes], seq: int, origin: str = "agent") -> bytes:
    return sign_checkpoint(signer, origin=origin, seq=seq, line_hash=line_hash(lines[seq - 1]), time_ns=9)


def verify(lines: list[bytes], checkpoints: list[bytes], signer: Ed25519Signer) -> Report:
    return verify_log(lines, checkpoints, signer.public, verify_ed25519)


def fails(report: Report, code: str, bad_record: int | None, text: str) -> None:
    assert report.error is not None
    assert report.error.code.name == code
    assert report.bad_record == bad_record
    assert text in report.error.message
    with pytest.raises(AuditError):
        report.check()


LINES = chain(list(range(10)))


@pytest.fixture
def points(signer: Ed25519Signer) -> list[bytes]:
    return [checkpoint(signer, LINES, 3), checkpoint(signer, LINES, 8)]


def test_an_untouched_log_holds(signer: Ed25519Signer, points: list[bytes]) -> None:
    report = verify(LINES, points, signer)
    report.check()
    assert (report.records, report.checkpoints, report.uncovered, report.torn) == (10, 2, 2, 0)
    assert report.head == line_hash(LINES[-1])
    assert report.size == sum(map(len, LINES))
    assert report.last is not None
    assert report.last.seq == 8


def test_an_empty_log_holds(signer: Ed25519Signer) -> None:
    report = verify([], [], signer)
    report.check()
    assert (report.records, report.head) == (0, GENESIS)


def test_a_half_written_end_is_no_failure(signer: Ed25519Signer, points: list[bytes]) -> None:
    report = verify([*LINES, b'{"v":1,"se'], [*points, points[0][:20]], signer)
    report.check()
    assert (report.records, report.torn, report.checkpoints) == (10, 10, 2)


@pytest.mark.parametrize("seq", range(1, 11))
def test_an_edited_record_is_named(signer: Ed25519Signer, points: list[bytes], seq: int) -> None:
    lines = list(LINES)
    lines[seq - 1] = lines[seq - 1].replace(b'"started"', b'"stopped"')
    report = verify(lines, points, signer)
    if seq == 10:
        # Neither a checkpoint nor a later record speaks for the newest one: it counts as not covered.
        assert report.uncovered == 2
    elif seq in (3, 8):
        fails(report, "audit.corrupt", {3: 1, 8: 4}[seq], f"to {seq} was changed after it was signed")
    else:
        fails(report, "audit.corrupt", seq, f"Record {seq} does not hold")


@pytest.mark.parametrize("seq", range(1, 10))
def test_a_deleted_record_is_named(signer: Ed25519Signer, points: list[bytes], seq: int) -> None:
    fails(verify(LINES[: seq - 1] + LINES[seq:], points, signer), "audit.corrupt", seq, "missing, repeated")


def test_swapped_repeated_and_inserted_records_are_named(signer: Ed25519Signer, points: list[bytes]) -> None:
    swapped = [*LINES[:4], LINES[5], LINES[4], *LINES[6:]]
    fails(verify(swapped, points, signer), "audit.corrupt", 5, "out of order")
    fails(verify([*LINES[:5], LINES[4], *LINES[5:]], points, signer), "audit.corrupt", 6, "repeated")
    forged = chain([99], line_hash(LINES[4]), first=6)
    fails(verify([*LINES[:5], *forged, *LINES[5:]], points, signer), "audit.corrupt", 7, "repeated")
    fails(verify([*LINES[:5], b"garbage\n", *LINES[5:]], points, signer), "audit.corrupt", 6, "not a record")
    fails(verify([*LINES[:5], b"garbage", *LINES[5:]], points, signer), "audit.corrupt", 6, "no end")


def test_a_record_after_a_checkpoint_with_a_foreign_parent_is_named(signer: Ed25519Signer, points: list[bytes]) -> None:
    lines = [*LINES[:8], *chain([8, 9], "ab" * 32, first=9)]
    fails(verify(lines, points, signer), "audit.corrupt", 9, "not chained")


def test_a_log_rewritten_with_a_fresh_chain_does_not_meet_its_checkpoints(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    rewritten = [*LINES[:5], *chain([99, 6, 7, 8, 9], line_hash(LINES[4]), first=6)]
    report = verify(rewritten, points, signer)
    fails(report, "audit.corrupt", 4, "names a hash that is not in the chain")
    assert report.checkpoints == 1


def test_an_end_cut_off_under_a_checkpoint_is_seen_and_after_it_is_not(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    fails(verify(LINES[:7], points, signer), "audit.corrupt", 8, "its end was cut off")
    fails(verify([*LINES[:7], LINES[7][:-1]], points, signer), "audit.corrupt", 8, "its end was cut off")
    assert verify(LINES[:8], points, signer).error is None


def test_a_checkpoint_by_another_key_is_refused(signer: Ed25519Signer, points: list[bytes]) -> None:
    other = Ed25519Signer()
    fails(verify(LINES, points, other), "audit.forged_checkpoint", None, "over record 3")
    forged = [points[0], checkpoint(other, LINES, 8)]
    fails(verify(LINES, forged, signer), "audit.forged_checkpoint", None, "over record 8")


@pytest.mark.parametrize("name", ["origin", "seq", "hash", "time_ns", "key_id", "signature"])
def test_every_field_of_a_checkpoint_is_under_its_signature(
    signer: Ed25519Signer, points: list[bytes], name: str
) -> None:
    fields = json.loads(points[0])
    other = json.loads(checkpoint(signer, LINES, 4, origin="gateway")) | {"time_ns": 10, "key_id": "rf1other"}
    fields[name] = other[name]
    changed = json.dumps(fields, separators=(",", ":")).encode() + b"\n"
    fails(verify(LINES, [changed], signer), "audit.forged_checkpoint", None, "not signed by the key")


def test_checkpoints_out_of_order_of_another_log_or_unreadable_are_refused(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    fails(verify(LINES, points[::-1], signer), "audit.forged_checkpoint", None, "out of order")
    foreign = [points[0], checkpoint(signer, LINES, 8, origin="gateway")]
    fails(verify(LINES, foreign, signer), "audit.forged_checkpoint", None, "of another log")
    fails(verify(LINES, [points[0][:-1], points[1]], signer), "audit.corrupt", None, "checkpoint")
    spaced = points[0].replace(b'"v":1', b'"v": 1')
    fails(verify(LINES, [spaced], signer), "audit.corrupt", None, "canonical")
    newline = points[0].replace(b'"agent"', b'"agent\\n4"')
    fails(verify(LINES, [newline], signer), "audit.corrupt", None, "not a checkpoint")
