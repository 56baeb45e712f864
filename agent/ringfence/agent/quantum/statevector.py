"""The statevector device: an exact simulation of up to 24 qubits in numpy.

Qubit q is bit q of the state's index. The state, 16 bytes times 2 to the number of qubits, is made at the first gate
or measurement. Angles follow OpenQASM 3: RX, RY and RZ are exp(-i angle P / 2).
"""

from __future__ import annotations

import cmath
import math
import secrets
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ringfence.agent.errors import QUANTUM_ARGUMENT, SandboxError
from ringfence.agent.quantum.gates import Basis, Gate, check_gate, check_qubit

MAX_QUBITS = 24

Amplitudes = npt.NDArray[np.complex128]
Matrix = tuple[complex, complex, complex, complex]

_HALF = math.sqrt(0.5)


def _system_random() -> float:
    return secrets.randbits(53) * 2.0**-53


class StatevectorDevice:
    """A `QuantumDevice` of `qubits` qubits, 1 to 24; `random` gives numbers in [0, 1), one for each measurement.

    Raises `quantum.bad_argument` for another number of qubits.
    """

    def __init__(self, qubits: int, random: Callable[[], float] = _system_random) -> None:
        if not 1 <= qubits <= MAX_QUBITS:
            raise SandboxError(
                QUANTUM_ARGUMENT,
                f"The statevector device has no state of {qubits} qubits.",
                field="qubits",
                hint=f"Ask for 1 to {MAX_QUBITS}.",
            )
        self._qubits = qubits
        self._random = random
        self._state: Amplitudes | None = None

    @property
    def qubits(self) -> int:
        """How many qubits the job has."""
        return self._qubits

    def amplitudes(self) -> Amplitudes:
        """A copy of the state, complex128 of shape (2 ** qubits,)."""
        return self._amplitudes().copy()

    def apply(self, gate: Gate, qubits: tuple[int, ...], angle: float) -> None:
        """See `QuantumDevice.apply`."""
        check_gate(gate, qubits, angle, self._qubits)
        state = self._amplitudes()
        match gate:
            case Gate.CX:
                control, target = qubits
                _exchange(self._quarter(state, {control: 1, target: 0}), self._quarter(state, {control: 1, target: 1}))
            case Gate.CZ:
                first, second = qubits
                self._quarter(state, {first: 1, second: 1})[...] *= -1
            case Gate.SWAP:
                first, second = qubits
                _exchange(self._quarter(state, {first: 0, second: 1}), self._quarter(state, {first: 1, second: 0}))
            case _:
                _transform(self._halves(state, qubits[0]), _matrix(gate, angle))

    def measure(self, qubit: int, basis: Basis) -> int:
        """See `QuantumDevice.measure`."""
        check_qubit(qubit, self._qubits)
        state = self._amplitudes()
        if basis is Basis.X:
            _transform(self._halves(state, qubit), _matrix(Gate.H, 0.0))
        halves = self._halves(state, qubit)
        weights = _weights(halves)
        # The state's norm drifts by rounding, so the weights are compared with their own sum.
        outcome = int(self._random() < weights[1] / (weights[0] + weights[1]))
        kept = np.zeros((2, 1))
        kept[outcome] = 1.0 / math.sqrt(weights[outcome])
        halves *= kept
        if basis is Basis.X:
            _transform(self._halves(state, qubit), _matrix(Gate.H, 0.0))
        return outcome

    def close(self) -> None:
        """See `QuantumDevice.close`."""
        self._state = None

    def _amplitudes(self) -> Amplitudes:
        if self._state is None:
            self._state = np.zeros(1 << self._qubits, dtype=np.complex128)
            self._state[0] = 1.0
        return self._state

    def _halves(self, state: Amplitudes, qubit: int) -> Amplitudes:
        """A view of shape (higher qubits, 2, lower qubits)."""
        return state.reshape(-1, 2, 1 << qubit)

    def _quarter(self, state: Amplitudes, bits: dict[int, int]) -> Amplitudes:
        """A view of the amplitudes in which two qubits have the given bits."""
        low, high = sorted(bits)
        view = state.reshape(-1, 2, 1 << (high - low - 1), 2, 1 << low)
        return view[:, bits[high], :, bits[low], :]


def _transform(halves: Amplitudes, matrix: Matrix) -> None:
    a, b, c, d = matrix
    zero, one = halves[:, 0, :], halves[:, 1, :]
    new_zero = a * zero + b * one
    one *= d
    one += c * zero
    zero[...] = new_zero


def _exchange(first: Amplitudes, second: Amplitudes) -> None:
    kept = first.copy()
    first[...] = second
    second[...] = kept


def _weights(halves: Amplitudes) -> list[float]:
    """The squared norm of each half, without a copy of the state."""
    parts = halves.view(np.float64)
    return np.einsum("ijk,ijk->j", parts, parts).tolist()  # type: ignore[no-any-return]


def _matrix(gate: Gate, angle: float) -> Matrix:
    """The 2 by 2 matrix of a one-qubit gate, row by row."""
    cos, sin = math.cos(angle / 2), math.sin(angle / 2)
    match gate:
        case Gate.X:
            return (0, 1, 1, 0)
        case Gate.Y:
            return (0, -1j, 1j, 0)
        case Gate.Z:
            return (1, 0, 0, -1)
        case Gate.H:
            return (_HALF, _HALF, _HALF, -_HALF)
        case Gate.S:
            return (1, 0, 0, 1j)
        case Gate.T:
            return (1, 0, 0, cmath.rect(1.0, math.pi / 4))
        case Gate.RX:
            return (cos, -1j * sin, -1j * sin, cos)
        case Gate.RY:
            return (cos, -sin, sin, cos)
        case Gate.RZ:
            return (cmath.rect(1.0, -angle / 2), 0, 0, cmath.rect(1.0, angle / 2))
        case _:
            raise ValueError(f"{gate.name} is not a one-qubit gate")
