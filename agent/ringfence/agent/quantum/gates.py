"""The gate table: every gate's number, arity and angle. The numbers are the guests' ABI and never change."""

from __future__ import annotations

import enum
import math

from ringfence.agent.errors import QUANTUM_ARGUMENT, SandboxError


class Gate(enum.Enum):
    """A gate, as (number, qubits it acts on, whether it takes an angle). A controlled gate's first qubit controls."""

    X = (0, 1, False)
    Y = (1, 1, False)
    Z = (2, 1, False)
    H = (3, 1, False)
    S = (4, 1, False)
    T = (5, 1, False)
    RX = (6, 1, True)
    RY = (7, 1, True)
    RZ = (8, 1, True)
    CX = (9, 2, False)
    CZ = (10, 2, False)
    SWAP = (11, 2, False)

    @property
    def number(self) -> int:
        return self.value[0]

    @property
    def arity(self) -> int:
        return self.value[1]

    @property
    def takes_angle(self) -> bool:
        return self.value[2]


class Basis(enum.IntEnum):
    """What a measurement asks: Z, is it |0> or |1>; X, is it |+> or |->."""

    Z = 0
    X = 1


_BY_NUMBER = {gate.number: gate for gate in Gate}


def unpack_gate(number: int, qubits: int) -> tuple[Gate, tuple[int, ...]]:
    """The gate `number` and its qubits, of which `qubits` holds the first in its low 16 bits, the second above.

    Raises `SandboxError` (`quantum.bad_argument`) for a number that is no gate, or a second qubit that the gate does
    not take.
    """
    gate = _BY_NUMBER.get(number)
    if gate is None:
        raise _refused("gate", f"There is no gate number {number}.")
    first, second = qubits & 0xFFFF, qubits >> 16
    if gate.arity == 2:
        return gate, (first, second)
    if second:
        raise _refused("qubits", f"{gate.name} acts on one qubit, but a second one, {second}, was given.")
    return gate, (first,)


def unpack_basis(basis: int) -> Basis:
    """The measurement basis `basis`. Raises `SandboxError` (`quantum.bad_argument`) when it is none."""
    if basis not in (Basis.Z, Basis.X):
        raise _refused("basis", f"There is no measurement basis {basis}; 0 is Z and 1 is X.")
    return Basis(basis)


def check_gate(gate: Gate, qubits: tuple[int, ...], angle: float, total: int) -> None:
    """Raise `quantum.bad_argument` unless `gate` can act on these of `total` qubits with `angle` in radians."""
    if len(qubits) != gate.arity:
        raise _refused("qubits", f"{gate.name} acts on {gate.arity} qubits, not {len(qubits)}.")
    for qubit in qubits:
        check_qubit(qubit, total)
    if len(set(qubits)) != len(qubits):
        raise _refused("qubits", f"{gate.name} needs two different qubits, and both are {qubits[0]}.")
    if not math.isfinite(angle):
        raise _refused("angle", f"{angle} is not a finite angle.")
    if angle != 0.0 and not gate.takes_angle:
        raise _refused("angle", f"{gate.name} takes no angle, but {angle} was given.")


def check_qubit(qubit: int, total: int) -> None:
    """Raise `quantum.bad_argument` unless `qubit` is one of `total`."""
    if not 0 <= qubit < total:
        raise _refused(
            "qubit",
            f"Qubit {qubit} does not exist; this job has {total}, numbered from 0.",
            "Ask for more qubits in the job's limits.",
        )


def _refused(field: str, message: str, hint: str = "See ringfence.h.") -> SandboxError:
    return SandboxError(QUANTUM_ARGUMENT, message, field=field, hint=hint)
