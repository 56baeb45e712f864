"""`ringfence bench audit` runs, and what it says is what it measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ringfence.cli import main


def test_the_figures_are_whole_and_memory_stays_flat(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "audit", "--records", "60000", "--state", str(tmp_path), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["records"] == 60_000
    assert 600 < figures["bytes_per_record"] < 900
    for name in ("append", "durability_wait", "raw_fdatasync"):
        assert 0 < figures[name]["p50_us"] <= figures[name]["p99_us"]
    for name in ("durable_per_second", "verified_per_second", "cpu_us_per_durable_record"):
        assert figures[name] > 0
    assert figures["resident_mib"]["second_half"] <= figures["resident_mib"]["first_half"] + 32
    assert list(tmp_path.iterdir()) == []


def test_too_few_records_are_refused_and_people_get_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "audit", "--records", "10"]) == 2
    assert "usage.bad_argument" in capsys.readouterr().err
    assert main(["bench", "audit", "--records", "10000", "--state", str(tmp_path)]) == 0
    assert "of the caller's CPU" in capsys.readouterr().out
