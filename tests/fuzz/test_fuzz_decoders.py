"""A minute of coverage-guided fuzzing, over a quarter of the decoders each day; `make fuzz` takes them all, longer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fuzz.targets_core import TARGETS
from tools.fuzz import known_targets, targets_in

TREE = Path(__file__).resolve().parents[2]
SECONDS = 60


def test_no_decoder_raises_anything_unexpected() -> None:
    # To start a decoder takes longer than a second of fuzzing it; `test_fuzz_seeds` has all of them every time.
    names = list(known_targets())[int(time.time()) // 86_400 % 4 :: 4]
    command = [sys.executable, str(TREE / "tools" / "fuzz.py"), "--seconds", str(SECONDS), *names]

    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10 * SECONDS)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["audit.checkpoint", "audit.note", "audit.record", "audit.segment_header"])
def test_fuzzing_the_log_starts_from_what_the_log_writes_now(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds:
        target.decode(seed)


def test_every_decoder_is_listed_once() -> None:
    assert len(known_targets()) == sum(len(targets_in(module)) for module in set(known_targets().values())) > 80


def test_a_finding_is_reported(tmp_path: Path) -> None:
    # The harness itself must see a decoder that breaks its word.
    program = tmp_path / "broken.py"
    program.write_text(
        "from tests.fuzz.target import Target, one_input\n"
        "def decode(data):\n"
        "    if data.startswith(b'x'):\n"
        "        raise KeyError\n"
        "for data in (b'', b'x'):\n"
        "    one_input(Target(decode), data)\n"
    )

    environment = os.environ | {"PYTHONPATH": str(TREE)}
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=False, env=environment)

    assert "KeyError" in done.stderr
