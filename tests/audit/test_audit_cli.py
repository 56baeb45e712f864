"""`ringfence audit path | verify | prove | verify-proof` over logs signed as Ringfence signs them."""

from __future__ import annotations

import base64
import itertools
import json
import time
from pathlib import Path

import pytest

from ringfence.audit import AuditLog, Decision, Stage
from ringfence.audit.folder import read_notes
from ringfence.cli import main
from ringfence.crypto import COMPOSITE, signature
from ringfence.crypto.forms import Form, KeyMaterial, export_private, export_public
from tests.audit.conftest import (
    CompositeSigner,
    FaultyFiles,
    SlhDsaSigner,
    checkpoints_file,
    records_file,
    started,
)


@pytest.fixture
def state(tmp_path: Path, composite: CompositeSigner) -> Path:
    """A state directory with a log of two processes, five records each."""
    clock = itertools.count(1_800_000_000_123_000_000, 1_000_000)
    for name in ("gateway", "agent"):
        folder = tmp_path / "audit" / name
        with AuditLog.open(
            folder, composite, clock_ns=lambda: next(clock), verify=COMPOSITE.verify, files=FaultyFiles()
        ) as log:
            for number in range(4):
                log.wait(log.append(started(number)))
                while number == 0 and not checkpoints_file(folder).exists():
                    time.sleep(0.001)
            log.append(
                Decision(
                    decision_id="d1",
                    pipeline="request",
                    verdict="deny",
                    principal="mallory\x1b[2J\u202e",
                    stages=(Stage("policy", "deny", "policy.forbidden", 5),),
                )
            )
    return tmp_path


def ringfence(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["audit", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_path_prints_the_folder_or_says_what_is_missing(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ringfence(capsys, "path", "--state", state) == (0, f"{state / 'audit'}\n", "")
    status, out, _ = ringfence(capsys, "path", "--state", state, "--json")
    assert (status, json.loads(out)) == (0, {"path": str(state / "audit")})
    status, out, err = ringfence(capsys, "path", "--state", state / "audit")
    assert (status, out) == (2, "")
    assert "audit.not_found" in err


def test_verify_covers_each_log_and_says_that_the_key_was_not_pinned(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    status, out, err = ringfence(capsys, "verify", state / "audit")
    assert (status, err) == (0, "")
    agent, gateway, unpinned, tail = out.splitlines()
    for name, line in (("agent", agent), ("gateway", gateway)):
        assert line.startswith(f"{state / 'audit' / name}: ok, 5 records, ")
        assert composite.key_id in line
    assert "was not pinned" in unpinned
    assert "cut off after the last checkpoint" in tail


@pytest.mark.parametrize("form", ["hex", "armour"])
def test_verify_with_the_owners_key_is_pinned(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner, form: str
) -> None:
    key = state / "owner.pub"
    if form == "hex":
        key.write_text(composite.public.hex() + "\n")
    else:
        text = base64.encodebytes(composite.public).decode()
        key.write_text(f"-----BEGIN RINGFENCE PUBLIC KEY-----\n{text}-----END RINGFENCE PUBLIC KEY-----\n")
    status, out, _ = ringfence(capsys, "verify", state / "audit" / "agent", "--key", key)
    assert status == 0
    assert "not pinned" not in out

    status, out, _ = ringfence(capsys, "verify", state / "audit" / "agent", "--key", key, "--json")
    document = json.loads(out)
    assert document["ok"] is True
    (log,) = document["logs"]
    assert log["checkpoints"] >= 1
    del log["checkpoints"]
    assert log == {
        "folder": str(state / "audit" / "agent"),
        "origin": f"ringfence.audit/agent/{composite.key_id}",
        "first_record": 1,
        "records": 5,
        "checkpoints_second_key": 0,
        "unacknowledged_bytes": 0,
        "root": log["root"],
        "counter": 0,
        "expected": False,
        "uncovered": 0,
        "head": log["head"],
        "signer": composite.key_id,
        "second_signer": "",
        "pinned": True,
        "ok": True,
        "bad_record": None,
        "error": None,
    }


def test_verify_names_the_log_and_the_record_that_was_changed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = records_file(state / "audit" / "agent")
    records.write_bytes(records.read_bytes().replace(b'"version":"1"', b'"version":"7"'))
    status, out, _ = ringfence(capsys, "verify", state / "audit")
    assert status == 1
    assert f"{records.parent}: DOES NOT HOLD: audit.corrupt (record " in out
    assert f"{state / 'audit' / 'gateway'}: ok" in out
    status, out, _ = ringfence(capsys, "verify", state / "audit", "--json")
    document = json.loads(out)
    assert (status, document["ok"]) == (1, False)
    assert [log["ok"] for log in document["logs"]] == [False, True]
    assert document["logs"][0]["error"]["code"] == "audit.corrupt"
    assert document["logs"][0]["bad_record"] in (1, 2)


def test_a_log_rewritten_under_another_key_passes_only_for_who_pins_nothing(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    key = state / "owner.pub"
    key.write_text(composite.public.hex())
    folder = state / "audit" / "agent"
    for path in folder.iterdir():
        path.unlink()
    attacker = CompositeSigner(*COMPOSITE.generate())
    with AuditLog.open(folder, attacker, clock_ns=lambda: 1, verify=COMPOSITE.verify, files=FaultyFiles()) as log:
        log.append(started(1))
    assert ringfence(capsys, "verify", folder)[0] == 0
    status, out, _ = ringfence(capsys, "verify", folder, "--key", key)
    assert status == 1
    assert "audit.forged_checkpoint" in out


def test_a_log_without_its_checkpoints_or_records_does_not_hold(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints_file(state / "audit" / "agent").unlink()
    records_file(state / "audit" / "gateway").unlink()
    status, out, _ = ringfence(capsys, "verify", state / "audit", "--json")
    assert status == 1
    assert [log["error"]["code"] for log in json.loads(out)["logs"]] == ["audit.unsigned", "audit.corrupt"]


def test_bad_folders_and_keys_are_bad_input(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = state / "audit" / "agent"
    (state / "empty").mkdir()
    (state / "bad.pub").write_bytes(b"\xff\x00")
    (state / "blank.pub").write_text("\n")
    (state / "hollow.pub").write_text("-----BEGIN RINGFENCE PUBLIC KEY-----\n-----END RINGFENCE PUBLIC KEY-----\n")
    (state / "composite.pub").write_text(
        "-----BEGIN RINGFENCE PUBLIC KEY-----\nAA==\n-----END RINGFENCE PUBLIC KEY-----\n"
    )
    for words, code in (
        (["verify", state / "empty"], "audit.not_found"),
        (["verify", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--key", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--key", state / "bad.pub"], "audit.bad_key_file"),
        (["verify", agent, "--key", state / "blank.pub"], "audit.bad_key_file"),
        (["verify", agent, "--key", state / "hollow.pub"], "audit.bad_key_file"),
        (["verify", agent, "--second-key", state / "composite.pub"], "audit.bad_key_file"),
        (["verify", agent, "--second-key", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--expect", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--expect", state / "bad.pub"], "audit.bad_note"),
        (["verify", state / "audit", "--counter", "1"], "usage.bad_argument"),
        (["prove", agent], "usage.bad_argument"),
        (["prove", state / "audit", "1"], "usage.bad_argument"),
        (["prove", agent, "99"], "audit.not_found"),
    ):
        status, out, err = ringfence(capsys, *words)
        assert (status, out) == (2, "")
        assert code in err
    (agent / "signer.pub").unlink()
    status, out, _ = ringfence(capsys, "verify", agent, "--json")
    assert (status, json.loads(out)["logs"][0]["error"]["code"]) == (1, "audit.not_found")


def newest_checkpoint(folder: Path) -> bytes:
    (*_, last) = read_notes(checkpoints_file(folder))
    return last[:-1]


def test_an_older_checkpoint_held_elsewhere_shows_a_tail_that_was_cut(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = state / "audit" / "agent"
    held = state / "held.note"
    held.write_bytes(newest_checkpoint(folder))
    status, out, _ = ringfence(capsys, "verify", folder, "--expect", held)
    assert status == 0
    assert "the expected checkpoint is a prefix of it" in out
    assert json.loads(ringfence(capsys, "verify", folder, "--expect", held, "--json")[1])["logs"][0]["expected"] is True

    # The state of the folder as it was after the first record: its owner's key signed it, and it holds by itself.
    (first, *_) = read_notes(checkpoints_file(folder))
    assert first.split(b"\n")[1] == b"1"
    checkpoints_file(folder).write_bytes(first)
    records = records_file(folder)
    records.write_bytes(b"".join(records.read_bytes().splitlines(keepends=True)[:2]))
    assert ringfence(capsys, "verify", folder)[0] == 0
    status, out, _ = ringfence(capsys, "verify", folder, "--expect", held)
    assert status == 1
    assert "A checkpoint covers record 5, but the log ends at record 1" in out


def test_the_anchors_value_is_compared(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = state / "audit" / "agent"
    assert ringfence(capsys, "verify", folder, "--counter", "0")[0] == 0
    status, out, _ = ringfence(capsys, "verify", folder, "--counter", "1")
    assert status == 1
    assert "audit.rolled_back" in out


def test_the_second_key_signs_by_slh_dsa_and_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    slh_dsa = signature("SLH-DSA-SHA2-128f")
    second = SlhDsaSigner(*slh_dsa.generate())
    folder = tmp_path / "agent"
    with AuditLog.open(
        folder,
        composite,
        clock_ns=lambda: 1,
        verify=COMPOSITE.verify,
        files=FaultyFiles(),
        second=second,
    ) as log:
        log.append(started(1))
    key, other = tmp_path / "second.pub", tmp_path / "other.pub"
    key.write_text(second.public.hex())
    other.write_text(slh_dsa.generate()[0].hex())
    status, out, _ = ringfence(capsys, "verify", folder)
    assert (status, f"by the second key {second.key_id} too" in out) == (0, True)
    pinned = ("verify", folder, "--key", folder / "signer.pub", "--json")
    for words, seconded in (((), False), (("--second-key", key), True)):
        document = json.loads(ringfence(capsys, *pinned, *words)[1])["logs"][0]
        assert document["ok"] is True
        assert bool(document["checkpoints_second_key"]) is seconded
        assert document["second_signer"] == (second.key_id if seconded else "")
    status, out, _ = ringfence(capsys, *pinned, "--second-key", other)
    document = json.loads(out)["logs"][0]
    assert (status, document["error"]["code"]) == (1, "audit.unsigned")
    notes = checkpoints_file(folder)
    (entry,) = list(read_notes(notes))[-1:]
    lines = entry.split(b"\n")
    name, encoded = lines[-3].rsplit(b" ", 1)
    changed = bytearray(base64.b64decode(encoded))
    changed[-1] ^= 1
    lines[-3] = name + b" " + base64.b64encode(changed)
    notes.write_bytes(b"\n".join(lines))
    status, out, _ = ringfence(capsys, "verify", folder)
    assert status == 1
    assert "audit.forged_checkpoint" in out


@pytest.mark.parametrize("form", list(Form))
def test_verify_takes_both_keys_in_each_form_that_a_standard_defines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner, form: Form
) -> None:
    second = SlhDsaSigner(*signature("SLH-DSA-SHA2-128f").generate())
    folder, key, second_key = tmp_path / "agent", tmp_path / "key", tmp_path / "second"
    with AuditLog.open(
        folder, composite, clock_ns=lambda: 1, verify=COMPOSITE.verify, files=FaultyFiles(), second=second
    ) as log:
        log.append(started(1))
    key.write_bytes(export_public("ML-DSA-65-Ed25519", composite.public, form))
    second_key.write_bytes(export_public("SLH-DSA-SHA2-128f", second.public, form))
    status, out, _ = ringfence(capsys, "verify", folder, "--key", key, "--second-key", second_key)
    assert status == 0
    assert f"1 of them by the second key {second.key_id} too" in out
    for words in (("--key", second_key), ("--key", key, "--second-key", key)):
        status, out, err = ringfence(capsys, "verify", folder, *words)
        assert (status, out) == (2, "")
        assert "audit.bad_key_file" in err
        assert "holds a key of" in err


def test_a_private_key_is_no_key_to_verify_with(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    private = state / "private.pem"
    private.write_bytes(export_private(KeyMaterial("ML-DSA-65-Ed25519", composite.public, composite.private), Form.PEM))
    status, out, err = ringfence(capsys, "verify", state / "audit" / "agent", "--key", private)
    assert (status, out) == (2, "")
    assert "audit.bad_key_file" in err


def test_a_record_is_proven_without_the_log(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    folder, key, proof = state / "audit" / "agent", state / "owner.pub", state / "record.tlog-proof"
    key.write_text(composite.public.hex())
    assert ringfence(capsys, "prove", folder, "5", "--output", proof)[0] == 0
    status, _, err = ringfence(capsys, "prove", folder, "4", "--output", proof)
    assert (status, "is there already" in err) == (2, True)
    status, out, _ = ringfence(capsys, "verify-proof", proof, "--key", key)
    assert status == 0
    assert "ok: record 5 of the 5" in out
    assert "verdict=deny" in out
    assert "\x1b" not in out
    document = json.loads(ringfence(capsys, "verify-proof", proof, "--key", key, "--json")[1])
    assert (document["ok"], document["record"]["seq"], document["record"]["data"]["verdict"]) == (True, 5, "deny")

    stranger = state / "stranger.pub"
    stranger.write_text(COMPOSITE.generate()[0].hex())
    status, _, err = ringfence(capsys, "verify-proof", proof, "--key", stranger)
    assert (status, "audit.forged_checkpoint" in err) == (1, True)
    proof.write_bytes(proof.read_bytes().replace(b"index 4", b"index 3"))
    status, _, err = ringfence(capsys, "verify-proof", proof, "--key", key)
    assert (status, "audit.bad_proof" in err) == (1, True)
    status, out, _ = ringfence(capsys, "prove", folder, "1")
    assert out.startswith("c2sp.org/tlog-proof@v1\n")
    assert json.loads(ringfence(capsys, "prove", folder, "1", "--json")[1])["proof"] == out


def test_a_log_is_proven_to_go_on_from_an_older_checkpoint(
    state: Path, capsys: pytest.CaptureFixture[str], composite: CompositeSigner
) -> None:
    folder, key, held, proof = state / "audit" / "agent", state / "owner.pub", state / "held", state / "proof"
    key.write_text(composite.public.hex())
    (first, *_) = read_notes(checkpoints_file(folder))
    held.write_bytes(first[:-1])
    assert ringfence(capsys, "prove", folder, "--from", held, "--output", proof, "--json")[0] == 0
    status, out, _ = ringfence(capsys, "verify-proof", proof, "--key", key, "--expect", held)
    assert (status, out.startswith("ok: the first ")) == (0, True)
    assert json.loads(ringfence(capsys, "verify-proof", proof, "--key", key, "--expect", held, "--json")[1])["ok"]
    status, _, err = ringfence(capsys, "verify-proof", proof, "--key", key)
    assert (status, "--expect" in err) == (1, True)
    newest = state / "newest"
    newest.write_bytes(newest_checkpoint(state / "audit" / "gateway"))
    status, _, err = ringfence(capsys, "verify-proof", proof, "--key", key, "--expect", newest)
    assert (status, "audit.bad_proof" in err) == (1, True)
