"""`ringfence bench crypto`: what it measures and what it holds that against."""

from __future__ import annotations

import json

import pytest

from ringfence.cli import main


def test_every_operation_is_timed_beside_its_provider(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "crypto", "--rounds", "20", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    rows = {(row["algorithm"], row["operation"], row["form"]): row for row in figures["operations"]}
    for algorithm in ("Ed25519", "ML-DSA-65", "ML-DSA-65-Ed25519"):
        for form in ("bytes", "prepared"):
            assert {(algorithm, "sign", form), (algorithm, "verify", form)} <= rows.keys()
    for form in ("bytes", "prepared"):  # the provider's part of the very same signature
        row = rows["ML-DSA-65", "sign", form]
        assert 0 < row["overhead_us"] < row["raw"]["p50_us"] < row["ours"]["p50_us"]
    first = rows["ML-DSA-65", "sign", "first use"]
    assert first["raw"]["p50_us"] > 0
    assert first["overhead_us"] is None
    assert not any("first use" in target["name"] for target in figures["targets"])
    for algorithm in ("ML-KEM-768", "X25519"):
        assert rows[algorithm, "decapsulate", "prepared"]["overhead_us"] is not None
    for level in ("BIKE-L1", "BIKE-L3", "BIKE-L5"):
        assert rows[level, "decapsulate", "bytes"]["ours"]["p50_us"] > 0
    assert rows["SLH-DSA-SHA2-128s", "verify", "bytes"]["raw"]["p50_us"] > 0
    assert rows["SLH-DSA-SHA2-128s", "sign", "bytes"]["overhead_us"] is None
    assert {(page["algorithm"], page["operation"]) for page in figures["pages"]} == {
        (algorithm, f"{what} 64 KiB") for algorithm in ("AES-256-GCM", "ChaCha20-Poly1305") for what in ("seal", "open")
    }
    assert len(figures["targets"]) >= 50
    assert all(target["met"] == (target["measured"] <= target["limit"]) for target in figures["targets"][:-2])


def test_the_table_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "crypto", "--rounds", "20"]) == 0
    text = capsys.readouterr().out
    assert "HPKE-MLKEM768-X25519 open" in text
    assert "AES-256-GCM seal 64 KiB" in text
    assert "targets met." in text


def test_too_few_rounds_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "crypto", "--rounds", "3"]) == 2
    assert "usage.bad_argument (rounds)" in capsys.readouterr().err
