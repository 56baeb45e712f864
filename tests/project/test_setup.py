"""tools/setup.py says what is missing instead of failing somewhere later."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[2]
COPIED = ("pyproject.toml", "uv.lock", "tools/bootstrap.txt", "tools/setup.py")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A bare checkout, in a path with a space, on a host whose PATH holds nothing."""
    folder = tmp_path / "ring fence"
    (folder / "tools").mkdir(parents=True)
    for name in COPIED:
        shutil.copy(TREE / name, folder / name)
    (tmp_path / "bin").mkdir()
    return folder


def set_up(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(checkout / "tools" / "setup.py"), *arguments]
    environment = {"PATH": str(checkout.parent / "bin"), "HOME": str(checkout.parent)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_missing_system_packages_are_named_at_once(checkout: Path) -> None:
    outcome = set_up(checkout, "test")
    assert outcome.returncode == 1
    assert len(outcome.stderr.splitlines()) == 1
    for package in ("swtpm", "swtpm-tools", "gcc", "pkg-config", "libtss2-dev"):
        assert package in outcome.stderr
    assert not (checkout / ".venv").exists()


def test_an_unknown_mode_is_a_usage_error(checkout: Path) -> None:
    outcome = set_up(checkout, "everything")
    assert outcome.returncode == 2
    assert "invalid choice" in outcome.stderr
