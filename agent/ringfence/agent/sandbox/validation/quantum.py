"""The checks of level quantum: enabled, and what constant gates, qubits and bases say before anything runs.

Whatever an argument that is not constant may be is checked by the device broker when the call arrives there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Final

from ringfence.agent.errors import SandboxError
from ringfence.agent.quantum.gates import Gate, check_gate, check_qubit, unpack_basis, unpack_gate
from ringfence.agent.sandbox.imports import IMPORTS
from ringfence.agent.sandbox.validation.arguments import HostCall, host_calls
from ringfence.agent.sandbox.validation.subject import Found, Subject
from ringfence.agent.sandbox.wasm import Flow, FunctionType, Kind, OversizedModule, WasmModule

MAX_CALLS: Final = 100_000
"""How many calls of quantum imports a module may have in its code."""

_MEASURE: Final = "quantum_measure"
_TWO_QUBITS: Final = frozenset(gate.number for gate in Gate if gate.arity == 2)


def enabled(subject: Subject) -> Iterator[Found]:
    """Quantum imports of a job without qubits."""
    if subject.qubits:
        return
    for one in subject.module.imports:
        known = IMPORTS.get((one.module, one.name))
        if known is not None and known.family == "quantum":
            yield Found(True, f"The module imports {one.name}, and the job has no qubits.", one.offset)


def constants(subject: Subject) -> Iterator[Found]:
    """Constant gates, qubits, bases and angles that the job's device does not have."""
    if not subject.qubits:
        return
    for call in _all(subject):
        try:
            _check(call, subject.qubits)
        except SandboxError as error:
            yield Found(True, error.message, call.offset)


def at_run_time(subject: Subject) -> Iterator[Found]:
    """Calls whose arguments only the broker can check."""
    unknown = [call.offset for call in _all(subject) if None in call.arguments]
    if unknown:
        reason = f"{_calls(len(unknown))} with arguments that are checked while the guest runs; the first is here."
        yield Found(False, reason, unknown[0])
    names = _quantum_imports(subject.module)
    referred = {function for segment in subject.module.elements for function in segment.functions}
    referred.update(function for flow in subject.flows for function in flow.references)
    for function in sorted(referred & names.keys()):
        reason = f"{names[function]} may be called through a table; its arguments are checked while the guest runs."
        yield Found(False, reason, subject.end)


def synchronised(subject: Subject) -> Iterator[Found]:
    """Measurements, each of which waits for every gate before it."""
    offsets = [call.offset for call in _all(subject) if call.name == _MEASURE]
    if offsets:
        reason = f"{_calls(len(offsets))} that measure, each of which waits for what was queued; the first is here."
        yield Found(False, reason, offsets[0])


def reuse(subject: Subject) -> Iterator[Found]:
    """Qubits that are used again behind their measurement in the same function."""
    for calls in subject.quantum_calls:
        measured: set[int] = set()
        for call in calls:
            used = _qubits(call)
            for qubit in sorted(used & measured):
                reason = f"Qubit {qubit} is used again after it was measured, in the state that was found."
                yield Found(False, reason, call.offset)
            if call.name == _MEASURE:
                measured |= used


def quantum_calls(code: bytes, module: WasmModule, flows: Sequence[Flow]) -> tuple[tuple[HostCall, ...], ...]:
    """The direct calls of quantum imports, function by function. Raises `OversizedModule` past `MAX_CALLS`."""
    names = _quantum_imports(module)
    found = []
    left = MAX_CALLS
    for body, flow in zip(module.bodies, flows, strict=True):
        if names.keys().isdisjoint(flow.calls[1]):
            continue
        calls = tuple(islice(host_calls(code, module, body, names), left + 1))
        left -= len(calls)
        if left < 0:
            raise OversizedModule("quantum calls", MAX_CALLS + 1, MAX_CALLS, calls[-1].offset)
        found.append(calls)
    return tuple(found)


def _quantum_imports(module: WasmModule) -> dict[int, str]:
    """The quantum functions' indices, of those that have the right type."""
    functions = (one for one in module.imports if one.kind is Kind.FUNCTION)
    names = {}
    for index, one in enumerate(functions):
        known = IMPORTS.get((one.module, one.name))
        if known is not None and known.family == "quantum":
            kind = module.function_type(index)
            if kind == FunctionType(known.parameters, known.results):
                names[index] = one.name
    return names


def _all(subject: Subject) -> Iterator[HostCall]:
    return chain.from_iterable(subject.quantum_calls)


def _check(call: HostCall, total: int) -> None:
    """Raise `SandboxError` when what is constant of the arguments cannot be meant."""
    if call.name == _MEASURE:
        qubit, basis = call.arguments
        if isinstance(qubit, int):
            check_qubit(qubit, total)
        if isinstance(basis, int):
            unpack_basis(basis)
        return
    number, packed, angle = call.arguments
    for qubit in _qubits(call):
        check_qubit(qubit, total)
    if isinstance(number, int):
        gate, qubits = unpack_gate(number, packed if isinstance(packed, int) else 0)
        if isinstance(packed, int):
            check_gate(gate, qubits, angle if isinstance(angle, float) else 0.0, total)


def _qubits(call: HostCall) -> set[int]:
    """The qubits that are surely used. One in the high half of a gate's argument is used if it is not 0."""
    packed = call.arguments[0 if call.name == _MEASURE else 1]
    if not isinstance(packed, int):
        return set()
    if call.name == _MEASURE:
        return {packed}
    number = call.arguments[0]
    return {packed & 0xFFFF, packed >> 16} if packed >> 16 or number in _TWO_QUBITS else {packed & 0xFFFF}


def _calls(count: int) -> str:
    return "There is 1 call" if count == 1 else f"There are {count} calls"
