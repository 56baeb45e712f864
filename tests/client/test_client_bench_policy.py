"""`ringfence bench policy`: decisions beside cedarpy, and hot reload."""

from __future__ import annotations

import json

import pytest

from ringfence.cli import main


def test_decisions_and_reload_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "policy", "--decisions", "400", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    decision, reload = figures["decision"], figures["reload"]
    assert decision["candidates_1000"] >= 50
    for size in ("10", "1000"):
        assert 0 < decision[f"p50_us_{size}"] < decision[f"cedarpy_p50_us_{size}"]
    assert decision["p50_us_1000"] < decision["worst_p50_us_1000"] < decision["worst_cedarpy_p50_us_1000"]
    assert reload["policies"] == 1000
    assert reload["requests"] > 0
    assert 0 < reload["p99_wait_ms"] <= reload["max_wait_ms"]
    assert 0 < reload["longest_step_cpu_ms"] < 1000 * reload["seconds"]


def test_too_few_decisions_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "policy", "--decisions", "3"]) == 2
    assert "usage.bad_argument (decisions)" in capsys.readouterr().err
