"""A minute of coverage-guided fuzzing over all decoders together; `make fuzz` goes on for longer."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

TREE = Path(__file__).resolve().parents[2]
SECONDS = 60


def test_no_decoder_raises_anything_unexpected() -> None:
    command = [sys.executable, str(TREE / "tools" / "fuzz.py"), "--seconds", str(SECONDS)]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10 * SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def fuzz() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz", TREE / "tools" / "fuzz.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["audit.checkpoint", "audit.note", "audit.record", "audit.segment_header"])
def test_fuzzing_the_log_starts_from_what_the_log_writes_now(fuzz: ModuleType, name: str) -> None:
    target = fuzz._targets().TARGETS[name]  # noqa: SLF001 - a tool, and no module of ours
    for seed in target.seeds:
        target.decode(seed)


def test_a_finding_is_reported(tmp_path: Path) -> None:
    # The harness itself must see a decoder that breaks its word.
    program = tmp_path / "broken.py"
    program.write_text(
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('fuzz', {str(TREE / 'tools' / 'fuzz.py')!r})\n"
        "fuzz = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(fuzz)\n"
        "targets = fuzz._targets()\n"
        "def decode(data):\n"
        "    if data.startswith(b'x'):\n"
        "        raise KeyError\n"
        "broken = targets.Target(decode)\n"
        "for data in (b'', b'x'):\n"
        "    targets.one_input(broken, data)\n"
    )

    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False)

    assert "KeyError" in done.stderr
