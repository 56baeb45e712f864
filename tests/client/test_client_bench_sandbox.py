"""`ringfence bench sandbox`: what it measures, how its ratios come about, and that wasm and native code agree."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from ringfence.cli import main
from ringfence.client.bench import sandbox
from ringfence.client.bench.sandbox_kernels import KERNELS, WAYS, Rounds, check_agreement, compare, overall
from ringfence.client.bench.sandbox_memory import family, held_by
from ringfence.client.errors import ClientError

FIGURES = (
    "overhead",
    "native",
    "job_start_ms",
    "job_start_in_a_row_ms",
    "job_start_devices_ms",
    "kill_past_deadline_ms",
    "host_call_ns",
    "idle_pss_mb",
)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """One quick run. It would have failed had a kernel computed one thing in the guest and another natively."""
    said = io.StringIO()
    with redirect_stdout(said):
        assert main(["bench", "sandbox", "--quick", "--json"]) == 0
    document: dict[str, Any] = json.loads(said.getvalue())
    return document


def rounds(*nanoseconds: int) -> Rounds:
    return Rounds(tuple(range(len(nanoseconds))), nanoseconds)


def test_every_promise_is_measured_and_judged(figures: dict[str, Any]) -> None:
    assert set(FIGURES) <= figures.keys()
    assert [row["name"] for row in figures["kernels"]] == list(KERNELS)
    for row in figures["kernels"]:
        assert all(row[f"{way}_ms"] > 0 for way in WAYS)
    assert figures["overhead"] == overall(row["over_plain"] for row in figures["kernels"])
    assert figures["host_call_ns"].keys() == {"asynchronous", "checkpoint", "synchronous", "broker"}
    assert {target["name"].partition(".")[0] for target in figures["targets"]} == set(FIGURES) - {
        "job_start_devices_ms",
        "job_start_in_a_row_ms",
    }
    assert all(target["met"] == (target["measured"] <= target["limit"]) for target in figures["targets"])


def test_no_guest_is_killed_before_its_deadline(figures: dict[str, Any]) -> None:
    assert figures["kill_past_deadline_ms"]["p50"] >= 0


def test_it_says_how_it_compiled(figures: dict[str, Any]) -> None:
    assert figures["compiler"].startswith("ziglang ")
    assert "-O3" in figures["flags"]["wasm"]
    assert "-msimd128" in figures["flags"]["wasm"]
    assert "-O3" in figures["flags"]["native"]
    assert "-march" not in figures["flags"]["native"]
    assert figures["flags"]["tuned"].endswith("-march=native")


def test_the_idle_agent_is_measured_with_all_its_processes(figures: dict[str, Any]) -> None:
    processes = figures["idle_processes"]
    assert processes
    assert all(process["megabytes"] > 0 for process in processes)
    assert figures["idle_pss_mb"] == pytest.approx(sum(process["megabytes"] for process in processes), abs=0.1)


def test_the_table_is_for_people(figures: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    sandbox.show(figures)
    text = capsys.readouterr().out
    assert all(name in text for name in KERNELS)
    assert "over plain wasmtime: geometric mean" in text
    assert f"of {len(figures['targets'])} targets met." in text


def test_a_disturbed_round_does_not_count() -> None:
    assert rounds(9, 9, 9, 9, 9, 2, 9, 1).undisturbed == 1.5
    assert rounds(7).undisturbed == 7


def test_a_ratio_is_of_runs_side_by_side() -> None:
    """The machine was slow in the second turn, for everybody: no median over all of a way's runs would show 2."""
    turns = [
        {"sandboxed": rounds(20), "plain": rounds(10), "native": rounds(5), "tuned": rounds(4)},
        {"sandboxed": rounds(800), "plain": rounds(400), "native": rounds(100), "tuned": rounds(80)},
        {"sandboxed": rounds(22), "plain": rounds(11), "native": rounds(4), "tuned": rounds(2)},
    ]
    row = compare("sort", turns)
    assert (row["over_plain"], row["over_native"], row["over_tuned"]) == (2.0, 5.5, 10.0)
    assert overall([1.0, 4.0]) == {"geomean": 2.0, "worst": 4.0}


def test_a_kernel_that_computes_two_things_is_no_figure() -> None:
    same = {way: Rounds((1, 2), (10, 10)) for way in WAYS}
    check_agreement("lz", same)
    with pytest.raises(ClientError) as caught:
        check_agreement("lz", same | {"native": Rounds((1, 3), (10, 10))})
    assert str(caught.value.code) == "client.kernel_mismatch"


def test_a_process_counts_with_its_descendants_and_no_other() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        members = family(parent.pid)
        held = held_by(members)
        parent.communicate(b"\n")
    assert members[0] == parent.pid
    assert len(members) == len(held) == 2
    assert os.getpid() not in members
    assert all(process.megabytes > 0 and process.measured == "pss" for process in held)
    assert held_by([parent.pid]) == []


def test_a_process_that_hides_its_pages_still_counts() -> None:
    def guarded(path: Path) -> str:
        if path.name == "smaps_rollup":
            raise PermissionError
        return path.read_text()

    (held,) = held_by([os.getpid()], guarded)
    assert held.measured == "rss"
    assert held.megabytes > 0
