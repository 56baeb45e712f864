"""mypy checks every file of the tree: a namespace package hides most of them without a word when a root is missed."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy.main import process_options

TREE = Path(__file__).resolve().parents[2]
TOPS = ("foundation", "attestation", "policies", "agent", "plugin", "tests", "tools")


def test_what_mypy_checks_is_what_the_tree_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(TREE)
    sources, _ = process_options([])  # the very function that turns the command line and pyproject into mypy's list
    asked = {Path(source.path or "").resolve() for source in sources}
    present = {path for top in TOPS for path in (TREE / top).rglob("*.py")}
    # A stub beside a generated module is checked in its place.
    expected = {path.with_suffix(".pyi") if path.with_suffix(".pyi").exists() else path for path in present}
    assert sorted(expected - asked) == []
    assert len({source.module for source in sources}) == len(sources)
