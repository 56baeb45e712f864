"""`ringfence audit path | verify | show` over logs signed as Ringfence signs them."""

from __future__ import annotations

import base64
import itertools
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.audit import AuditLog, Decision, Stage
from ringfence.cli import main
from ringfence.crypto import COMPOSITE, key_id
from tests.audit.conftest import FaultyFiles, started


@dataclass(frozen=True)
class CompositeSigner:
    public: bytes
    private: bytes

    @property
    def key_id(self) -> str:
        return key_id(self.public)

    def sign(self, message: bytes) -> bytes:
        return COMPOSITE.sign(self.private, message)


@pytest.fixture(scope="module")
def composite() -> CompositeSigner:
    return CompositeSigner(*COMPOSITE.generate())


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
                log.append(started(number))
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
        "records": 5,
        "uncovered": 0,
        "head": log["head"],
        "signer": composite.key_id,
        "pinned": True,
        "ok": True,
        "bad_record": None,
        "error": None,
    }


def test_verify_names_the_log_and_the_record_that_was_changed(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = state / "audit" / "agent" / "records.jsonl"
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
    (state / "audit" / "agent" / "checkpoints.jsonl").unlink()
    (state / "audit" / "gateway" / "records.jsonl").unlink()
    status, out, _ = ringfence(capsys, "verify", state / "audit", "--json")
    assert status == 1
    assert [log["error"]["code"] for log in json.loads(out)["logs"]] == ["audit.unsigned", "audit.corrupt"]


def test_bad_folders_and_keys_are_bad_input(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = state / "audit" / "agent"
    (state / "empty").mkdir()
    (state / "bad.pub").write_bytes(b"\xff\x00")
    (state / "blank.pub").write_text("\n")
    for words, code in (
        (["verify", state / "empty"], "audit.not_found"),
        (["verify", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--key", state / "nowhere"], "audit.not_found"),
        (["verify", agent, "--key", state / "bad.pub"], "audit.bad_key_file"),
        (["verify", agent, "--key", state / "blank.pub"], "audit.bad_key_file"),
        (["show", agent, "--limit", "0"], "usage.bad_argument"),
        (["show", state / "empty"], "audit.not_found"),
    ):
        status, out, err = ringfence(capsys, *words)
        assert (status, out) == (2, "")
        assert code in err
    (agent / "signer.pub").unlink()
    status, out, _ = ringfence(capsys, "verify", agent, "--json")
    assert (status, json.loads(out)["logs"][0]["error"]["code"]) == (1, "audit.not_found")


def test_show_prints_records_that_cannot_drive_the_terminal(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ringfence(capsys, "show", state / "audit" / "gateway")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 6)
    assert "2027-01-15T08:00:00.123Z operator" in lines[1]
    assert "verdict=deny" in lines[5]
    assert "policy.forbidden" in lines[5]
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_show_filters_by_kind_and_number(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ringfence(capsys, "show", state / "audit", "--kind", "operator", "--limit", "2", "--json")
    records = json.loads(out)["records"]
    assert [(record["log"], record["seq"]) for record in records] == [
        ("agent", 3),
        ("agent", 4),
        ("gateway", 3),
        ("gateway", 4),
    ]
    assert records[0]["data"]["version"] == "2"


def test_show_stops_at_a_line_that_is_no_record(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (state / "audit" / "agent" / "records.jsonl").open("ab") as file:
        file.write(b"nonsense\n")
    status, _, err = ringfence(capsys, "show", state / "audit" / "agent")
    assert status == 1
    assert "audit.corrupt" in err
