"""Proofs that stand alone, and everything that is nearly one."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.audit import AuditError, Keys
from ringfence.audit.checkpoint import Signed, decode_checkpoint, decode_checkpoints
from ringfence.audit.folder import read_notes
from ringfence.audit.proofs import MAX_PROOF, Consistency, Inclusion, decode_proof
from ringfence.audit.proving import prove_consistency, prove_inclusion
from tests.audit.conftest import Ed25519Signer, Opener, checkpoints_file, records_file, started, verify_ed25519

RECORDS = 11


@pytest.fixture
def folder(tmp_path: Path, open_log: Opener) -> Path:
    for first in range(0, RECORDS, 5):
        with open_log(tmp_path) as log:
            for number in range(first, min(first + 5, RECORDS)):
                log.append(started(number))
    return tmp_path


@pytest.fixture
def points(folder: Path) -> list[Signed]:
    return list(decode_checkpoints(read_notes(checkpoints_file(folder))))


def test_every_record_is_proven_under_the_newest_checkpoint(folder: Path, signer: Ed25519Signer) -> None:
    keys = Keys(signer.public, verify_ed25519)
    for seq in range(1, RECORDS + 1):
        proof = prove_inclusion(folder, seq)
        again = decode_proof(proof.encode())
        assert again == proof
        assert isinstance(again, Inclusion)
        entry = again.check(keys)
        assert (entry.seq, entry.record) == (seq, started(seq - 1))
    assert proof.encode().startswith(b"c2sp.org/tlog-proof@v1\nextra ")
    for seq in (0, RECORDS + 1):
        with pytest.raises(AuditError, match="covers the records 1 to 11"):
            prove_inclusion(folder, seq)


def test_a_proof_holds_for_nothing_else(folder: Path, signer: Ed25519Signer) -> None:
    keys = Keys(signer.public, verify_ed25519)
    proof, other = prove_inclusion(folder, 3), prove_inclusion(folder, 4)
    for wrong in (
        replace(proof, line=other.line),
        replace(proof, index=3),
        replace(proof, path=other.path),
        replace(proof, path=proof.path[:-1]),
        replace(proof, line=proof.line.replace(b'"2"', b'"3"')),
        replace(proof, index=99),
    ):
        with pytest.raises(AuditError) as caught:
            wrong.check(keys)
        assert caught.value.code.name == "audit.bad_proof"
    with pytest.raises(AuditError) as caught:
        proof.check(Keys(Ed25519Signer().public, verify_ed25519))
    assert caught.value.code.name == "audit.forged_checkpoint"


def test_every_older_checkpoint_is_proven_to_be_a_prefix(
    folder: Path, signer: Ed25519Signer, points: list[Signed]
) -> None:
    keys = Keys(signer.public, verify_ed25519)
    assert len(points) >= 3
    for expect in points:
        proof = decode_proof(prove_consistency(folder, expect).encode())
        assert isinstance(proof, Consistency)
        proof.check(keys, expect)
    first, second, *_ = points
    proof = prove_consistency(folder, first)
    for wrong, expect in (
        (proof, second),
        (replace(proof, path=proof.path[1:]), first),
        (replace(proof, old=second.checkpoint.size), second),
        (proof, replace(first, checkpoint=replace(first.checkpoint, root=second.checkpoint.root))),
    ):
        with pytest.raises(AuditError) as caught:
            wrong.check(keys, expect)
        assert caught.value.code.name == "audit.bad_proof"


def test_a_log_that_does_not_hold_proves_nothing(folder: Path, points: list[Signed]) -> None:
    records = records_file(folder)
    whole = records.read_bytes()
    records.write_bytes(whole.replace(b'"version":"1"', b'"version":"7"'))
    with pytest.raises(AuditError) as caught:
        prove_inclusion(folder, 5)
    assert caught.value.code.name == "audit.bad_proof"
    with pytest.raises(AuditError):
        prove_consistency(folder, points[0])
    records.write_bytes(whole)
    checkpoints_file(folder).unlink()
    with pytest.raises(AuditError) as caught:
        prove_inclusion(folder, 5)
    assert caught.value.code.name == "audit.unsigned"


def test_a_checkpoint_ahead_of_the_log_is_no_beginning_of_it(folder: Path, points: list[Signed]) -> None:
    ahead = replace(points[0], checkpoint=replace(points[0].checkpoint, size=99))
    with pytest.raises(AuditError, match="and the older one 99"):
        prove_consistency(folder, ahead)


@given(st.data())
def test_no_bytes_but_a_proof_are_one(data: st.DataObject) -> None:
    good = data.draw(st.sampled_from(GOOD))
    at = data.draw(st.integers(0, len(good)))
    changed = good[:at] + data.draw(st.binary(max_size=8)) + good[at + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(AuditError):
        assert decode_proof(changed).encode() == changed


def test_what_is_too_large_is_refused() -> None:
    with pytest.raises(AuditError):
        decode_proof(b"x" * (MAX_PROOF + 1))
    with pytest.raises(AuditError, match="not 32"):
        decode_proof(GOOD[1].replace(b"AAAA", b"", 1))


def _good() -> tuple[bytes, bytes]:
    note = (
        "ringfence.audit/agent/rf1test\n5\n" + "A" * 43 + "=\nchain " + "ab" * 32 + "\ntime_ns 1\ncounter 0\n\n"
        "— ringfence.audit/agent/rf1test AAAAAAA=\n"
    ).encode()
    signed = decode_checkpoint(note)
    return Inclusion(b"{}", 2, (b"\0" * 32,) * 3, signed).encode(), Consistency(2, (b"\0" * 32,) * 2, signed).encode()


GOOD = _good()
