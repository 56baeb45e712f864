"""`ringfence sandbox`: what it prints and how it ends, for guests good and bad and commands that cannot be meant."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.sandbox import cli
from ringfence.agent.sandbox.levels import Level, ResultType
from ringfence.errors import Code
from ringfence.frame import outcome

WRITE = '(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))'
EXIT = '(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))'
GATE = '(import "ringfence" "quantum_gate" (func $gate (param i32 i32 f64) (result i32)))'
GATE += '(import "ringfence" "quantum_measure" (func $measure (param i32 i32) (result i32)))'
CALL_GATE = "(drop (call $gate (i32.const 0) (i32.load (i32.const 0)) (f64.const 0)))"
CALL_GATE += "(drop (call $measure (i32.const 9) (i32.const 0)))"
MEMORY = '(memory (export "memory") 1)'
COUNT = f"""(module {WRITE} {MEMORY} (func (export "main") (param $input i32) (param $bytes i32) (result i32)
  (i32.store (i32.const 0) (i32.const 16)) (i32.store (i32.const 4) (i32.const 4))
  (i32.store (i32.const 16) (local.get $bytes))
  (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))"""
GROW = "(loop $more (br_if $more (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable"
# What these tests are about does not need a host with every protection.
ANYWHERE = ("--accept-missing", "landlock", "--accept-missing", "namespaces")


@pytest.fixture
def guest(tmp_path: Path) -> Any:
    def write(body: str, *, imports: str = "", memory: str = MEMORY) -> str:
        whole = body if body.startswith("(module") else f'(module {imports} {memory} (func (export "_start") {body}))'
        path = tmp_path / "guest.wasm"
        path.write_bytes(bytes(wasmtime.wat2wasm(whole)))
        return str(path)

    return write


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    status = outcome(["sandbox", *arguments, "--json"])
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return status, document


def test_a_good_guest_runs(guest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tmp_path / "input"
    given.write_bytes(b"hello")
    arguments = ("run", guest(COUNT), "--input", str(given), "--memory", "1MiB", "--result", "i32", *ANYWHERE)
    status, document = printed(capsys, *arguments)
    assert (status, document["status"], document["code"], document["message"]) == (0, "ok", "", "")
    assert base64.b64decode(document["output_b64"]) == b"\5\0\0\0"
    assert document["wall_ms"] > 0
    assert document["cpu_ms"] > 0
    assert document["peak_memory_bytes"] == 2 * 65536


def test_people_get_the_output_itself(guest: Any, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = guest(COUNT)
    assert outcome(["sandbox", "run", path, *ANYWHERE]) == 0
    shown = capfdbinary.readouterr()
    assert shown.out == bytes(4)
    assert shown.err.startswith(b"ringfence sandbox: ok, 4 bytes of output, ")
    kept = tmp_path / "output"
    assert outcome(["sandbox", "run", path, "--output", str(kept), *ANYWHERE]) == 0
    assert (capfdbinary.readouterr().out, kept.read_bytes()) == (b"", bytes(4))


@pytest.mark.parametrize(
    ("body", "imports", "arguments", "status", "code"),
    [
        ("unreachable", "", (), "trap", "sandbox.trap"),
        ("(call $exit (i32.const 3))", EXIT, (), "trap", "sandbox.exit_status"),
        ("(drop (call $write (i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)))", WRITE, (), "trap",
         "sandbox.bad_argument"),
        ("(loop $l (br $l))", "", ("--deadline", "700ms"), "deadline", "sandbox.deadline"),
        (GROW, "", ("--memory", "1MiB"), "limit", "sandbox.memory_limit"),
        ("", "", ("--memory", "1kB"), "limit", "sandbox.memory_limit"),
        ("", '(import "env" "system" (func))', (), "refused", "sandbox.import_unknown"),
        ("", "", ("--result", "json"), "trap", "sandbox.result_invalid"),
        (CALL_GATE, GATE, ("--qubits", "1"), "trap", "quantum.bad_argument"),
        (CALL_GATE, GATE, ("--level", "quantum"), "refused", "quantum.disabled"),
    ],
)  # fmt: skip
def test_how_a_guest_ends_is_one_word_and_a_code(
    guest: Any,
    capsys: pytest.CaptureFixture[str],
    body: str,
    imports: str,
    arguments: tuple[str, ...],
    status: str,
    code: str,
) -> None:
    ended, document = printed(capsys, "run", guest(body, imports=imports), *arguments, *ANYWHERE)
    assert (ended, document["status"], document["code"]) == (1, status, code)
    assert document["message"]
    assert document["output_b64"] == ""


@pytest.mark.parametrize("action", ["check", "run"])
@pytest.mark.parametrize(
    ("module", "code", "check"),
    [
        (b"(module)", "sandbox.module_invalid", "format"),
        (b"\0asm\x0d\0\1\0", "sandbox.component_given", "layer"),
        (b"\0asm\1\0\0\0\xff", "sandbox.module_invalid", "specification"),
        (b"\0asm\1\0\0\0", "sandbox.entry_point_missing", "entry.present"),
    ],
)
def test_what_is_no_guest_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, module: bytes, code: str, check: str
) -> None:
    path = tmp_path / "module"
    path.write_bytes(module)
    status, document = printed(capsys, action, str(path), *(ANYWHERE if action == "run" else ()))
    assert (status, document["code"]) == (1, code)
    assert f"(check {check}, offset 0x" in document["message"]


def test_a_check_says_what_it_found(guest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = guest("(loop $l (br_if $l (i32.const 0)))")
    status, document = printed(capsys, "check", path, "--level", "high")
    assert (status, document["accepted"], document["entry"], document["functions"]) == (0, True, "command", 1)
    assert (document["loops_without_checkpoint"], document["max_call_depth"]) == (1, 1)
    outcomes = {one["name"]: one["outcome"] for one in document["checks"]}
    assert (outcomes["format"], outcomes["control.loops"], outcomes["memory.maximum"]) == (
        "passed",
        "reported",
        "reported",
    )
    assert "quantum.enabled" not in outcomes
    assert outcome(["sandbox", "check", path]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert "accepted at level high (a command, 1 functions, 0 imports, calls at most 1 deep)" in shown[0]
    assert any(line.startswith("control.loops") and " reported " in line for line in shown)


def test_behind_a_module_that_cannot_be_read_nothing_is_checked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "page.html"
    path.write_bytes(b"<html>")
    status, document = printed(capsys, "check", str(path))
    assert (status, document["accepted"]) == (1, False)
    assert {one["outcome"] for one in document["checks"][1:]} == {"not run"}
    assert outcome(["sandbox", "check", str(path)]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize("action", ["check", "run"])
@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("--level", "paranoid"), "argument --level"),
        (("--memory", "0"), "memory_bytes"),
        (("--memory", "-1"), "argument --memory"),
        (("--memory", "8GiB"), "memory_bytes"),
        (("--memory", "64Mb"), "argument --memory"),
        (("--qubits", "-1"), "qubits"),
        (("--qubits", "25"), "qubits"),
        (("--qubits", "two"), "argument --qubits"),
    ],
)
def test_a_command_that_cannot_be_meant(
    guest: Any, capsys: pytest.CaptureFixture[str], action: str, arguments: tuple[str, ...], field: str
) -> None:
    assert outcome(["sandbox", action, guest(""), *arguments]) == 2
    assert field in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        *(("--deadline", "0s"), ("--deadline", "2"), ("--deadline", "25h"), ("--units", "0"), ("--units", "65")),
        *(("--output-limit", "1GiB"), ("--gpu-memory", "0"), ("--result", "f16"), ("--input", "/no/such/file")),
    ],
)
def test_a_limit_that_no_job_may_have(guest: Any, arguments: tuple[str, ...]) -> None:
    assert outcome(["sandbox", "run", guest(""), *arguments]) == 2


def test_a_module_or_an_input_that_cannot_be_taken(guest: Any, tmp_path: Path) -> None:
    assert outcome(["sandbox", "run", str(tmp_path / "absent")]) == 2
    assert outcome(["sandbox", "check", str(tmp_path)]) == 2
    huge = tmp_path / "huge"
    with huge.open("wb") as file:
        file.truncate(cli.MAX_INPUT_BYTES + 1)
    assert outcome(["sandbox", "run", guest(""), "--input", str(huge)]) == 2


@pytest.mark.parametrize(
    ("code", "field", "status"),
    [
        (errors.LIMIT_OUT_OF_RANGE, "qubits", "refused"),
        (errors.MODULE_TOO_LARGE, "module", "refused"),
        (errors.PROTECTION_MISSING, "", "refused"),
        (errors.IMPORT_UNKNOWN, "module", "refused"),
        (errors.QUANTUM_DISABLED, "module", "refused"),
        (errors.QUANTUM_DISABLED, "", "trap"),
        (errors.QUANTUM_ARGUMENT, "", "trap"),
        (errors.DEVICE_FAULT, "", "trap"),
        (errors.RESULT_INVALID, "result", "trap"),
        (errors.SYSCALL_DENIED, "module", "trap"),
        (errors.MONITOR_KILLED, "memory", "limit"),
        (errors.INPUT_TOO_LARGE, "input", "limit"),
        (errors.BROKER_PROTOCOL, "", "failed"),
        (errors.WORKER_LOST, "module", "failed"),
        (errors.PROCESS_STUCK, "", "failed"),
        (errors.LOCKDOWN_FAILED, "", "failed"),
    ],
)
def test_a_guest_that_ran_was_not_refused(code: Code, field: str, status: str) -> None:
    assert cli.status(errors.SandboxError(code, "It ended.", field=field)) == status


def test_an_output_that_cannot_be_written_is_found_before_the_guest_runs(guest: Any, tmp_path: Path) -> None:
    path = guest("(loop $l (br $l))")
    for place in (tmp_path, tmp_path / "absent" / "output"):
        assert outcome(["sandbox", "run", path, "--output", str(place), *ANYWHERE]) == 2
    kept = tmp_path / "kept"
    kept.write_bytes(b"of an earlier run")
    for place in (kept, tmp_path / "new"):
        assert outcome(["sandbox", "run", path, "--output", str(place), "--deadline", "700ms", *ANYWHERE]) == 1
    assert kept.read_bytes() == b"of an earlier run"
    assert not (tmp_path / "new").exists()


def test_a_module_of_any_size_is_read_no_further_than_it_may_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(1 << 34)
    status, document = printed(capsys, "run", str(path), *ANYWHERE)
    assert (status, document["status"], document["code"]) == (1, "refused", "sandbox.module_too_large")


def test_the_help_lists_the_levels_and_results_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome(["sandbox", "run", "--help"]) == 0
    shown = capsys.readouterr().out.replace("\n", "").replace(" ", "")
    assert "{" + ",".join(Level) + "}" in shown
    assert "{" + ",".join(ResultType) + "}" in shown


def test_more_device_memory_than_the_device_has(guest: Any, capsys: pytest.CaptureFixture[str]) -> None:
    sync = '(import "ringfence" "amd_gpu_sync" (func $sync (param i32) (result i32)))'
    module = guest("(drop (call $sync (i32.const 0)))", imports=sync)
    _, document = printed(capsys, "run", module, "--gpu-memory", "2GiB", *ANYWHERE)
    assert (document["status"], document["code"]) == ("refused", "sandbox.limit_out_of_range")
    assert document["field"] == "gpu_memory_bytes"


def test_a_reactor_that_imports_nothing_gets_its_input(
    guest: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    body = '(func (export "main") (param i32 i32) (result i32) (i32.sub (i32.load8_u (local.get 0)) (i32.const 104)))'
    given = tmp_path / "input"
    given.write_bytes(b"hello")
    status, document = printed(capsys, "run", guest(f"(module {MEMORY} {body})"), "--input", str(given), *ANYWHERE)
    assert (status, document["status"], document["message"]) == (0, "ok", "")
