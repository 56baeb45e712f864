"""The statevector device against explicit matrices, and its refusals."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.errors import QUANTUM_ARGUMENT, SandboxError
from ringfence.agent.quantum.gates import Basis, Gate, unpack_basis, unpack_gate
from ringfence.agent.quantum.statevector import MAX_QUBITS, StatevectorDevice

Array = npt.NDArray[np.complex128]
Step = tuple[Gate, tuple[int, ...], float]

PAULIS = {
    Gate.X: np.array([[0, 1], [1, 0]], complex),
    Gate.Y: np.array([[0, -1j], [1j, 0]], complex),
    Gate.Z: np.array([[1, 0], [0, -1]], complex),
}
ROTATIONS = {Gate.RX: Gate.X, Gate.RY: Gate.Y, Gate.RZ: Gate.Z}
IDENTITY = np.eye(2, dtype=complex)
ZERO, ONE = np.diag([1, 0]).astype(complex), np.diag([0, 1]).astype(complex)


def on(total: int, factors: dict[int, Array]) -> Array:
    """The Kronecker product with `factors[q]` on qubit q, the highest qubit leftmost."""
    product: Array = np.eye(1, dtype=complex)
    for qubit in reversed(range(total)):
        product = np.kron(product, factors.get(qubit, IDENTITY)).astype(np.complex128)
    return product


def matrix(gate: Gate, qubits: tuple[int, ...], angle: float, total: int) -> Array:
    """A gate on all qubits, from its textbook definition."""
    x, z = PAULIS[Gate.X], PAULIS[Gate.Z]
    match gate:
        case Gate.CX | Gate.CZ:
            control, target = qubits
            acting = x if gate is Gate.CX else z
            return on(total, {control: ZERO}) + on(total, {control: ONE, target: acting})
        case Gate.SWAP:
            first, second = qubits
            pauli_products = [on(total, {first: pauli, second: pauli}) for pauli in PAULIS.values()]
            return 0.5 * (on(total, {}) + sum(pauli_products[1:], pauli_products[0]))
        case Gate.H:
            return on(total, {qubits[0]: (x + z) / math.sqrt(2)})
        case Gate.S:
            return on(total, {qubits[0]: ZERO + 1j * ONE})
        case Gate.T:
            return on(total, {qubits[0]: ZERO + cmath.exp(0.25j * math.pi) * ONE})
        case Gate.RX | Gate.RY | Gate.RZ:
            pauli = PAULIS[ROTATIONS[gate]]
            return on(total, {qubits[0]: math.cos(angle / 2) * IDENTITY - 1j * math.sin(angle / 2) * pauli})
        case _:
            return on(total, {qubits[0]: PAULIS[gate]})


@st.composite
def circuits(draw: st.DrawFn) -> tuple[int, list[Step]]:
    total = draw(st.integers(2, 5))
    steps: list[Step] = []
    for gate in draw(st.lists(st.sampled_from(list(Gate)), max_size=25)):
        chosen = draw(st.lists(st.integers(0, total - 1), min_size=gate.arity, max_size=gate.arity, unique=True))
        angle = draw(st.floats(-100, 100)) if gate.takes_angle else 0.0
        steps.append((gate, tuple(chosen), angle))
    return total, steps


def scripted(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


@given(circuits())
def test_a_random_circuit_agrees_with_explicit_matrices(circuit: tuple[int, list[Step]]) -> None:
    total, steps = circuit
    device = StatevectorDevice(total)
    expected = np.zeros(2**total, complex)
    expected[0] = 1
    for gate, qubits, angle in steps:
        device.apply(gate, qubits, angle)
        expected = matrix(gate, qubits, angle, total) @ expected
    assert np.allclose(device.amplitudes(), expected, atol=1e-12)


@given(circuits(), st.sampled_from(Basis), st.floats(0, 1, exclude_max=True))
def test_a_measurement_projects_as_born_says(circuit: tuple[int, list[Step]], basis: Basis, drawn: float) -> None:
    total, steps = circuit
    device = StatevectorDevice(total, scripted(drawn, drawn))
    for gate, qubits, angle in steps:
        device.apply(gate, qubits, angle)
    before = device.amplitudes()
    observable = PAULIS[Gate.X] if basis is Basis.X else PAULIS[Gate.Z]
    projected = [on(total, {1: (IDENTITY + sign * observable) / 2}) @ before for sign in (1, -1)]
    chance_of_one = float(np.vdot(projected[1], projected[1]).real)
    outcome = device.measure(1, basis)
    if abs(drawn - chance_of_one) > 1e-9:
        assert outcome == int(drawn < chance_of_one)
        expected = projected[outcome] / np.linalg.norm(projected[outcome])
        assert np.allclose(device.amplitudes(), expected, atol=1e-9)
    assert np.isclose(np.linalg.norm(device.amplitudes()), 1)
    assert device.measure(1, basis) == outcome


@pytest.mark.parametrize("basis", Basis)
def test_a_bell_pair_agrees_in_both_bases(basis: Basis) -> None:
    outcomes = set()
    for _ in range(40):
        device = StatevectorDevice(2)
        device.apply(Gate.H, (0,), 0.0)
        device.apply(Gate.CX, (0, 1), 0.0)
        first = device.measure(0, basis)
        assert device.measure(1, basis) == first
        outcomes.add(first)
    assert outcomes == {0, 1}  # fails by chance once in 2^39


def test_a_circuit_continues_after_a_measurement() -> None:
    device = StatevectorDevice(2, scripted(0.2, 0.999))
    device.apply(Gate.H, (0,), 0.0)
    assert device.measure(0, Basis.Z) == 1
    device.apply(Gate.CX, (0, 1), 0.0)
    assert device.measure(1, Basis.Z) == 1
    assert np.allclose(device.amplitudes(), [0, 0, 0, 1])


def test_a_certain_outcome_does_not_depend_on_the_number_drawn() -> None:
    for drawn in (0.0, 1 - 2**-53):
        device = StatevectorDevice(1, scripted(drawn, drawn))
        assert device.measure(0, Basis.Z) == 0
        device.apply(Gate.X, (0,), 0.0)
        assert device.measure(0, Basis.Z) == 1


def test_the_state_is_made_at_the_first_gate_and_forgotten_at_the_end() -> None:
    device = StatevectorDevice(MAX_QUBITS)
    device.close()
    device.close()
    assert device.qubits == MAX_QUBITS


@pytest.mark.parametrize("qubits", [-1, 0, MAX_QUBITS + 1, 65_535])
def test_a_number_of_qubits_out_of_range_is_refused(qubits: int) -> None:
    with pytest.raises(SandboxError) as caught:
        StatevectorDevice(qubits)
    assert (caught.value.code, caught.value.field) == (QUANTUM_ARGUMENT, "qubits")


def refused() -> list[Callable[[], object]]:
    device = StatevectorDevice(2)
    return [
        lambda: device.apply(Gate.H, (2,), 0.0),
        lambda: device.apply(Gate.H, (-1,), 0.0),
        lambda: device.apply(Gate.H, (0, 1), 0.0),
        lambda: device.apply(Gate.H, (0,), 1.0),
        lambda: device.apply(Gate.CX, (1, 1), 0.0),
        lambda: device.apply(Gate.CX, (0, 2), 0.0),
        lambda: device.apply(Gate.CX, (0,), 0.0),
        lambda: device.apply(Gate.RX, (0,), math.nan),
        lambda: device.apply(Gate.RX, (0,), math.inf),
        lambda: device.apply(Gate.X, (0,), math.nan),
        lambda: device.measure(2, Basis.Z),
        lambda: unpack_gate(12, 0),
        lambda: unpack_gate(Gate.H.number, 1 << 16),
        lambda: unpack_basis(2),
    ]


@pytest.mark.parametrize("call", refused())
def test_a_bad_argument_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(SandboxError) as caught:
        call()
    assert caught.value.code is QUANTUM_ARGUMENT


def test_gate_numbers_are_the_guests_abi() -> None:
    names = ["X", "Y", "Z", "H", "S", "T", "RX", "RY", "RZ", "CX", "CZ", "SWAP"]
    assert [(gate.number, gate.name) for gate in Gate] == list(enumerate(names))
    assert unpack_gate(9, 2 | 5 << 16) == (Gate.CX, (2, 5))
    assert unpack_gate(3, 7) == (Gate.H, (7,))
    assert unpack_basis(1) is Basis.X
