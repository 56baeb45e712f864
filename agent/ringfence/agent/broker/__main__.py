"""The device broker's process: one job's devices behind an inherited socket.

    python -m ringfence.agent.broker --fd N --gpu-memory BYTES --qubits N [--report-fd M]

It reads frames (`ringfence.agent.ring`) from descriptor N, answers each batch, and exits with 0 when the job's worker
closes its end; then it writes one line of JSON, a `Usage`, to descriptor M.
"""

from __future__ import annotations

import argparse
import os
import sys
from io import FileIO

from ringfence.agent.broker.lockdown import lock_down
from ringfence.agent.broker.serve import Broker
from ringfence.agent.confine.kernel import die_with_parent
from ringfence.agent.errors import SandboxError
from ringfence.agent.gpu.devices import BUILT_IN
from ringfence.agent.quantum.port import QuantumDevice
from ringfence.agent.ring import encode_reply, frame, frame_length

_HEADER = 4
_AMPLITUDE_BYTES = 16


def main() -> int:
    """Parse the command line, lock down, serve, report."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.agent.broker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the broker's end of the job's socket pair")
    parser.add_argument("--gpu-memory", type=int, required=True, help="bytes of device memory the job may allocate")
    parser.add_argument("--qubits", type=int, required=True, help="qubits of the job; 0 refuses every quantum command")
    parser.add_argument("--report-fd", type=int, help="where to write what the job used, as one line of JSON")
    parser.add_argument("--gpu", choices=sorted(BUILT_IN), default="cpu", help="the GPU adapter (default: cpu)")
    arguments = parser.parse_args()
    try:
        die_with_parent(os.getppid())
        broker = Broker(BUILT_IN[arguments.gpu](arguments.gpu_memory), _open_quantum(arguments.qubits))
        keep = {arguments.fd} | ({arguments.report_fd} if arguments.report_fd is not None else set())
        # Never closed: closing is a system call that the broker gives up, and everything ends with its process.
        channel = FileIO(arguments.fd, "r+", closefd=False)
        # While numpy applies a gate, up to three halves of the state live beside the state.
        lock_down(keep, arguments.gpu_memory + 3 * (_AMPLITUDE_BYTES << arguments.qubits))
    except SandboxError as error:
        print(error, file=sys.stderr)
        return 2
    serve(channel, broker)
    if arguments.report_fd is not None:
        os.write(arguments.report_fd, broker.usage.report())
    broker.close()
    return 0


def serve(channel: FileIO, broker: Broker) -> None:
    """Answer batches until the worker closes its end, or sends a frame behind which no next one can be found."""
    while len(header := _receive(channel, _HEADER)) == _HEADER:
        try:
            length = frame_length(header)
        except SandboxError as error:
            _send(channel, encode_reply(broker.refuse(error)))
            return
        batch = _receive(channel, length)
        if len(batch) < length:
            return
        if not _send(channel, encode_reply(broker.execute(batch))):
            return


def _open_quantum(qubits: int) -> QuantumDevice | None:
    if qubits == 0:
        return None
    # numpy's linear algebra would start threads at import; the device uses none of it.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    from ringfence.agent.quantum.statevector import StatevectorDevice

    return StatevectorDevice(qubits)


def _receive(channel: FileIO, count: int) -> bytes:
    """`count` bytes, or fewer when the worker closed its end before."""
    data = bytearray(count)
    at = 0
    while at < count:
        try:
            got = channel.readinto(memoryview(data)[at:])
        except ConnectionError:
            break
        if not got:
            break
        at += got
    return bytes(data[:at])


def _send(channel: FileIO, reply: bytes) -> bool:
    """Whether the worker was still there to get the reply."""
    view = memoryview(frame(reply))
    try:
        while view:
            view = view[channel.write(view) :]
    except ConnectionError:
        return False
    return True


if __name__ == "__main__":
    # The interpreter's own way out makes system calls that a broker has given up.
    os._exit(main())
