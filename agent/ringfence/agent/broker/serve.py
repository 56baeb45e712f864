"""Executes a job's command batches on its devices, and counts what they used.

Once something is refused, everything after it is: the commands behind a refused one were written by a guest that
believed it had worked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ringfence.agent.broker import account
from ringfence.agent.broker.account import (
    COMMANDS,
    FORGED_BATCHES,
    GATES,
    LAUNCHES,
    MEASUREMENTS,
    PEAK_GPU_BYTES,
    Usage,
)
from ringfence.agent.errors import BROKER_PROTOCOL, DEVICE_ARGUMENT, MEMORY_LIMIT, QUANTUM_DISABLED, SandboxError
from ringfence.agent.gpu.port import GpuDevice
from ringfence.agent.quantum.gates import unpack_basis, unpack_gate
from ringfence.agent.quantum.port import QuantumDevice
from ringfence.agent.ring import (
    REPLY_BYTES,
    Alloc,
    Command,
    Copy,
    Gate,
    Launch,
    Measure,
    Read,
    Refusal,
    Sync,
    Write,
    decode_batch,
)


class Broker:
    """One job's devices behind `execute`; `quantum` is None for a job without qubits.

    What is executed is counted in `counted`, a mapped file (`ringfence.agent.broker.account`).
    """

    def __init__(self, gpu: GpuDevice, quantum: QuantumDevice | None, counted: memoryview) -> None:
        self._gpu = gpu
        self._quantum_device = quantum
        self._refusal: Refusal | None = None
        self._counted = account.begin(counted)
        # By type: a match statement would try the types one after the other, for every command.
        self._execute: Mapping[type[Command], tuple[Callable[[Any], bytes], int]] = {
            Alloc: (self._alloc, 0),
            Write: (self._write, 0),
            Read: (self._read, 0),
            Copy: (self._copy, 0),
            Launch: (self._launch, LAUNCHES),
            Sync: (self._sync, 0),
            Gate: (self._gate, GATES),
            Measure: (self._measure, MEASUREMENTS),
        }

    @property
    def usage(self) -> Usage:
        """What has been executed so far."""
        return account.read(self._counted)

    def execute(self, batch: bytes) -> bytes | Refusal:
        """The answer to a batch of commands (`ringfence.agent.ring`); after one refusal, always that refusal."""
        if self._refusal is not None:
            return self._refusal
        payload = b""
        try:
            for command in decode_batch(batch):
                execute, figure = self._execute[type(command)]
                payload = execute(command)
                # All of them first: killed in between, the broker has counted less, and nothing that cannot be.
                self._counted[COMMANDS] += 1
                if figure:
                    self._counted[figure] += 1
        except SandboxError as error:
            return self.refuse(error)
        except MemoryError:
            return self.refuse(SandboxError(MEMORY_LIMIT, "The job's device broker ran out of memory."))
        return payload

    def refuse(self, error: SandboxError) -> Refusal:
        """End the job: `error` as an answer, to this and to every later batch."""
        if error.code is BROKER_PROTOCOL:
            self._counted[FORGED_BATCHES] += 1
        self._refusal = Refusal(error.code.name, f"{error.message} {error.hint}".rstrip())
        return self._refusal

    def close(self) -> None:
        """Free both devices."""
        self._gpu.close()
        if self._quantum_device is not None:
            self._quantum_device.close()

    def _alloc(self, command: Alloc) -> bytes:
        address = self._gpu.alloc(command.size)
        self._counted[PEAK_GPU_BYTES] = self._gpu.peak_bytes
        return address.to_bytes(8, "little")

    def _write(self, command: Write) -> bytes:
        self._gpu.write(command.address, command.data)
        return b""

    def _read(self, command: Read) -> bytes:
        if command.length > REPLY_BYTES:
            raise SandboxError(
                DEVICE_ARGUMENT,
                f"A read of {command.length} bytes does not fit into one reply.",
                field="length",
                hint=f"Read at most {REPLY_BYTES} bytes at a time.",
            )
        return self._gpu.read(command.address, command.length)

    def _copy(self, command: Copy) -> bytes:
        self._gpu.copy(command.destination, command.source, command.size)
        return b""

    def _launch(self, command: Launch) -> bytes:
        self._gpu.launch(command.kernel, command.grid, command.block, command.arguments)
        return b""

    def _sync(self, command: Sync) -> bytes:
        if command.stream:
            message = f"Stream {command.stream} does not exist; there is stream 0."
            raise SandboxError(DEVICE_ARGUMENT, message, field="stream")
        self._gpu.sync()
        return b""

    def _gate(self, command: Gate) -> bytes:
        gate, operands = unpack_gate(command.gate, command.qubits)
        self._quantum().apply(gate, operands, command.angle)
        return b""

    def _measure(self, command: Measure) -> bytes:
        outcome = self._quantum().measure(command.qubit, unpack_basis(command.basis))
        return outcome.to_bytes(1, "little")

    def _quantum(self) -> QuantumDevice:
        if self._quantum_device is None:
            raise SandboxError(
                QUANTUM_DISABLED, "This job has no qubits.", hint="Ask for some in the job's limits (`qubits`)."
            )
        return self._quantum_device
