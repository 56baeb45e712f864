"""The worker process: takes one job, locks itself down, runs one guest, leaves one result, and ends.

Started by `process.py` as `python -I -m ringfence.agent.sandbox.worker JOB RESULT RING PARENT`: three descriptors that
it inherits (the sealed job file, the result file, its end of the ring) and the agent's process id.
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Mapping
from typing import NoReturn, cast

from wasmtime import Func, FuncType, Instance, Store, Trap, ValType, WasmtimeError

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, GUEST_EXIT, GUEST_TRAP, MEMORY_LIMIT, MODULE_INVALID, SandboxError
from ringfence.agent.sandbox import exchange, hostcalls, module, wasi
from ringfence.agent.sandbox.exchange import OUTPUT_OFFSET, PHASE_COMPILING, PHASE_RUNNING, Report, WorkerJob
from ringfence.agent.sandbox.hostcalls import HostCalls
from ringfence.agent.sandbox.lockdown import Lockdown
from ringfence.agent.sandbox.memory import GuestMemory
from ringfence.agent.sandbox.wasi import GuestExit, Wasi

_MAX_TABLE_ELEMENTS = 1_000_000


class ResultFile:
    """The mapped result file; nothing here raises or needs a system call once it is mapped."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, 0)
        self._peak = 0
        self._phase = exchange.PHASE_STARTING

    def enter(self, phase: int) -> None:
        """Say how far the job has come, for the case that the worker is killed."""
        self._phase = phase
        self._put(exchange.encode_head(self._peak, self._phase))

    def grew(self, size: int) -> None:
        """Note the guest's memory, in bytes."""
        self._peak = max(self._peak, size)
        self._put(exchange.encode_head(self._peak, self._phase))

    def finish(self, report: Report, output: bytes | bytearray = b"") -> None:
        """Leave the report, and the output before it."""
        self._map[OUTPUT_OFFSET : OUTPUT_OFFSET + len(output)] = output
        self._put(exchange.encode_head(self._peak, self._phase, exchange.encode_report(report)))

    def _put(self, head: bytes) -> None:
        self._map[: len(head)] = head


class RingChannel:
    """The worker's end of the ring, over an inherited stream socket."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def exchange(self, batch: bytes) -> bytes:
        """Send a batch and wait for its reply; raises the broker's refusal."""
        view = memoryview(ring.frame(batch))
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
            reply = ring.decode_reply(self._take(ring.frame_length(self._take(4))))
        except OSError as error:
            raise _lost() from error
        if not reply.code:
            return reply.payload
        raise SandboxError(exchange.CODES.get(reply.code, BROKER_PROTOCOL), reply.message)

    def _take(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            part = os.read(self._descriptor, count - len(data))
            if not part:
                raise _lost()
            data += part
        return bytes(data)


def main(arguments: list[str]) -> NoReturn:
    """Run the job of the descriptors in `arguments` and end the process."""
    job_file, result_file, ring_end, parent_pid = map(int, arguments)
    job = exchange.decode_job(memoryview(mmap.mmap(job_file, 0, access=mmap.ACCESS_READ)))
    result = ResultFile(result_file)
    try:
        output = run(job, result, RingChannel(ring_end), Lockdown(parent_pid=parent_pid))
    except SandboxError as error:
        result.finish(Report(code=str(error.code), message=error.message, field=error.field, hint=error.hint))
    else:
        result.finish(Report(output_bytes=len(output)), output)
    os._exit(0)


def run(job: WorkerJob, result: ResultFile, channel: RingChannel, lockdown: Lockdown) -> bytearray:
    """The guest's output. Raises `SandboxError` when it is refused or does not end well."""
    memory = GuestMemory(job.memory_bytes, result.grew)
    streams = Wasi(memory, job.input, job.output_bytes, clock=_clock, random=os.urandom)
    calls = HostCalls(memory, channel)
    imports = _keyed(hostcalls.MODULE, calls.functions()) | _keyed(wasi.MODULE, streams.functions())
    machine = module.engine(memory)
    store = Store(machine)
    store.set_limits(table_elements=_MAX_TABLE_ELEMENTS, instances=1, tables=16, memories=1)

    lockdown.before_compile(deadline_ms=job.deadline_ms, memory_bytes=job.memory_bytes, output_bytes=job.output_bytes)
    result.enter(PHASE_COMPILING)
    guest = module.load(machine, bytes(job.module), imports)
    functions = [_function(store, imports[(needed.module, needed.name or "")]) for needed in guest.imports]
    lockdown.before_run(memory_bytes=job.memory_bytes, output_bytes=job.output_bytes)
    result.enter(PHASE_RUNNING)

    try:
        instance = Instance(store, guest, functions)
        cast(Func, instance.exports(store)[module.ENTRY_POINT])(store)
    except GuestExit as ended:
        if ended.status != 0:
            _raise_if_outgrown(memory)
            raise _exit_status(ended.status, streams.diagnostics) from ended
    except Trap as trap:
        _raise_if_outgrown(memory)
        raise _trapped(trap) from trap
    except WasmtimeError as error:
        _raise_if_outgrown(memory)
        what = exchange.readable(str(error).splitlines()[0])
        raise SandboxError(
            MODULE_INVALID, f"The module cannot be instantiated: {what}.", field="module", hint="Use fewer tables."
        ) from error
    calls.finish()
    return streams.output


def _keyed(name: str, functions: Mapping[str, hostcalls.HostFunction]) -> dict[tuple[str, str], hostcalls.HostFunction]:
    return {(name, function): value for function, value in functions.items()}


def _function(store: Store, function: hostcalls.HostFunction) -> Func:
    kinds = {"i32": ValType.i32, "i64": ValType.i64, "f64": ValType.f64}
    signature = FuncType([kinds[name]() for name in function.parameters], [kinds[name]() for name in function.results])
    return Func(store, signature, function.call)


def _clock(number: int) -> int:
    return time.monotonic_ns() if number else time.time_ns()


def _raise_if_outgrown(memory: GuestMemory) -> None:
    """A guest that ended badly while its last request for memory stood refused has outgrown its memory."""
    if memory.denied:
        raise SandboxError(
            MEMORY_LIMIT,
            f"The guest asked for {memory.denied} bytes of memory, which is more than its limit allows.",
            field="memory_bytes",
            hint="Use less memory, or ask for a higher limit.",
        )


def _trapped(trap: Trap) -> SandboxError:
    code = trap.trap_code
    name = code.name.lower().replace("_", " ") if code is not None else "an unknown trap"
    return SandboxError(GUEST_TRAP, f"The guest trapped: {name}.", hint="Run it under a debugger with the same input.")


def _exit_status(status: int, diagnostics: bytearray) -> SandboxError:
    said = exchange.readable(diagnostics.decode("ascii", "replace")).strip()
    words, stop = f", saying: {said}" if said else "", "" if said.endswith((".", "!", "?")) else "."
    return SandboxError(
        GUEST_EXIT,
        f"The guest exited with status {status}{words}{stop}",
        hint="A guest that succeeds exits with status 0.",
    )


def _lost() -> SandboxError:
    return SandboxError(BROKER_PROTOCOL, "The device broker ended before the guest did.")


if __name__ == "__main__":
    main(sys.argv[1:])
