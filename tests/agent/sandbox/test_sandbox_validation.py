"""The checks of each level: what each refuses or reports, from which level, with which code and where."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox import engines
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import MAX_MODULE_BYTES
from ringfence.agent.sandbox.validation import CHECKS, Report, checks, decode_report, encode_report, refusal, validate
from ringfence.agent.sandbox.validation.checking import MAX_FINDINGS
from ringfence.errors import Code

SPECIFIED = "specification"
CATALOGUE = Path(__file__).resolve().parents[3] / "agent" / "ringfence" / "agent" / "gpu" / "catalogue.wasm"
MIB = 1024 * 1024
MEMORY = '(memory (export "memory") 1 1)'
START = '(func (export "_start"))'
PLAIN = f"(module {MEMORY} {START})"
CHECKPOINT = '(import "ringfence" "security_checkpoint" (func $checkpoint (param i32)))'
GATE = '(import "ringfence" "quantum_gate" (func $gate (param i32 i32 f64) (result i32)))'
MEASURE = '(import "ringfence" "quantum_measure" (func $measure (param i32 i32) (result i32)))'


def binary(text: str) -> bytes:
    return bytes(wasmtime.wat2wasm(text))


def report(module: str | bytes, level: Level, *, memory_bytes: int = MIB, qubits: int = 2) -> Report:
    """The report on a module, the runtime's own validation included."""
    machine = engines.engine(engines.profile(level))

    def complaint(code: bytes) -> str:
        try:
            wasmtime.Module.validate(machine, code)
        except wasmtime.WasmtimeError as error:
            return str(error)
        return ""

    code = binary(module) if isinstance(module, str) else module
    return validate(code, level, memory_bytes=memory_bytes, qubits=qubits, specification=complaint)


def refused(module: str | bytes, level: Level, **arguments: int) -> list[str]:
    return [one.check for one in report(module, level, **arguments).findings if one.refused]


def reported(module: str | bytes, level: Level) -> dict[str, int]:
    """Check -> the offset of its first finding that refuses nothing."""
    return {one.check: one.offset for one in reversed(report(module, level).findings) if not one.refused}


@pytest.mark.parametrize("level", list(Level))
def test_a_plain_guest_passes_every_level_without_a_finding(level: Level) -> None:
    found = report(PLAIN, level)
    assert (found.findings, found.entry, found.functions, found.level) == ((), "command", 1, level)
    assert refusal(found) is None


def test_each_level_makes_the_checks_of_those_below_it() -> None:
    names = [[check.name for check in checks(level)] for level in Level]
    for lower, higher in pairwise(names):
        assert set(lower) < set(higher)
    assert names[-1] == list(CHECKS)
    assert all(check.threat and check.hint for check in CHECKS.values())


# A module that nothing but the named check refuses, the level from which it does, and the refusal's code.
REFUSED = [
    ("format", Level.LOW, b"", errors.MODULE_INVALID),
    ("format", Level.LOW, b"(module)", errors.MODULE_INVALID),
    ("format", Level.LOW, b"\0asm\2\0\0\0", errors.MODULE_INVALID),
    ("layer", Level.LOW, b"\0asm\x0d\0\1\0", errors.COMPONENT_GIVEN),
    ("specification", Level.LOW, b"\0asm\1\0\0\0\xff", errors.MODULE_INVALID),
    ("specification", Level.LOW, f"(module {MEMORY} (func (export \"_start\") i32.const 1))", errors.MODULE_INVALID),
    ("specification", Level.LOW, f"(module {MEMORY} (memory 1) {START})", errors.MODULE_INVALID),
    ("specification", Level.LOW, f'(module (memory (export "memory") 1 1 shared) {START})', errors.MODULE_INVALID),
    ("size", Level.LOW, b"\0asm\1\0\0\0" + bytes(MAX_MODULE_BYTES), errors.MODULE_TOO_LARGE),
    ("size", Level.LOW, f"(module {MEMORY} {START} (func (local {'i32 ' * 10_001})))", errors.MODULE_TOO_LARGE),
    ("imports.known", Level.LOW, f'(module (import "env" "system" (func)) {MEMORY} {START})', errors.IMPORT_UNKNOWN),
    ("imports.known", Level.LOW, f'(module (import "ringfence" "g" (global i32)) {MEMORY} {START})',
     errors.IMPORT_UNKNOWN),
    ("imports.known", Level.LOW, f'(module (import "ringfence" "amd_gpu_sync" (global i32)) {MEMORY} {START})',
     errors.IMPORT_UNKNOWN),
    ("imports.known", Level.LOW, f'(module (import "ringfence" "t" (table 1 funcref)) {MEMORY} {START})',
     errors.IMPORT_UNKNOWN),
    ("imports.known", Level.LOW, f'(module (import "wasi_snapshot_preview1" "memory" (memory 1)) {START}'
     ' (export "memory" (memory 0)))', errors.IMPORT_UNKNOWN),
    ("imports.typed", Level.LOW, f'(module (import "ringfence" "amd_gpu_sync" (func (param i64) (result i32))) {MEMORY}'
     f" {START})", errors.IMPORT_UNKNOWN),
    ("entry.present", Level.LOW, f'(module {MEMORY} (func (export "run")))', errors.ENTRY_POINT_MISSING),
    ("entry.present", Level.LOW, f'(module {MEMORY} (global (export "_start") i32 (i32.const 0)))',
     errors.ENTRY_POINT_MISSING),
    ("entry.typed", Level.LOW, f'(module {MEMORY} (func (export "_start") (param i32)))', errors.ENTRY_POINT_TYPE),
    ("entry.typed", Level.LOW, f'(module {MEMORY} (func (export "main") (result i32) (i32.const 0)))',
     errors.ENTRY_POINT_TYPE),
    ("entry.typed", Level.LOW, f'(module {MEASURE} {MEMORY} (export "main" (func $measure)))', errors.ENTRY_POINT_TYPE),
    ("entry.typed", Level.LOW, f'(module {MEMORY} (func (export "main") (param i32 i32) (result i32) (i32.const 0))'
     ' (func (export "ringfence_alloc")))', errors.ENTRY_POINT_TYPE),
    ("entry.typed", Level.LOW, f'(module {MEMORY} (func (export "main") (param i32 i32) (result i32) (i32.const 0))'
     ' (global (export "_initialize") i32 (i32.const 0)))', errors.ENTRY_POINT_TYPE),
    ("memory.exported", Level.LOW, f"(module (memory 1 1) {START})", errors.ENTRY_POINT_MISSING),
    ("memory.exported", Level.LOW, '(module (func (export "main") (param i32 i32) (result i32) (i32.const 0)))',
     errors.ENTRY_POINT_MISSING),
    ("memory.exported", Level.LOW, '(module (import "wasi_snapshot_preview1" "random_get" (func (param i32 i32) (result'
     f" i32))) {START})", errors.ENTRY_POINT_MISSING),
    ("memory.minimum", Level.LOW, f'(module (memory (export "memory") 17) {START})', errors.MEMORY_LIMIT),
    ("table.minimum", Level.LOW, f"(module {MEMORY} {START} (table 600000 600000 funcref)"
     " (table 600000 600000 funcref))", errors.MODULE_REFUSED),
    ("memory.plain", Level.MEDIUM, f'(module (memory (export "memory") i64 1 1) {START})', errors.MODULE_REFUSED),
    ("memory.plain", Level.MEDIUM, f"(module {MEMORY} {START} (table i64 1 1 funcref))", errors.MODULE_REFUSED),
    ("memory.maximum", Level.MEDIUM, f'(module (memory (export "memory") 1 17) {START})', errors.MEMORY_LIMIT),
    ("table.maximum", Level.MEDIUM, f"(module {MEMORY} {START} (table 1 1000001 funcref))", errors.MODULE_REFUSED),
    ("segments.inside", Level.MEDIUM, f'(module {MEMORY} {START} (data (i32.const 65535) "ab"))',
     errors.MODULE_REFUSED),
    ("segments.inside", Level.MEDIUM, f'(module {MEMORY} {START} (data (i32.const -1) "a"))', errors.MODULE_REFUSED),
    ("segments.inside", Level.MEDIUM, f"(module {MEMORY} {START} (table 1 1 funcref) (elem (i32.const 1) 0))",
     errors.MODULE_REFUSED),
    ("specification", Level.HIGH, f"(module {MEMORY} {START} (func $f (return_call $f)))", errors.MODULE_INVALID),
    ("control.features", Level.HIGH, f"(module {MEMORY} {START} (global i32 (i32.add (i32.const 1) (i32.const 2))))",
     errors.MODULE_REFUSED),
    ("control.nesting", Level.HIGH, f"(module {MEMORY} {START} (func {'(block ' * 10_001} {')' * 10_001}))",
     errors.MODULE_TOO_LARGE),
    ("control.tables", Level.HIGH, f'(module {MEMORY} {START} (type $t (func)) (table (export "t") 1 1 funcref)'
     " (func (call_indirect (type $t) (i32.const 0))))", errors.MODULE_REFUSED),
    ("control.start", Level.HIGH, f"(module {CHECKPOINT} {MEMORY} {START} (start $s) (func $s (call $inner))"
     " (func $inner (call $checkpoint (i32.const 1))))", errors.MODULE_REFUSED),
    ("control.start", Level.HIGH, '(module (type $t (func (result i32))) (import "wasi_snapshot_preview1" "sched_yield"'
     f' (func $yield (type $t))) {MEMORY} {START} (table 1 1 funcref) (elem (i32.const 0) $yield) (start $s)'
     " (func $s (drop (call_indirect (type $t) (i32.const 0)))))", errors.MODULE_REFUSED),
    ("quantum.constants", Level.QUANTUM, f"(module {GATE} {MEMORY} (func (export \"_start\")"
     " (drop (call $gate (i32.const 12) (i32.const 0) (f64.const 0)))))", errors.QUANTUM_ARGUMENT),
    ("quantum.constants", Level.QUANTUM, f"(module {MEASURE} {MEMORY} (func (export \"_start\")"
     " (drop (call $measure (i32.const 2) (i32.const 0)))))", errors.QUANTUM_ARGUMENT),
]  # fmt: skip


@pytest.mark.parametrize(("check", "level", "module", "code"), REFUSED)
def test_each_check_refuses_from_its_level_on(check: str, level: Level, module: str | bytes, code: Code) -> None:
    for one in Level:
        applies = list(Level).index(one) >= list(Level).index(level)
        found = refused(module, one)
        # What the locked profile does not have at all is refused by the runtime before any other check.
        assert found == ([check] if applies else []) or (
            one.locked and check == "memory.plain" and found == [SPECIFIED]
        )
    error = refusal(report(module, level))
    assert isinstance(error, SandboxError)
    assert (error.code, error.field) == (code, "module")
    assert f"(check {check}, offset 0x" in error.message
    assert error.hint


@pytest.mark.parametrize(
    ("module", "at"),
    [
        (
            '(module (import "env" "system" (func)) (memory (export "memory") 1) (func (export "_start")))',
            b"\3env\6system",
        ),
        ('(module (memory (export "memory") 1) (func (export "_start") (param i32)))', b"\6_start"),
    ],
)
def test_the_offset_is_that_of_the_fault(module: str, at: bytes) -> None:
    (finding,) = [one for one in report(module, Level.LOW).findings if one.refused]
    assert binary(module).index(at) == finding.offset


def test_the_runtimes_complaint_gives_its_offset() -> None:
    module = f'(module {MEMORY} (func (export "_start") i32.const 1))'
    (finding,) = report(module, Level.LOW).findings
    assert "offset" not in finding.reason
    assert 8 < finding.offset < len(binary(module))


def test_a_command_needs_no_memory_that_nothing_uses() -> None:
    assert refused(f"(module {START})", Level.QUANTUM) == []
    assert (
        refused(f'(module (import "wasi_snapshot_preview1" "proc_exit" (func (param i32))) {START})', Level.HIGH) == []
    )


def test_a_reactor_is_known_by_main_alone() -> None:
    main = '(func (export "main") (param i32 i32) (result i32) (i32.const 0))'
    helpers = '(func (export "_initialize")) (func (export "ringfence_alloc") (param i32) (result i32) (i32.const 0))'
    found = report(f"(module {MEMORY} {main} {helpers})", Level.HIGH)
    assert (found.entry, refusal(found)) == ("reactor", None)
    assert report(f'(module {MEMORY} {START} (func (export "main")))', Level.HIGH).entry == "command"
    assert refused(f'(module (memory (export "memory") i64 1 1) {main})', Level.LOW) == ["entry.typed"]


def test_what_declares_no_maximum_is_reported_not_refused() -> None:
    module = f'(module (memory (export "memory") 1) (table 1 funcref) {START})'
    assert set(reported(module, Level.MEDIUM)) == {"memory.maximum", "table.maximum"}
    assert refused(module, Level.QUANTUM) == []


def test_data_exactly_at_the_end_is_inside() -> None:
    assert (
        refused(f'(module {MEMORY} {START} (data (i32.const 65534) "ab") (data (i32.const 65536) ""))', Level.HIGH)
        == []
    )


def test_a_table_that_the_guest_writes_is_reported() -> None:
    module = f'(module {MEMORY} (table 1 1 funcref) (func (export "_start") (table.set (i32.const 0) (ref.null func))))'
    assert "control.tables" in reported(module, Level.HIGH)
    assert refused(module, Level.HIGH) == []


def test_calls_through_a_table_that_is_exported_for_nothing_else_are_refused_with_the_call() -> None:
    module = f"""(module {MEMORY} {START} (type $t (func)) (table 1 1 funcref) (table (export "shown") 1 1 funcref)
      (func (call_indirect 0 (type $t) (i32.const 0))))"""
    assert refused(module, Level.HIGH) == []


def test_recursion_and_depth() -> None:
    chain = f'(module {MEMORY} (func (export "_start") (call $a)) (func $a (call $b)) (func $b))'
    found = report(chain, Level.HIGH)
    assert (found.recursive, found.max_call_depth) == (False, 3)
    assert report(chain, Level.MEDIUM).max_call_depth is None
    loop = f'(module {MEMORY} (func (export "_start") (call $a)) (func $a (call $b)) (func $b (call $a)))'
    found = report(loop, Level.HIGH)
    assert (found.recursive, found.max_call_depth, refusal(found)) == (True, None, None)
    assert "control.calls" in reported(loop, Level.HIGH)


def test_recursion_through_a_table_counts() -> None:
    module = f"""(module {MEMORY} (type $t (func)) (table 1 1 funcref) (elem (i32.const 0) $again)
      {START} (func $again (call_indirect (type $t) (i32.const 0))))"""
    assert report(module, Level.HIGH).recursive
    other_type = module.replace("(call_indirect (type $t)", "(call_indirect (param i32) (i32.const 0)")
    assert not report(other_type, Level.HIGH).recursive


def test_loops_without_a_checkpoint_are_counted() -> None:
    def looping(inside: str) -> str:
        return f"""(module {CHECKPOINT} {MEMORY} (func (export "_start") (loop $l {inside} (br_if $l (i32.const 1))))
          (func $reports (call $checkpoint (i32.const 1))) (func $silent))"""

    assert report(looping(""), Level.HIGH).loops_without_checkpoint == 1
    assert report(looping("(call $silent)"), Level.HIGH).loops_without_checkpoint == 1
    assert report(looping("(call $checkpoint (i32.const 1))"), Level.HIGH).loops_without_checkpoint == 0
    assert report(looping("(call $reports)"), Level.HIGH).loops_without_checkpoint == 0
    assert report(looping(""), Level.MEDIUM).loops_without_checkpoint == 0
    outer = looping("(loop $m (br_if $m (i32.const 0))) (call $reports)")
    found = report(outer, Level.HIGH)
    assert found.loops_without_checkpoint == 1
    assert found.findings[-1].offset == binary(outer).rindex(b"\x03\x40")


def test_a_checkpoint_outside_the_loop_does_not_count() -> None:
    module = f"""(module {CHECKPOINT} {MEMORY} (func (export "_start") (call $checkpoint (i32.const 1))
      (loop $l (br_if $l (i32.const 1))) (call $checkpoint (i32.const 2))))"""
    assert report(module, Level.HIGH).loops_without_checkpoint == 1


def test_findings_are_bounded_and_what_is_left_out_is_counted() -> None:
    imports = "".join(f'(import "env" "f{number}" (func))' for number in range(100))
    found = [one for one in report(f"(module {imports} {MEMORY} {START})", Level.LOW).findings if one.refused]
    assert len(found) == MAX_FINDINGS + 1
    assert f"found {100 - MAX_FINDINGS} more" in found[-1].reason


def test_names_cannot_write_to_the_terminal_or_fill_a_message() -> None:
    module = rf'(module (import "\1b[2J\0a" "{"x" * 5000}" (func)) {MEMORY} {START})'
    error = refusal(report(module, Level.LOW))
    assert error is not None
    assert error.message.isprintable()
    assert len(error.message) < 480


def test_a_report_survives_its_journey_and_nothing_else_does() -> None:
    found = report(f"(module {CHECKPOINT} {MEMORY} {START})", Level.QUANTUM)
    assert found.imports == (("ringfence", "security_checkpoint"),)
    assert decode_report(encode_report(found)) == found
    for data in (
        b"",
        b"{}",
        b"\xff",
        encode_report(found)[:-1],
        encode_report(found).replace(b'"functions":1', b'"functions":-1'),
    ):
        with pytest.raises(SandboxError) as caught:
            decode_report(data)
        assert caught.value.code == errors.WORKER_LOST


def test_real_code_passes_what_applies_to_it() -> None:
    # The catalogue is no guest, so only its entry point and its imports are wrong.
    assert set(refused(CATALOGUE.read_bytes(), Level.HIGH, memory_bytes=1 << 31)) <= {"imports.known", "entry.present"}


RICH = binary(f"""(module {CHECKPOINT} {GATE} {MEASURE} {MEMORY} (type $t (func)) (table 2 2 funcref)
  (elem (i32.const 0) $f)
  (global (mut i32) (i32.const 1)) (data (i32.const 8) "abc") (start $f)
  (func $f (loop $l (call $checkpoint (i32.const 1)) (br_if $l (i32.const 0))) (call_indirect (type $t) (i32.const 1)))
  (func (export "_start") (drop (call $gate (i32.const 9) (i32.const 65536) (f64.const 0)))
    (drop (call $measure (i32.const 1) (i32.const 0)))))""")


@given(st.sampled_from(list(Level)), st.integers(0, len(RICH)), st.binary(max_size=6), st.integers(0, 6))
def test_any_bytes_give_a_report(level: Level, at: int, change: bytes, dropped: int) -> None:
    code = RICH[:at] + change + RICH[at + dropped :]
    found = validate(code, level, memory_bytes=MIB, qubits=2)
    assert decode_report(encode_report(found)) == found
    assert found.refused == (refusal(found) is not None)
