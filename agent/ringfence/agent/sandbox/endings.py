"""What a job's files and its processes' ends amount to: an outcome, or why there is none.

Pure. Whatever the worker wrote may be a lie of a guest that took it over: only the kernel's figures are believed, and
the worker's never beyond what the job could have used.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from ringfence.agent.broker import account
from ringfence.agent.errors import DEADLINE, OUTPUT_LIMIT, SYSCALL_DENIED, WORKER_LOST, SandboxError
from ringfence.agent.sandbox import exchange
from ringfence.agent.sandbox.children import ChildEnd
from ringfence.agent.sandbox.exchange import LOST_HINT, PHASE_STARTING, Refusal, Report, ResultHead
from ringfence.agent.sandbox.port import GuestError, Limits, Usage

# The figures of a receipt have 63 bits.
MOST_COUNTED: Final = (1 << 63) - 1
# How a compiler ends that has reached a limit of its own: its processor time, its memory, its stack, or an assertion of
# the runtime. It would end so again. A kill is not among them: the agent or the host may have their own reasons.
_BY_ITSELF: Final = frozenset(
    -int(number)
    for number in (signal.SIGXCPU, signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)
)


@dataclass(frozen=True, slots=True)
class Left:
    """What a job left in its files: the result's head, the broker's account, the last words of its processes, and the
    checkpoints that its worker says it has passed."""

    head: bytes
    broker: bytes
    words: bytes
    checkpoints: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a job's processes ended. `killed` says why the agent killed the worker, if it did; `wall_ms` until then."""

    worker: ChildEnd
    broker: ChildEnd | None
    killed: SandboxError | None
    wall_ms: float


def outcome_length(limits: Limits, left: Left, ended: Ended) -> tuple[int, Usage]:
    """The length of the output of a guest that ended well, and what it used; raises `GuestError` otherwise."""
    try:
        head = exchange.decode_head(left.head)
    except SandboxError as error:
        nothing = ResultHead(0, PHASE_STARTING, Report(refusal=Refusal.of(error)))
        raise _failure(limits, nothing, left, ended, _usage(limits, nothing, ended, _counted(left), left)) from error
    counters = account.Usage() if ended.broker is None else _counted(left)
    usage = _usage(limits, head, ended, counters, left)
    report = head.report
    if ended.killed or ended.worker.status != 0 or report is None or report.refusal is not None:
        raise _failure(limits, head, left, ended, usage)
    if counters is None or (ended.broker is not None and ended.broker.status != 0):
        raise GuestError(WORKER_LOST, f"The device broker was lost{_last_words(left)}.", usage, hint=LOST_HINT)
    if not 0 <= report.output_bytes <= limits.output_bytes:
        raise GuestError(
            OUTPUT_LIMIT,
            "The worker claims more output than its file holds.",
            usage,
            field="output_bytes",
            hint=LOST_HINT,
        )
    return report.output_bytes, usage


def late(limits: Limits, usage: Usage, *, compiling: bool) -> GuestError:
    """The error of a guest that had not ended at its deadline."""
    doing = "while its module was compiled" if compiling else "before it had ended"
    return GuestError(
        DEADLINE,
        f"The guest was killed at its deadline of {limits.deadline_ms} ms, {doing}.",
        usage,
        field="deadline_ms",
        hint="Do less, or ask for a later deadline.",
    )


def compiler_gave_up(end: ChildEnd) -> bool:
    """Whether a compile child ended of its own limits, as it would again with the same module."""
    return not end.lost and end.status in _BY_ITSELF


def uncompilable(end: ChildEnd, words: bytes, usage: Usage) -> GuestError:
    """The error of a module whose compile child left no verdict, and might leave one another time."""
    status = end.status
    if end.lost:
        return _lost("compiler", end, usage)
    if status == -signal.SIGSYS:
        return _denied("The compiler made a system call that it has no use for.", usage)
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    message = f"The compiler ended {how} and left no verdict{_said(words)}."
    return GuestError(WORKER_LOST, message, usage, field="module", hint=LOST_HINT)


def _failure(limits: Limits, head: ResultHead, left: Left, ended: Ended, usage: Usage) -> GuestError:
    status = ended.worker.status
    if ended.killed is not None:
        killed = ended.killed
        return GuestError(killed.code, killed.message, usage, field=killed.field, hint=killed.hint)
    if ended.worker.lost:
        return _lost("worker", ended.worker, usage)
    if status == -signal.SIGXCPU:
        return late(limits, usage, compiling=False)
    if status == -signal.SIGSYS:
        return _denied("The worker made a system call that a guest has no use for.", usage)
    if status == 0 and head.report is not None and head.report.refusal is not None:
        return head.report.refusal.error(usage)
    how = f"by signal {-status}" if status < 0 else f"with status {status}"
    message = f"The worker ended {how} and left no result{_last_words(left)}."
    return GuestError(WORKER_LOST, message, usage, hint=LOST_HINT)


def _lost(who: str, end: ChildEnd, usage: Usage) -> GuestError:
    return GuestError(WORKER_LOST, f"The job's {who} was lost: {end.lost}.", usage, hint=LOST_HINT)


def _denied(message: str, usage: Usage) -> GuestError:
    hint = "The module has broken out of the runtime, or the runtime has a defect: keep the module, and look into it."
    return GuestError(SYSCALL_DENIED, message, usage, field="module", hint=hint)


def _usage(limits: Limits, head: ResultHead, ended: Ended, counters: account.Usage | None, left: Left) -> Usage:
    cpu_ms = ended.worker.cpu_ms + (0.0 if ended.broker is None else ended.broker.cpu_ms)
    counted = counters or account.Usage()
    return Usage(
        wall_ms=ended.wall_ms,
        cpu_ms=cpu_ms,
        peak_memory_bytes=min(head.peak_memory_bytes, limits.memory_bytes),
        commands=counted.commands,
        launches=counted.launches,
        gates=counted.gates,
        measurements=counted.measurements,
        checkpoints=min(left.checkpoints, MOST_COUNTED),
        peak_gpu_bytes=min(counted.peak_gpu_bytes, limits.gpu_memory_bytes),
        forged_batches=counted.forged_batches,
    )


def _counted(left: Left) -> account.Usage | None:
    return account.decode(left.broker, most=MOST_COUNTED)


def _last_words(left: Left) -> str:
    return _said(left.words)


def _said(words: bytes) -> str:
    """The last line that a process wrote to standard error, for the message."""
    lines = words.rstrip(b"\0\n").splitlines()
    return f" ({exchange.readable(lines[-1].decode('ascii', 'replace'))})" if lines else ""
