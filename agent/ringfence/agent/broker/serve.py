"""Executes a job's command batches on its devices, and counts what they used.

Once something is refused, everything after it is: the commands behind a refused one were written by a guest that
believed it had worked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ringfence.agent.errors import DEVICE_ARGUMENT, MEMORY_LIMIT, QUANTUM_DISABLED, SandboxError
from ringfence.agent.gpu.port import GpuDevice
from ringfence.agent.quantum.gates import unpack_basis, unpack_gate
from ringfence.agent.quantum.port import QuantumDevice
from ringfence.agent.ring import (
    MAX_FRAME,
    Alloc,
    Checkpoint,
    Command,
    Copy,
    Gate,
    Launch,
    Measure,
    Read,
    Reply,
    Sync,
    Write,
    decode_batch,
)

MAX_READ = MAX_FRAME - 64  # a reply carries at most as much as a write


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job did with its devices. Only what was executed counts; `peak_gpu_bytes` is its pool at its fullest."""

    commands: int
    launches: int
    gates: int
    measurements: int
    checkpoints: int
    peak_gpu_bytes: int

    def report(self) -> bytes:
        """One line of JSON with these names. By the standard library: msgspec would cost each job 20 ms of start-up."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Broker:
    """One job's devices behind `execute`; `quantum` is None for a job without qubits."""

    def __init__(self, gpu: GpuDevice, quantum: QuantumDevice | None) -> None:
        self._gpu = gpu
        self._quantum_device = quantum
        self._refusal: Reply | None = None
        self._commands = self._launches = self._gates = self._measurements = self._checkpoints = 0

    @property
    def usage(self) -> Usage:
        """What has been executed so far."""
        return Usage(
            commands=self._commands,
            launches=self._launches,
            gates=self._gates,
            measurements=self._measurements,
            checkpoints=self._checkpoints,
            peak_gpu_bytes=self._gpu.peak_bytes,
        )

    def execute(self, batch: bytes) -> Reply:
        """The reply to a batch of commands (`ringfence.agent.ring`); after one refusal, always that refusal."""
        if self._refusal is not None:
            return self._refusal
        payload = b""
        try:
            for command in decode_batch(batch):
                payload = self._execute_one(command)
                self._commands += 1
        except SandboxError as error:
            return self.refuse(error)
        except MemoryError:
            return self.refuse(SandboxError(MEMORY_LIMIT, "The job's device broker ran out of memory."))
        return Reply(payload=payload)

    def refuse(self, error: SandboxError) -> Reply:
        """End the job: `error` as a reply, to this and to every later batch."""
        message = f"{error.message} {error.hint}".rstrip()
        self._refusal = Reply(code=error.code.name, message=message)
        return self._refusal

    def close(self) -> None:
        """Free both devices."""
        self._gpu.close()
        if self._quantum_device is not None:
            self._quantum_device.close()

    def _execute_one(self, command: Command) -> bytes:
        match command:
            case Alloc(size):
                return self._gpu.alloc(size).to_bytes(8, "little")
            case Write(address, data):
                self._gpu.write(address, data)
            case Read(address, length):
                if length > MAX_READ:
                    raise SandboxError(
                        DEVICE_ARGUMENT,
                        f"A read of {length} bytes does not fit into one reply.",
                        field="length",
                        hint=f"Read at most {MAX_READ} bytes at a time.",
                    )
                return self._gpu.read(address, length)
            case Copy(destination, source, size):
                self._gpu.copy(destination, source, size)
            case Launch(kernel, grid, block, arguments):
                self._gpu.launch(kernel, grid, block, arguments)
                self._launches += 1
            case Sync(stream):
                if stream:
                    raise SandboxError(DEVICE_ARGUMENT, f"Stream {stream} does not exist; there is stream 0.")
                self._gpu.sync()
            case Gate(number, qubits, angle):
                gate, operands = unpack_gate(number, qubits)
                self._quantum().apply(gate, operands, angle)
                self._gates += 1
            case Measure(qubit, basis):
                outcome = self._quantum().measure(qubit, unpack_basis(basis))
                self._measurements += 1
                return outcome.to_bytes(1, "little")
            case Checkpoint():
                self._checkpoints += 1
        return b""

    def _quantum(self) -> QuantumDevice:
        if self._quantum_device is None:
            raise SandboxError(
                QUANTUM_DISABLED, "This job has no qubits.", hint="Ask for some in the job's limits (`qubits`)."
            )
        return self._quantum_device
