"""Every feature that a level offers computes what it should in a guest, and every other is refused by its check.

The guests are the .wat files beside this one. Each begins with what is expected of it by level; one that is accepted
checks its own results, traps where one is wrong, and says "ok" at its end.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
import wasmtime

from ringfence.agent.errors import GUEST_TRAP
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox, open_sandbox

GUESTS = Path(__file__).parent / "conformance"
TREE = Path(__file__).resolve().parents[3]
LIMITS = Limits(memory_bytes=4 << 20, gpu_memory_bytes=1 << 20, deadline_ms=20_000, output_bytes=64, qubits=0)


@dataclass(frozen=True)
class Case:
    guest: str
    level: Level
    expected: str


def cases() -> Iterator[Case]:
    for path in sorted(GUESTS.glob("*.wat")):
        said = dict(re.findall(r"^;; ([a-z ]+): (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE))
        for level in Level:
            yield Case(path.stem, level, said.get("every level") or said[level.value])


def binary(guest: str) -> bytes:
    return bytes(wasmtime.wat2wasm((GUESTS / f"{guest}.wat").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ProcessSandbox]:
    with open_sandbox() as opened:
        yield opened


async def run(sandbox: ProcessSandbox, code: bytes, level: Level) -> Outcome:
    return await sandbox.run(GuestJob(code, b"", LIMITS, level))


def ended(error: GuestError) -> str:
    """How a guest ended, in the words of the .wat files."""
    if error.code is GUEST_TRAP:
        return error.message.replace("The guest trapped:", "traps,").partition(", in function ")[0]
    check = re.search(r"\(check ([a-z.]+), offset 0x[0-9a-f]+\)", error.message)
    return f"refused by {check[1]}" if check else error.message


@pytest.mark.parametrize("case", tuple(cases()), ids=lambda case: f"{case.guest}-{case.level}")
async def test_a_level_offers_what_it_says_and_no_more(sandbox: ProcessSandbox, case: Case) -> None:
    code = binary(case.guest)
    if case.expected == "ok":
        assert (await run(sandbox, code, case.level)).output == b"ok"
        return
    with pytest.raises(GuestError) as caught:
        await run(sandbox, code, case.level)
    assert ended(caught.value) == case.expected


@pytest.mark.parametrize("level", Level)
async def test_the_text_format_is_refused(sandbox: ProcessSandbox, level: Level) -> None:
    with pytest.raises(GuestError) as caught:
        await run(sandbox, (GUESTS / "integers.wat").read_bytes(), level)
    assert ended(caught.value) == "refused by format"


async def test_a_guest_that_computes_wrongly_is_seen(sandbox: ProcessSandbox) -> None:
    text = (GUESTS / "integers.wat").read_text(encoding="utf-8")
    wrong = bytes(wasmtime.wat2wasm(text.replace("i32.const 65537", "i32.const 65538", 1)))
    with pytest.raises(GuestError) as caught:
        await run(sandbox, wrong, Level.HIGH)
    assert ended(caught.value) == "traps, unreachable"


def test_each_level_takes_less_than_the_one_below() -> None:
    taken = {
        level: {case.guest for case in cases() if case.level is level and "refused" not in case.expected}
        for level in Level
    }
    assert taken[Level.LOW] > taken[Level.MEDIUM] > taken[Level.HIGH] == taken[Level.QUANTUM]


SUM = """(module
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "root") (param f64) (result f64) (f64.sqrt (local.get 0)))
  (func (export "splat") (param i32) (result v128) (i16x8.splat (local.get 0)))
  (func (export "none") (result funcref) (ref.null func))
  (func (export "divide") (param i32) (result i32) (i32.div_u (i32.const 1) (local.get 0))))"""


def invoke(field: str, *arguments: tuple[str, str]) -> dict[str, object]:
    return {"type": "invoke", "field": field, "args": [{"type": kind, "value": value} for kind, value in arguments]}


def returns(line: int, action: dict[str, object], **expected: object) -> dict[str, object]:
    return {"type": "assert_return", "line": line, "action": action, "expected": [expected]}


def counted(folder: Path, commands: list[dict[str, object]]) -> dict[str, dict[str, object]]:
    """What tools/conformance counts of a script, by level, where everything is said to be offered by every level."""
    tool = folder / "wasm-tools"
    tool.write_text("#!/bin/sh\nexit 0\n", encoding="ascii")
    tool.chmod(0o755)
    (folder / "sum.wasm").write_bytes(bytes(wasmtime.wat2wasm(SUM)))
    script = {"source_filename": "sum.wast", "commands": commands}
    (folder / "script.json").write_text(json.dumps(script), encoding="utf-8")
    command = [sys.executable, "-m", "tools.conformance.script", str(folder), str(tool)]
    done = subprocess.run(command, cwd=TREE, capture_output=True, timeout=60, check=True)
    return cast("dict[str, dict[str, object]]", json.loads(done.stdout))


def test_the_suites_assertions_are_told_from_those_that_do_not_hold(tmp_path: Path) -> None:
    module = {"type": "module", "line": 1, "filename": "sum.wasm", "module_type": "binary"}
    add, root = invoke("add", ("i32", "4294967295"), ("i32", "3")), invoke("root", ("f64", "13830554455654793216"))
    zero, splat = invoke("divide", ("i32", "0")), invoke("splat", ("i32", "65537"))
    held = [
        returns(2, add, type="i32", value="2"),
        returns(3, root, type="f64", value="nan:canonical"),
        returns(4, splat, type="v128", lane_type="i16", value=["1"] * 8),
        returns(5, invoke("none"), type="funcref", value="null"),
        {"type": "assert_trap", "line": 6, "action": zero, "text": "integer divide by zero"},
    ]
    broken = [
        returns(12, add, type="i32", value="3"),
        returns(13, root, type="f64", value="0"),
        returns(14, splat, type="v128", lane_type="i16", value=["1"] * 7 + ["2"]),
        returns(15, invoke("none"), type="funcref"),
        returns(16, zero, type="i32", value="0"),
        returns(17, invoke("missing"), type="i32", value="0"),
        {"type": "assert_trap", "line": 18, "action": zero, "text": "integer overflow"},
        {"type": "assert_trap", "line": 19, "action": add, "text": "integer overflow"},
        {"type": "assert_invalid", "line": 20, "filename": "sum.wasm", "module_type": "binary", "text": "mismatch"},
        {"type": "assert_unlinkable", "line": 21, "filename": "sum.wasm", "module_type": "binary", "text": "unknown"},
    ]
    for tally in counted(tmp_path, [module, *held, *broken]).values():
        assert tally["passed"] == len(held)
        failed = cast("list[str]", tally["failed"])
        assert [failure.split(":")[1] for failure in failed] == [str(command["line"]) for command in broken]


def test_a_module_that_a_level_should_take_and_refuses_fails_the_suite(tmp_path: Path) -> None:
    (tmp_path / "tail.wasm").write_bytes(bytes(wasmtime.wat2wasm("(module (func $f return_call $f))")))
    module: dict[str, object] = {"type": "module", "line": 1, "filename": "tail.wasm", "module_type": "binary"}
    tallies = counted(tmp_path, [module])
    assert [len(cast("list[str]", tallies[level]["failed"])) for level in Level] == [0, 0, 1, 1]


def test_without_a_suite_it_is_said_where_they_are() -> None:
    command = [sys.executable, "-m", "tools.conformance"]
    done = subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "git clone https://github.com/WebAssembly/testsuite" in done.stderr
