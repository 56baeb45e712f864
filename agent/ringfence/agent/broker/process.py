"""A device broker's process: one job's devices behind an inherited ring.

`prepare` is for once a process, before it forks brokers; `serve_job` is the body of one of them, to its end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ringfence.agent.broker.account import ACCOUNT_BYTES
from ringfence.agent.broker.lockdown import device_bytes, lock_down
from ringfence.agent.broker.serve import Broker
from ringfence.agent.confine import kernel, shares
from ringfence.agent.confine.kernel import die_with_parent
from ringfence.agent.errors import QUANTUM_DISABLED, SandboxError
from ringfence.agent.gpu.devices import BUILT_IN
from ringfence.agent.gpu.port import GpuDevice
from ringfence.agent.mapping import Mapper
from ringfence.agent.quantum.port import QuantumDevice
from ringfence.agent.ring import CROSSING_BYTES, REPLY_BYTES, REQUEST_BYTES, Intake, encode_answer
from ringfence.agent.sandbox.orders import DevicesOrder


@dataclass(frozen=True, slots=True)
class Devices:
    """What brokers share: `open_gpu` opens a device with a pool of that many bytes, for one job; `began_bytes` is the
    address space that each begins with."""

    open_gpu: Callable[[int], GpuDevice]
    began_bytes: int


def prepare(gpu: str = "cpu", *, quantum: bool = True) -> Devices:
    """Make the code of the GPU adapter called `gpu`, and with `quantum` load numpy where it is installed."""
    if quantum:
        # numpy's linear algebra would start threads at import; the device uses none of it.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module("ringfence.agent.quantum.statevector")
    return Devices(BUILT_IN[gpu](), kernel.address_space())


def serve_job(
    devices: Devices, *, channel: int, request: int, reply: int, gpu_memory: int, qubits: int, report: int | None
) -> int:
    """Lock this process down and serve one job until its worker closes its end; the status to exit with.

    Descriptors: `channel` is the broker's end of the job's SOCK_SEQPACKET pair, `request` and `reply` are the ring's
    files (`ringfence.agent.ring`), and `report` is the file (`ringfence.agent.broker.account`) where it counts what it
    executes, if anybody asks. The process must end with `os._exit`: the interpreter's own way out makes system calls
    that it has given up. 2 when
    the job cannot have such devices or the host cannot lock it down, with the reason on standard error.
    """
    try:
        die_with_parent(os.getppid())
        mapper = Mapper()
        nobody = memoryview(bytearray(ACCOUNT_BYTES))
        counted = nobody if report is None else mapper.file(report, ACCOUNT_BYTES, writable=True)
        broker = Broker(devices.open_gpu(gpu_memory), _open_quantum(qubits), counted)
        intake = Intake(mapper.file(request, REQUEST_BYTES, writable=False))
        answers = mapper.file(reply, REPLY_BYTES, writable=True)
        lock_down(
            {channel},
            device_bytes(gpu_memory, qubits),
            began_bytes=devices.began_bytes,
        )
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 2
    serve(channel, intake, answers, broker)
    broker.close()
    return 0


def serve(channel: int, intake: Intake, answers: memoryview, broker: Broker) -> None:
    """Answer crossings until the worker closes its end."""
    # A closed end is an error rather than an end of file when something unread was left in it.
    with contextlib.suppress(ConnectionError):
        # One byte more than a crossing has, so that a longer message is not taken for one.
        while crossing := os.read(channel, CROSSING_BYTES + 1):
            try:
                result = broker.execute(intake.take(crossing))
            except SandboxError as error:
                result = broker.refuse(error)
            answer, payload = encode_answer(intake.consumed, result)
            answers[: len(payload)] = payload
            os.write(channel, answer)


def _open_quantum(qubits: int) -> QuantumDevice | None:
    if qubits == 0:
        return None
    try:
        from ringfence.agent.quantum.statevector import StatevectorDevice
    except ModuleNotFoundError as error:
        raise SandboxError(
            QUANTUM_DISABLED, "This host has no quantum simulator.", hint="Install the extra `quantum` on it."
        ) from error
    return StatevectorDevice(qubits)


def begin(devices: Devices) -> Callable[[DevicesOrder, Sequence[int]], None]:
    """What a zygote's broker does before it knows its job; gives what it does then."""
    die_with_parent(os.getppid())

    def serve_order(order: DevicesOrder, files: Sequence[int]) -> None:
        channel, request, reply, report = files
        shares.take(order.compute_units)
        status = serve_job(
            devices,
            channel=channel,
            request=request,
            reply=reply,
            gpu_memory=order.gpu_memory_bytes,
            qubits=order.qubits,
            report=report,
        )
        if status:
            os._exit(status)

    return serve_order
