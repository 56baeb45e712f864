"""The sandbox's built-in adapter: for every job a fresh worker process and a fresh device broker.

Both are executed anew, so neither holds anything of the agent's memory, environment or descriptors. The deadline is a
SIGKILL by the agent: fuel and epochs would cost the guest a quarter of its speed and still trust the runtime.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from ringfence.agent.errors import (
    DEADLINE,
    MODULE_INVALID,
    OUTPUT_LIMIT,
    PROCESS_STUCK,
    SYSCALL_DENIED,
    WORKER_LOST,
    SandboxError,
)
from ringfence.agent.sandbox import exchange
from ringfence.agent.sandbox.children import Child, ChildEnd
from ringfence.agent.sandbox.exchange import OUTPUT_OFFSET, PHASE_COMPILING, Report, ResultHead
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome, Usage
from ringfence.errors import Code

WORKER_COMMAND: Final = (sys.executable, "-I", "-m", "ringfence.agent.sandbox.worker")
BROKER_COMMAND: Final = (sys.executable, "-I", "-m", "ringfence.agent.broker")

_BROKER_GRACE_S = 1.0
_DIAGNOSTICS_BYTES = 16 * 1024
_REPORT_BYTES = 64 * 1024


# A broker counts what it executes; a receipt's figures are of at most 64 bits.
_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class _BrokerReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    commands: _Count
    launches: _Count
    gates: _Count
    measurements: _Count
    checkpoints: _Count
    peak_gpu_bytes: _Count

    def __post_init__(self) -> None:
        if self.launches + self.gates + self.measurements + self.checkpoints > self.commands:
            raise ValueError("more of the commands than all of them")


@dataclass(frozen=True, slots=True)
class _Files:
    """A job's descriptors on the agent's side."""

    job: int
    result: int
    diagnostics: int
    usage: int


@dataclass(frozen=True, slots=True)
class _Ended:
    """How a job's two processes ended; `late` when the worker was killed at its deadline."""

    worker: ChildEnd
    broker: ChildEnd
    late: bool
    wall_ms: float


class ProcessSandbox:
    """Runs each guest in a locked-down worker process; implements `Sandbox`.

    `kill_grace_s` is how long a process may take to end after SIGKILL before its job is answered without it.
    """

    def __init__(
        self,
        *,
        worker: Sequence[str] = WORKER_COMMAND,
        broker: Sequence[str] = BROKER_COMMAND,
        start: Callable[[Sequence[str], Sequence[int], int], Child] = Child,
        kill_grace_s: float = 5.0,
    ) -> None:
        self._worker = tuple(worker)
        self._broker = tuple(broker)
        self._start_child = start
        self._kill_grace_s = kill_grace_s

    async def run(self, job: GuestJob) -> Outcome:
        """See `Sandbox.run`. The deadline counts from here, start-up and compiling included."""
        started = time.monotonic()
        with ExitStack() as stack:
            try:
                files, worker, broker = self._start(job, stack)
            except OSError as error:
                raise SandboxError(
                    WORKER_LOST,
                    f"The job's processes cannot be started ({os.strerror(error.errno or 0)}).",
                    hint="Look for a limit on processes, open files or memory of the agent.",
                ) from error
            ended = await _finish(worker, broker, started, job.limits, self._kill_grace_s)
            return _outcome(job.limits, files, ended)

    def _start(self, job: GuestJob, stack: ExitStack) -> tuple[_Files, Child, Child]:
        """Start broker and worker; the agent keeps only its own ends, closed when `stack` ends."""
        with ExitStack() as theirs:
            worker_end, broker_end = socket.socketpair()
            theirs.enter_context(worker_end)
            theirs.enter_context(broker_end)
            usage, usage_writer = os.pipe()
            stack.callback(os.close, usage)
            theirs.callback(os.close, usage_writer)
            files = _Files(
                job=_memory_file(stack, "job", content=exchange.encode_job(job)),
                result=_memory_file(stack, "result", size=OUTPUT_OFFSET + job.limits.output_bytes),
                diagnostics=_memory_file(stack, "diagnostics", size=_DIAGNOSTICS_BYTES),
                usage=usage,
            )
            limits = job.limits
            broker_arguments = {
                "--fd": broker_end.fileno(),
                "--gpu-memory": limits.gpu_memory_bytes,
                "--qubits": limits.qubits,
                "--report-fd": usage_writer,
            }
            flags = [str(part) for pair in broker_arguments.items() for part in pair]
            broker = self._start_child([*self._broker, *flags], (broker_end.fileno(), usage_writer), files.diagnostics)
            stack.callback(broker.kill)
            theirs_of_worker = (files.job, files.result, worker_end.fileno())
            arguments = map(str, (*theirs_of_worker, os.getpid()))
            worker = self._start_child([*self._worker, *arguments], theirs_of_worker, files.diagnostics)
            stack.callback(worker.kill)
            return files, worker, broker


def _memory_file(stack: ExitStack, name: str, *, content: bytes | None = None, size: int = 0) -> int:
    """A memory file (memfd_create(2)): sealed with `content`, or writable and of exactly `size` bytes."""
    descriptor = os.memfd_create(f"ringfence-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
    if content is None:
        os.ftruncate(descriptor, size)
    else:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        seals |= fcntl.F_SEAL_WRITE
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


async def _finish(worker: Child, broker: Child, started: float, limits: Limits, kill_grace_s: float) -> _Ended:
    """Wait for both ends, killing the worker at its deadline; on cancellation kill both and see them gone.

    Raises `GuestError` (`sandbox.process_stuck`) when the kernel does not end a killed process within `kill_grace_s`.
    It will never run the guest again, and is reaped when it ends.
    """
    try:
        left = limits.deadline_ms / 1000 - (time.monotonic() - started)
        await asyncio.wait({worker.ended}, timeout=max(0.0, left))
        late = not worker.ended.done()
        wall_ms = (time.monotonic() - started) * 1000
        worker.kill()
        # The broker ends by itself when its ring does; a stuck device call must not hold the answer.
        await asyncio.wait({worker.ended, broker.ended}, timeout=_BROKER_GRACE_S)
    finally:
        worker.kill()
        broker.kill()
        await asyncio.wait({worker.ended, broker.ended}, timeout=kill_grace_s)
    stuck = [name for name, child in (("worker", worker), ("device broker", broker)) if not child.ended.done()]
    if stuck:
        used_ms = sum(child.ended.result().cpu_ms for child in (worker, broker) if child.ended.done())
        raise GuestError(
            PROCESS_STUCK,
            f"The job's {' and '.join(stuck)} did not end within {kill_grace_s:g} s of being killed.",
            Usage(wall_ms=wall_ms, cpu_ms=used_ms, peak_memory_bytes=0),
            hint="It sleeps in the kernel: look for a disk, a device or a driver of this host that does not answer.",
        )
    return _Ended(worker.ended.result(), broker.ended.result(), late, wall_ms)


def _outcome(limits: Limits, files: _Files, ended: _Ended) -> Outcome:
    """What the job's files and its processes' ends amount to."""
    try:
        head = exchange.decode_head(os.pread(files.result, OUTPUT_OFFSET, 0))
    except SandboxError as error:
        nothing = ResultHead(0, exchange.PHASE_STARTING, Report(code=str(error.code), message=error.message))
        raise _failure(limits, nothing, files, ended, _usage(limits, nothing, ended, None)) from error
    counters = _broker_report(files.usage)
    usage = _usage(limits, head, ended, counters)
    report = head.report
    if ended.late or ended.worker.status != 0 or report is None or report.code:
        raise _failure(limits, head, files, ended, usage)
    if counters is None or ended.broker.status != 0:
        raise GuestError(WORKER_LOST, f"The device broker was lost{_last_words(files)}.", usage)
    if not 0 <= report.output_bytes <= limits.output_bytes:
        raise GuestError(OUTPUT_LIMIT, "The worker claims more output than its file holds.", usage)
    return Outcome(os.pread(files.result, report.output_bytes, OUTPUT_OFFSET), usage)


def _failure(limits: Limits, head: ResultHead, files: _Files, ended: _Ended, usage: Usage) -> GuestError:
    status = ended.worker.status
    if ended.late or status == -signal.SIGXCPU:
        doing = "while its module was compiled" if head.phase == PHASE_COMPILING else "before it had ended"
        return GuestError(
            DEADLINE,
            f"The guest was killed at its deadline of {limits.deadline_ms} ms, {doing}.",
            usage,
            field="deadline_ms",
            hint="Do less, or ask for a later deadline.",
        )
    if status == -signal.SIGSYS:
        return GuestError(SYSCALL_DENIED, "The worker made a system call that a guest has no use for.", usage)
    if status == 0 and head.report is not None:
        report = head.report
        code: Code = exchange.CODES[report.code]
        message, hint, field = map(exchange.readable, (report.message, report.hint, report.field))
        return GuestError(code, message, usage, field=field, hint=hint)
    if head.phase == PHASE_COMPILING and status < 0:
        return GuestError(
            MODULE_INVALID, "Compiling the module took more than the compiler may have.", usage, field="module"
        )
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    return GuestError(WORKER_LOST, f"The worker ended {how} and left no result{_last_words(files)}.", usage)


def _usage(limits: Limits, head: ResultHead, ended: _Ended, counters: _BrokerReport | None) -> Usage:
    """What the kernel and the job's processes say it used; theirs never beyond what the job could have used."""
    cpu_ms = ended.worker.cpu_ms + ended.broker.cpu_ms
    peak = min(head.peak_memory_bytes, limits.memory_bytes)
    if counters is None:
        return Usage(wall_ms=ended.wall_ms, cpu_ms=cpu_ms, peak_memory_bytes=peak)
    return Usage(
        wall_ms=ended.wall_ms,
        cpu_ms=cpu_ms,
        peak_memory_bytes=peak,
        commands=counters.commands,
        launches=counters.launches,
        gates=counters.gates,
        measurements=counters.measurements,
        checkpoints=counters.checkpoints,
        peak_gpu_bytes=min(counters.peak_gpu_bytes, limits.gpu_memory_bytes),
    )


def _broker_report(descriptor: int) -> _BrokerReport | None:
    """The broker's counters, or None when it left none that can be true. Every writer has ended: no read blocks."""
    try:
        return msgspec.json.decode(os.read(descriptor, _REPORT_BYTES), type=_BrokerReport)
    except msgspec.MsgspecError:
        return None


def _last_words(files: _Files) -> str:
    """The last line that a process wrote to standard error, for the message."""
    lines = os.pread(files.diagnostics, _DIAGNOSTICS_BYTES, 0).rstrip(b"\0\n").splitlines()
    return f" ({exchange.readable(lines[-1].decode('ascii', 'replace'))})" if lines else ""
