"""The quantum port: what a job's quantum device must do, whether it is simulated or real."""

from __future__ import annotations

from typing import Protocol

from ringfence.agent.quantum.gates import Basis, Gate


class QuantumDevice(Protocol):
    """One job's qubits, all |0> at first. Every failure is a `SandboxError` with a `quantum.*` code."""

    @property
    def qubits(self) -> int:
        """How many qubits the job has, numbered from 0."""

    def apply(self, gate: Gate, qubits: tuple[int, ...], angle: float) -> None:
        """Apply `gate` to `qubits`, with `angle` in radians (0 where it takes none); raises `quantum.bad_argument`."""

    def measure(self, qubit: int, basis: Basis) -> int:
        """Measure one qubit, 0 or 1, and leave it in the state that was found; raises `quantum.bad_argument`."""

    def close(self) -> None:
        """Forget the state. A device is not used after it; closing twice does nothing."""
