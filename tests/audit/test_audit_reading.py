"""`ringfence audit show | tail | export`: filters, formats, records that cannot drive a terminal or a spreadsheet."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ringfence.audit import AuditLog, Decision, Job, Pool, Record, Session, Settings, Stage
from ringfence.audit.selection import parse_time
from ringfence.cli import main
from ringfence.errors import UsageError
from tests.audit.conftest import Ed25519Signer, FaultyFiles, records_file, started, verify_ed25519

BEGAN = 1_800_000_000_000_000_000  # 2027-01-15T08:00:00Z
SECOND = 1_000_000_000
RECORDS: tuple[Record, ...] = (
    started(0),
    Session(event="opened", session="s1", principal="alice"),
    Decision(decision_id="d1", pipeline="request", verdict="allow", session="s1", principal="alice"),
    Job(event="admitted", job_id="j1", session="s1", principal="alice"),
    Pool(event="written", pool="p1", session="s1", principal="alice", job_id="j1", length=64),
    Decision(
        decision_id="d2",
        pipeline="request",
        verdict="deny",
        code="policy.forbidden",
        session="s2",
        principal="=cmd\x1b[2J\u202e",
        stages=(Stage("policy", "deny", "policy.forbidden", 5),),
    ),
)


def write(folder: Path, signer: Ed25519Signer, records: tuple[Record, ...] = RECORDS) -> None:
    """One record a second; a segment for each two or so."""
    times = [BEGAN]
    with AuditLog.open(
        folder,
        signer,
        clock_ns=lambda: times[-1],
        verify=verify_ed25519,
        files=FaultyFiles(),
        settings=Settings(checkpoint_every_s=3600, segment_bytes=700),
    ) as log:
        for record in records:
            log.wait(log.append(record))
            times.append(times[-1] + SECOND)


@pytest.fixture
def audit(tmp_path: Path, signer: Ed25519Signer) -> Path:
    for name in ("gateway", "agent"):
        write(tmp_path / name, signer)
    return tmp_path


def ringfence(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    status = main(["audit", *map(str, words)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def shown(capsys: pytest.CaptureFixture[str], *words: object) -> list[int]:
    _, out, _ = ringfence(capsys, *words, "--json")
    return [record["seq"] for record in json.loads(out)["records"]]


def test_show_prints_records_that_cannot_drive_the_terminal(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ringfence(capsys, "show", audit / "gateway")
    lines = out.splitlines()
    assert (status, len(lines)) == (0, 7)
    assert "2027-01-15T08:00:00.000Z operator" in lines[1]
    assert "verdict=deny" in lines[6]
    assert "policy.forbidden" in lines[6]
    assert "\x1b" not in out
    assert "\u202e" not in out


@pytest.mark.parametrize(
    ("words", "seqs"),
    [
        ([], [1, 2, 3, 4, 5, 6]),
        (["--kind", "decision"], [3, 6]),
        (["--session", "s1"], [2, 3, 4, 5]),
        (["--principal", "alice"], [2, 3, 4, 5]),
        (["--job", "j1"], [4, 5]),
        (["--verdict", "deny"], [6]),
        (["--verdict", "allow", "--principal", "alice"], [3]),
        (["--verdict", "allow", "--session", "s2"], []),
        (["--since", "2027-01-15T08:00:03Z"], [4, 5, 6]),
        (["--until", "2027-01-15T08:00:03Z"], [1, 2, 3]),
        (["--since", "2027-01-15T10:00:01+02:00", "--until", "2027-01-15T08:00:02.5"], [2, 3]),
        (["--since", "2027-01-16"], []),
        (["--limit", "2"], [5, 6]),
        (["--limit", "1", "--kind", "decision"], [6]),
    ],
)
def test_show_filters(audit: Path, capsys: pytest.CaptureFixture[str], words: list[str], seqs: list[int]) -> None:
    assert shown(capsys, "show", audit / "agent", *words) == seqs


def test_show_covers_each_log(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = ringfence(capsys, "show", audit, "--limit", "1", "--json")
    (first, second) = json.loads(out)["records"]
    assert (first["log"], second["log"]) == ("agent", "gateway")
    assert first["time"] == "2027-01-15T08:00:05.000Z"
    assert first["data"]["decision_id"] == "d2"


def test_show_stops_at_a_line_that_is_no_record(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = max((audit / "agent").glob("records-*"))
    with newest.open("ab") as file:
        file.write(b"nonsense\n")
    status, _, err = ringfence(capsys, "show", audit / "agent")
    assert status == 1
    assert "audit.corrupt" in err


def test_bad_input_is_said(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (audit / "empty").mkdir()
    (audit / "there").write_text("")
    for words, code in (
        (["show", audit / "agent", "--limit", "0"], "usage.bad_argument"),
        (["show", audit / "agent", "--since", "yesterday"], "usage.bad_argument"),
        (["tail", audit / "empty"], "audit.not_found"),
        (["export", audit, "--output", audit / "there"], "usage.bad_argument"),
    ):
        status, out, err = ringfence(capsys, *words)
        assert (status, out) == (2, "")
        assert code in err


def test_times_are_dates_times_and_ages() -> None:
    assert parse_time("2h", "--since", BEGAN) == BEGAN - 7200 * SECOND
    assert parse_time("90s", "--since", BEGAN) == BEGAN - 90 * SECOND
    assert parse_time("999999999d", "--since", BEGAN) == 0
    assert parse_time("2027-01-15T08:00:00Z", "--since", 0) == BEGAN
    for wrong in ("", "2", "2w", "-1s", "2027-13-01"):
        with pytest.raises(UsageError):
            parse_time(wrong, "--since", BEGAN)


def test_export_as_ndjson_is_exact(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ringfence(capsys, "export", audit / "agent")
    documents = [json.loads(line) for line in out.splitlines()]
    assert (status, [one["seq"] for one in documents]) == (0, [1, 2, 3, 4, 5, 6])
    assert documents[5]["data"]["principal"] == "=cmd\x1b[2J\u202e"
    target = audit / "out.ndjson"
    status, said, _ = ringfence(capsys, "export", audit / "agent", "--kind", "job", "--output", target, "--json")
    assert json.loads(said) == {"exported": 1, "output": str(target)}
    assert len(target.read_text().splitlines()) == 1
    assert target.stat().st_mode & 0o777 == 0o600


def test_export_as_csv_gives_a_spreadsheet_no_formula(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = audit / "out.csv"
    status, said, _ = ringfence(capsys, "export", audit / "agent", "--format", "csv", "--output", target)
    assert (status, said) == (0, f"6 records in {target}\n")
    with target.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["seq"] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert rows[5]["principal"] == "'=cmd\x1b[2J\u202e"
    assert (rows[3]["event"], rows[3]["job_id"], rows[5]["verdict"]) == ("admitted", "j1", "deny")
    assert json.loads(rows[5]["data"])["stages"] == [["policy", "deny", "policy.forbidden", 5]]


def test_tail_prints_the_newest(audit: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = ringfence(capsys, "tail", audit, "--limit", "2")
    assert status == 0
    assert [line.split()[:2] for line in out.splitlines()] == [
        ["agent", "5"],
        ["agent", "6"],
        ["gateway", "5"],
        ["gateway", "6"],
    ]


def test_tail_follows_across_segments(tmp_path: Path, signer: Ed25519Signer) -> None:
    folder = tmp_path / "agent"
    write(folder, signer, RECORDS[:2])
    child = subprocess.Popen(
        [sys.executable, "-m", "ringfence.cli", "audit", "tail", folder, "--limit", "1", "--follow", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever started the tests may ignore it, as a shell does for what runs in the background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert child.stdout is not None
    assert child.stderr is not None
    with child.stdout as out, child.stderr:
        assert json.loads(out.readline())["seq"] == 2
        write(folder, signer, RECORDS)
        assert [json.loads(out.readline())["seq"] for _ in RECORDS] == [3, 4, 5, 6, 7, 8]
        # A line that is still being written is waited for.
        (newest,) = sorted(folder.glob("records-*"))[-1:]
        line = newest.read_bytes().splitlines(keepends=True)[-1]
        half = line.replace(b'"seq":8', b'"seq":9')
        with newest.open("ab") as file:
            file.write(half[:50])
            file.flush()
            time.sleep(0.3)
            file.write(half[50:])
        assert json.loads(out.readline())["seq"] == 9
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 130


def test_the_first_segment_alone_is_shown_too(tmp_path: Path, signer: Ed25519Signer) -> None:
    write(tmp_path, signer, RECORDS[:1])
    assert records_file(tmp_path).exists()
    assert main(["audit", "show", str(tmp_path)]) == 0
