"""`ringfence demo` as a user runs it: what it proves, what it says when something is wrong, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., list[str]]
LeftBehind = Callable[[], list[str]]
REFUSALS = {
    "integrity.digest_mismatch",
    "integrity.replayed",
    "policy.denied",
    "sandbox.memory_limit",
    "sandbox.deadline",
}


@pytest.fixture
def temporary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The demo's folder for temporary files, which must be empty in the end."""
    made = folder / "t"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    yield made
    left = list(made.iterdir())
    shutil.rmtree(made)
    assert left == []


@pytest.fixture
def demo(command: Command, left_behind: LeftBehind) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the demo to its end and sees that no process is left."""

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command("demo", *words), capture_output=True, text=True, timeout=120, check=False)
        assert left_behind() == []
        return done

    return run


def _holds(report: dict[str, Any]) -> None:
    assert report["ok"] is True
    assert report["result"]["matches_reference"] is True
    assert report["receipt"]["verified"] is True
    assert {refusal["code"] for refusal in report["refusals"]} == REFUSALS
    assert all(refusal["held"] for refusal in report["refusals"])
    assert report["audit"]["ok"] is True


def _sockets(state: Path) -> list[Path]:
    named = tomllib.loads((state / "gateway.toml").read_text())
    return [Path(named["listen"].removeprefix("unix:")), Path(named["host"]["socket"])]


def test_a_kept_state_in_a_path_with_a_space(
    demo: Callable[..., Any], command: Command, folder: Path, temporary: Path
) -> None:
    state = folder / "a state"
    done = demo("--json", "--rows", 2000, "--state", state)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    _holds(report)
    assert report["attestation"]["status"] == "affirming"
    assert report["input"]["rows"] == 2000
    assert report["state"] == str(state)
    assert not any(socket.exists() for socket in _sockets(state))

    path = subprocess.run(command("audit", "path", "--state", state), capture_output=True, text=True, check=True)
    log = path.stdout.removesuffix("\n")
    verified = subprocess.run(command("audit", "verify", log, "--json"), capture_output=True, text=True, check=True)
    logs = json.loads(verified.stdout)
    assert logs["ok"] is True
    counts = [{entry["folder"]: entry["records"] for entry in said} for said in (logs["logs"], report["audit"]["logs"])]
    assert counts[0] == counts[1]
    assert list(temporary.iterdir()) == []


def test_a_second_run_in_a_very_deep_state_with_its_own_input(
    demo: Callable[..., Any], folder: Path, temporary: Path
) -> None:
    rows = folder / "rows.csv"
    rows.write_text("id,amount_cents,region\r\n1, 250 ,north\r\n\r\n2,-100,a b\r\n3,7,west")
    state = folder.joinpath(*(f"{'deep' * 12} {level}" for level in range(8)))
    for _ in range(2):
        done = demo("--json", "--input", rows, "--state", state)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        _holds(report)
        assert report["result"]["guest"]["rows"] == 3
        assert report["result"]["guest"]["sum"] == 157
        sockets = _sockets(state)
        assert not any(socket.parent.exists() for socket in sockets if state not in socket.parents)
    assert not any(state in socket.parents for socket in sockets)
    assert list(temporary.iterdir()) == []


def test_without_a_tpm_it_says_so_in_a_sentence_and_passes(
    demo: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, temporary: Path
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    done = demo("--rows", 2000)
    assert done.returncode == 0, done.stderr
    sentence = "The host is not attested, because swtpm is not installed; the demo's own policy admits it, no shipped "
    assert [line.startswith(sentence) for line in done.stdout.splitlines()].count(True) == 1
    assert "Every check held." in done.stdout
    assert "FAIL" not in done.stdout
    assert list(temporary.iterdir()) == []


def test_a_malformed_row_ends_with_the_guest_s_own_words(
    demo: Callable[..., Any], folder: Path, temporary: Path
) -> None:
    rows = folder / "malformed.csv"
    rows.write_text("id,amount_cents,region\n1,250,north\n2,lots,south\n")
    done = demo("--json", "--input", rows)
    assert done.returncode == 1
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "sandbox.exit_status"
    assert "line 3: the second field is not a whole number of cents" in error["message"]
    assert done.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []


def test_a_missing_input_is_a_usage_error(demo: Callable[..., Any], folder: Path, temporary: Path) -> None:
    done = demo("--json", "--input", folder / "nowhere.csv")
    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["code"] == "usage.unreadable_file"
    assert done.stderr.count("\n") == 1
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "moment", "status"),
    [
        (signal.SIGTERM, "tpm", 128 + signal.SIGTERM),
        (signal.SIGTERM, "gateway.sock", 128 + signal.SIGTERM),
        (signal.SIGHUP, "gateway.sock", 128 + signal.SIGHUP),
        (signal.SIGINT, "agent.sock", 128 + signal.SIGINT),
    ],
)
def test_stopped_at_any_moment_it_leaves_nothing(
    command: Command,
    left_behind: LeftBehind,
    until: Callable[..., None],
    temporary: Path,
    number: signal.Signals,
    moment: str,
    status: int,
) -> None:
    # A shell without job control ignores SIGINT for what it puts into the background, and children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        running = subprocess.Popen(command("demo", "--rows", "2000"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        signal.signal(signal.SIGINT, before)
    with running:
        until(lambda: list(temporary.glob(f"ringfence-demo-*/run/{moment}")), f"{moment} is there")
        os.kill(running.pid, number)
        _, said = running.communicate(timeout=30)
    assert running.returncode == status
    assert said == b""
    assert left_behind() == []


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(["--rows", "0"], "rows"), (["--rows", "-5"], "rows"), (["--rows", "100000000"], "rows")],
)
def test_rows_out_of_bounds_are_a_usage_error(demo: Callable[..., Any], arguments: list[str], field: str) -> None:
    done = demo("--json", *arguments)

    assert done.returncode == 2
    error = json.loads(done.stdout)["error"]
    assert (error["code"], error["field"]) == ("usage.bad_argument", field)


def test_an_input_without_its_heading_loses_no_row(demo: Callable[..., Any], folder: Path) -> None:
    bare = folder / "bare.csv"
    bare.write_text("1,100,eu\n2,-250,us\n")

    done = demo("--json", "--input", str(bare))

    assert done.returncode == 2
    assert json.loads(done.stdout)["error"]["field"] == "input"


def test_an_untidy_input_is_read_whole(demo: Callable[..., Any], folder: Path) -> None:
    untidy = folder / "untidy.csv"
    untidy.write_bytes(b"id, amount_cents, region\r\n1,100,eu\r\n\r\n2, -5 ,x")

    report = json.loads(demo("--json", "--input", str(untidy)).stdout)

    assert report["input"]["rows"] == report["result"]["guest"]["rows"] == 2
    assert report["ok"]
