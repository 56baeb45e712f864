"""Thousands of jobs of every kind leave nothing behind; `make soak` runs a hundred thousand."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[3] / "tools" / "soak.py"
ENDS = {
    "ok",
    "cancelled",
    "sandbox.trap",
    "sandbox.memory_limit",
    "sandbox.deadline",
    "sandbox.module_invalid",
    "sandbox.entry_point_missing",
}


def test_two_thousand_jobs_leave_nothing() -> None:
    done = subprocess.run([sys.executable, str(SOAK), "--jobs", "2000", "--json"], stdout=subprocess.PIPE, check=False)
    report = json.loads(done.stdout)
    assert report["grown"] == []
    assert done.returncode == 0
    assert report["ends"].keys() == ENDS
    assert report["figures"]["zombies"]["last_quarter"] == 0
    assert {"agent.resident_kib", "agent.mappings", "agent.descriptors", "zygote.resident_kib"} <= report[
        "figures"
    ].keys()


@pytest.mark.parametrize(
    ("name", "step", "grown"),
    [
        ("agent.resident_kib", 20, 0),
        ("agent.resident_kib", 60, 1),
        ("zygote.descriptors", 1, 1),
        ("zombies", 1, 1),
        ("processes", 0, 0),
        ("agent.mappings", -1, 0),
    ],
)
def test_growth_is_seen(name: str, step: int, grown: int) -> None:
    rows = runpy.run_path(str(SOAK))["compare"]([{name: 1000 + step * number} for number in range(40)])
    assert rows[name]["grown"] == grown
