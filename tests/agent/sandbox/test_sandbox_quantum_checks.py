"""What the level quantum knows of a circuit before it runs."""

from __future__ import annotations

import pytest
import wasmtime

from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.validation import Finding, refusal, validate
from ringfence.agent.sandbox.validation.quantum import MAX_CALLS

GATE = '(import "ringfence" "quantum_gate" (func $gate (param i32 i32 f64) (result i32)))'
MEASURE = '(import "ringfence" "quantum_measure" (func $measure (param i32 i32) (result i32)))'
MEMORY = '(memory (export "memory") 1 1)'


def guest(body: str, more: str = "") -> bytes:
    return bytes(wasmtime.wat2wasm(f'(module {GATE} {MEASURE} {MEMORY} {more} (func (export "_start") {body}))'))


def gate(number: str, qubits: str, angle: str = "(f64.const 0)") -> str:
    return f"(drop (call $gate {number} {qubits} {angle}))"


def measure(qubit: str, basis: str = "(i32.const 0)") -> str:
    return f"(drop (call $measure {qubit} {basis}))"


def i32(value: int) -> str:
    return f"(i32.const {value})"


def found(code: bytes, check: str, *, qubits: int = 3, level: Level = Level.QUANTUM) -> list[Finding]:
    report = validate(code, level, memory_bytes=1 << 20, qubits=qubits)
    return [one for one in report.findings if one.check == check]


def test_quantum_imports_need_qubits_at_level_quantum_alone() -> None:
    code = guest(gate(i32(0), i32(0)))
    refused = found(code, "quantum.enabled", qubits=0)
    assert [one.refused for one in refused] == [True, True]
    assert found(code, "quantum.enabled", qubits=1) == []
    assert found(code, "quantum.enabled", qubits=0, level=Level.HIGH) == []
    # What has no device has no qubits to be wrong about.
    assert found(code, "quantum.constants", qubits=0) == []


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (gate(i32(12), i32(0)), "no gate number 12"),
        (gate(i32(-1), i32(0)), "no gate number 4294967295"),
        (gate(i32(3), i32(3)), "Qubit 3 does not exist"),
        (gate(i32(3), i32(1 | 1 << 16)), "acts on one qubit"),
        (gate(i32(9), i32(1 | 1 << 16)), "two different qubits"),
        (gate(i32(9), i32(1 | 3 << 16)), "Qubit 3 does not exist"),
        (gate(i32(9), i32(1)), ""),
        (gate(i32(0), i32(0), "(f64.const 1)"), "takes no angle"),
        (gate(i32(6), i32(0), "(f64.const nan)"), "not a finite angle"),
        (gate(i32(6), i32(0), "(f64.const inf)"), "not a finite angle"),
        (gate(i32(6), i32(0), "(f64.const 1.5)"), ""),
        (measure(i32(3)), "Qubit 3 does not exist"),
        (measure(i32(0), i32(2)), "no measurement basis 2"),
        (measure(i32(2), i32(1)), ""),
        ("(local i32)" + gate("(local.get 0)", i32(7)), "Qubit 7 does not exist"),
        ("(local i32)" + gate(i32(99), "(local.get 0)"), "no gate number 99"),
        ("(local i32)" + measure("(local.get 0)", i32(9)), "no measurement basis 9"),
        ("(local f64)" + gate(i32(0), i32(9), "(local.get 0)"), "Qubit 9 does not exist"),
    ],
)
def test_constant_arguments_are_checked_where_they_are_constant(body: str, why: str) -> None:
    code = guest(body)
    refused = found(code, "quantum.constants")
    assert [one.refused for one in refused] == ([True] if why else [])
    if why:
        assert why in refused[0].reason
        assert code[refused[0].offset] == 0x10


@pytest.mark.parametrize(
    ("body", "unknown"),
    [
        (gate(i32(0), i32(0)), 0),
        (gate(i32(0), "(i32.add (i32.const 1) (i32.const 90))"), 1),
        (gate(i32(0), "(i32.load (i32.const 99))"), 1),
        (gate(i32(0), "(select (i32.const 88) (i32.const 99) (i32.const 1))"), 1),
        ("(i32.const 9) (i32.const 9) (block (result f64) (f64.const 0)) (call $gate) drop", 1),
        ("(i32.const 9) (i32.const 9) (f64.const 1) (nop) (f64.neg) (call $gate) drop", 1),
        (measure("(memory.size)"), 1),
        ("(local i32) (local.set 0 (i32.const 9))" + measure("(local.get 0)"), 1),
        (measure("(call $measure (i32.const 0) (i32.const 0))"), 1),
        (measure("(i32.trunc_sat_f64_s (f64.const 9))"), 1),
    ],
)
def test_what_is_not_surely_constant_is_left_to_the_broker(body: str, unknown: int) -> None:
    code = guest(body)
    reported = found(code, "quantum.runtime")
    assert [one.refused for one in reported] == [False] * unknown
    report = validate(code, Level.QUANTUM, memory_bytes=1 << 20, qubits=3)
    # The third argument of the sixth is unknown, the other two are refused.
    assert (refusal(report) is None) == ("(f64.neg)" not in body)


def test_a_constant_below_what_a_call_takes_stays_one() -> None:
    body = f"(i32.const 7) {measure(i32(0))} (i32.const 0) (call $measure) drop"
    assert [one.reason for one in found(guest(body), "quantum.constants")] == [
        "Qubit 7 does not exist; this job has 3, numbered from 0."
    ]


def test_measurements_are_reported_as_synchronisations() -> None:
    (reported,) = found(guest(measure(i32(0)) + measure(i32(1))), "quantum.synchronised")
    assert (reported.refused, reported.reason.split(" that")[0]) == (False, "There are 2 calls")
    assert found(guest(gate(i32(0), i32(0))), "quantum.synchronised") == []


@pytest.mark.parametrize(
    ("body", "again"),
    [
        (measure(i32(0)) + gate(i32(0), i32(0)), 1),
        (measure(i32(0)) + measure(i32(0)), 1),
        (measure(i32(1)) + gate(i32(9), i32(0 | 1 << 16)), 1),
        (measure(i32(0)) + gate(i32(9), i32(1 << 16)), 1),
        (gate(i32(0), i32(0)) + measure(i32(0)), 0),
        (measure(i32(0)) + gate(i32(0), i32(1)), 0),
        ("(local i32)" + measure("(local.get 0)") + gate(i32(0), i32(0)), 0),
    ],
)
def test_a_measured_qubit_that_is_used_again_is_legal_and_reported(body: str, again: int) -> None:
    code = guest(body)
    assert [one.refused for one in found(code, "quantum.reuse")] == [False] * again
    assert refusal(validate(code, Level.QUANTUM, memory_bytes=1 << 20, qubits=3)) is None


def test_a_quantum_import_in_a_table_is_reported() -> None:
    code = guest("", "(table 1 1 funcref) (elem (i32.const 0) $gate)")
    (reported,) = found(code, "quantum.runtime")
    assert (reported.refused, "through a table" in reported.reason) == (False, True)


def test_an_import_of_another_type_is_no_circuit() -> None:
    other = '(import "ringfence" "quantum_gate" (func $other (param i64)))'
    text = f'(module {other} {MEMORY} (func (export "_start") (call $other (i64.const 1))))'
    report = validate(bytes(wasmtime.wat2wasm(text)), Level.QUANTUM, memory_bytes=1 << 20, qubits=1)
    assert [one.check for one in report.findings] == ["imports.typed"]


def test_more_calls_than_are_followed_are_refused() -> None:
    code = guest(measure(i32(0)) * (MAX_CALLS + 1))
    report = validate(code, Level.QUANTUM, memory_bytes=1 << 20, qubits=1)
    assert [one.check for one in report.findings] == ["size"]
