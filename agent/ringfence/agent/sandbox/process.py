"""The sandbox's built-in adapter: forks a job's processes from a warm zygote, and kills them when their time is up.

The deadline is a SIGKILL by the agent: fuel and epochs would cost the guest a quarter of its speed and still trust the
runtime. The agent itself never parses, compiles or runs a module.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import Final

from ringfence.agent import ring
from ringfence.agent.broker.account import ACCOUNT_BYTES
from ringfence.agent.broker.lockdown import device_bytes
from ringfence.agent.confine import protections
from ringfence.agent.confine.groups import Group, Groups
from ringfence.agent.errors import LIMIT_OUT_OF_RANGE, PROCESS_STUCK, WORKER_LOST, SandboxError
from ringfence.agent.gpu.pool import MAX_POOL
from ringfence.agent.sandbox import endings, files, progress
from ringfence.agent.sandbox.children import ZYGOTE, Child, Children
from ringfence.agent.sandbox.endings import Ended, Left
from ringfence.agent.sandbox.exchange import OUTPUT_OFFSET
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.lockdown import probe
from ringfence.agent.sandbox.modules import Compiled, Modules, ModuleStore, Wanted, compiled_from, gave_up
from ringfence.agent.sandbox.monitor import ActiveKernel, Event, Thresholds
from ringfence.agent.sandbox.orders import CompileOrder, DevicesOrder, GuestOrder
from ringfence.agent.sandbox.port import GuestError, GuestJob, Outcome, Usage
from ringfence.agent.sandbox.results import check_result
from ringfence.agent.sandbox.verdicts import Verdict
from ringfence.agent.sandbox.watching import Running, Watcher

_BROKER_GRACE_S: Final = 1.0
_TICK_S: Final = 0.0015
_DIAGNOSTICS_BYTES: Final = 16 * 1024
_INLINE_CHECK_BYTES: Final = 64 * 1024
# What the two processes of a job have beside what its limits name: interpreters, runtime, a batch and its commands.
_OWN_BYTES: Final = 1024 * 1024 * 1024
_PROCESSES: Final = 4
# What a compiler may have of its own; its resource limits hold it to less.
_COMPILER_BYTES: Final = 1024 * 1024 * 1024
_NOTHING: Final = Usage(wall_ms=0.0, cpu_ms=0.0, peak_memory_bytes=0)


@dataclass(frozen=True, slots=True)
class Settings:
    """How a sandbox treats its jobs.

    `refuse` says why this host takes no job of a level, or None; `thresholds` are what is watched while one runs, and
    `on_event` hears, with the job's id, of what was seen. `kill_grace_s` is how long a process may take to end after
    SIGKILL before its job is answered without it. With `groups` each job has a cgroup of its own.
    """

    refuse: Callable[[Level], SandboxError | None] = lambda _level: None
    thresholds: Thresholds = field(default_factory=Thresholds)
    on_event: Callable[[str, Event], None] = lambda _job_id, _event: None
    kill_grace_s: float = 5.0
    groups: Groups | None = None


@dataclass(frozen=True, slots=True)
class _Files:
    """A job's descriptors on the agent's side."""

    result: int
    progress: int
    diagnostics: int
    account: int


class ProcessSandbox:
    """Runs each guest in a locked-down worker process; implements `Sandbox`."""

    def __init__(
        self, children: Children, *, store: ModuleStore | None = None, settings: Settings | None = None
    ) -> None:
        self._children = children
        self._settings = settings or Settings()
        self._modules = Modules(self._compile, store)
        self._running: dict[int, Running] = {}
        self._taken = 0
        self._left_groups: list[Group] = []
        self._made = 0

    async def run(self, job: GuestJob) -> Outcome:
        """See `Sandbox.run`. The deadline counts from here, start-up and compiling included."""
        started = time.monotonic()
        refused = self._settings.refuse(job.level)
        if refused is not None:
            raise refused
        self._taken += 1
        number, running = self._taken, Running(job)
        self._running[number] = running
        with ExitStack() as stack:
            stack.callback(self._running.pop, number)
            try:
                compiled = await self._compiled(job, started, stack)
                outcome = await self._run(job, compiled, started, running, stack)
            except OSError as error:
                raise SandboxError(
                    WORKER_LOST,
                    f"The job's processes cannot be started ({os.strerror(error.errno or 0)}).",
                    hint="Look for a limit on processes, open files or memory of the agent.",
                ) from error
        await _check_result(job, outcome)
        return outcome

    async def check(self, wanted: Wanted) -> Verdict:
        """What validating and compiling a module comes to. Raises `SandboxError` where its child left no verdict."""
        with ExitStack() as stack:
            return (await self._modules.get(wanted, stack)).verdict

    def active_kernels(self) -> tuple[ActiveKernel, ...]:
        """The jobs that run now or are being compiled, the oldest first."""
        return tuple(running.now() for running in self._running.values())

    def close(self) -> None:
        """Let go of the modules that are kept; the zygote is its owner's."""
        self._modules.close()

    async def _compiled(self, job: GuestJob, started: float, stack: ExitStack) -> Compiled:
        """The job's module, compiled. Raises `GuestError` when it is refused, or its deadline came first."""
        limits = job.limits
        wanted = Wanted(job.module, job.level, limits.memory_bytes, limits.qubits, limits.compute_units)
        try:
            async with asyncio.timeout(max(0.0, started + limits.deadline_ms / 1000 - time.monotonic())):
                compiled = await self._modules.get(wanted, stack)
        except TimeoutError:
            raise endings.late(limits, _used(started, 0.0), compiling=True) from None
        if compiled.verdict.refusal is not None:
            raise compiled.verdict.refusal.error(_used(started, compiled.cpu_ms))
        return compiled

    async def _compile(self, wanted: Wanted, stack: ExitStack) -> Compiled:
        """Compiles in a child of its own, which ends with this task."""
        started = time.monotonic()
        with ExitStack() as mine:
            module = files.sealed(mine, "module", wanted.code)
            verdict, diagnostics = files.growing(mine, "verdict"), files.fixed(mine, "diagnostics", _DIAGNOSTICS_BYTES)
            compiled = files.growing(stack, "compiled")
            doors = self._doors("compile", _COMPILER_BYTES, wanted.compute_units, mine, mine)
            child = await self._children.fork(
                lambda number: CompileOrder(
                    number,
                    wanted.level,
                    wanted.memory_bytes,
                    wanted.qubits,
                    wanted.compute_units,
                    grouped=bool(doors),
                ),
                (module, verdict, compiled, *doors, diagnostics),
            )
            try:
                await asyncio.wait({child.ended})
            finally:
                child.kill()
                await asyncio.wait({child.ended}, timeout=self._settings.kill_grace_s)
            # Here it has ended by itself: who kills it cancels this.
            end = child.ended.result()
            if endings.compiler_gave_up(end):
                return gave_up(end.cpu_ms)
            left = compiled_from(verdict, compiled, end.cpu_ms) if end.status == 0 else None
            if left is None:
                words = os.pread(diagnostics, _DIAGNOSTICS_BYTES, 0)
                raise endings.uncompilable(end, words, _used(started, end.cpu_ms))
            return left

    async def _run(
        self, job: GuestJob, compiled: Compiled, started: float, running: Running, stack: ExitStack
    ) -> Outcome:
        left_files, worker, broker = await self._start(job, compiled, stack)
        watch = self._settings.thresholds.watch(job.limits, began_bytes=self._children.own_bytes)
        watcher = running.watcher = Watcher(watch, worker, left_files.progress, stack)
        ended = await self._finish(job, worker, broker, watcher, started)
        left = Left(
            head=os.pread(left_files.result, OUTPUT_OFFSET, 0),
            broker=b"" if broker is None else os.pread(left_files.account, ACCOUNT_BYTES, 0),
            words=os.pread(left_files.diagnostics, _DIAGNOSTICS_BYTES, 0),
            checkpoints=progress.said(os.pread(left_files.progress, 64, 0), progress.CHECKPOINTS),
        )
        length, usage = endings.outcome_length(job.limits, left, ended)
        return Outcome(os.pread(left_files.result, length, OUTPUT_OFFSET), usage)

    async def _start(self, job: GuestJob, compiled: Compiled, stack: ExitStack) -> tuple[_Files, Child, Child | None]:
        """Start the worker, and for a module that uses devices their broker; both are killed when `stack` ends."""
        limits = job.limits
        if compiled.uses_devices and limits.gpu_memory_bytes > MAX_POOL:
            raise SandboxError(
                LIMIT_OUT_OF_RANGE,
                f"The CPU device has no pool of {limits.gpu_memory_bytes} bytes.",
                field="gpu_memory_bytes",
                hint=f"Ask for at most {MAX_POOL} bytes.",
            )
        with ExitStack() as theirs:
            left = _Files(
                result=files.fixed(stack, "result", OUTPUT_OFFSET + limits.output_bytes),
                progress=files.fixed(stack, "progress", progress.PAGE_BYTES),
                diagnostics=files.fixed(stack, "diagnostics", _DIAGNOSTICS_BYTES),
                account=files.fixed(stack, "account", ACCOUNT_BYTES),
            )
            given = files.sealed(theirs, "input", job.input)
            devices = device_bytes(limits.gpu_memory_bytes, limits.qubits)
            memory = limits.memory_bytes + 2 * limits.output_bytes + devices
            doors = self._doors("job", memory, limits.compute_units, stack, theirs)
            ring_of_worker: tuple[int, ...] = ()
            broker = None
            if compiled.uses_devices:
                request = files.fixed(theirs, "request", ring.REQUEST_BYTES)
                reply = files.fixed(theirs, "reply", ring.REPLY_BYTES)
                mine, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                theirs.enter_context(mine)
                theirs.enter_context(other)
                ring_of_worker = (mine.fileno(), request, files.read_only(theirs, reply))
                broker = await self._children.fork(
                    lambda number: DevicesOrder(
                        number, limits.gpu_memory_bytes, limits.qubits, limits.compute_units, grouped=bool(doors)
                    ),
                    (other.fileno(), request, reply, left.account, *doors, left.diagnostics),
                )
                stack.callback(broker.kill)
            worker = await self._children.fork(
                lambda number: GuestOrder(
                    child=number,
                    level=job.level,
                    entry=compiled.entry,
                    memory_bytes=limits.memory_bytes,
                    deadline_ms=limits.deadline_ms,
                    output_bytes=limits.output_bytes,
                    compute_units=limits.compute_units,
                    devices=compiled.uses_devices,
                    grouped=bool(doors),
                ),
                (compiled.descriptor, given, left.result, left.progress, *ring_of_worker, *doors, left.diagnostics),
            )
            stack.callback(worker.kill)
            return left, worker, broker

    def _doors(self, kind: str, memory_bytes: int, units: int, stack: ExitStack, theirs: ExitStack) -> tuple[int, ...]:
        """The door of a new group, if this host has groups; the door is closed with `theirs`, the group ends with
        `stack`. `memory_bytes` is what its processes may have beside what each begins with."""
        if self._settings.groups is None:
            return ()
        self._left_groups = [group for group in self._left_groups if not group.remove()]
        self._made += 1
        group = self._settings.groups.make(
            f"{kind}-{self._made}", memory_bytes=memory_bytes + _OWN_BYTES, processes=_PROCESSES, units=units
        )
        stack.callback(self._leave, group)
        door = group.door()
        theirs.callback(os.close, door)
        return (door,)

    def _leave(self, group: Group) -> None:
        group.kill()
        if not group.remove():
            self._left_groups.append(group)

    async def _finish(
        self, job: GuestJob, worker: Child, broker: Child | None, watcher: Watcher, started: float
    ) -> Ended:
        """Wait for both ends, killing the worker at its deadline; on cancellation kill both and see them gone.

        Raises `GuestError` (`sandbox.process_stuck`) when the kernel does not end a killed process in time. It will
        never run the guest again, and is reaped when it ends.
        """
        children = {"worker": worker} | ({} if broker is None else {"device broker": broker})
        ends = {child.ended for child in children.values()}
        grace_s = self._settings.kill_grace_s
        try:
            killed = await self._watch(job, worker, watcher, started)
            wall_ms = (time.monotonic() - started) * 1000
            if killed is None and worker.ended.result().status == 0:
                # The broker ends by itself when its ring does; a stuck device call must not hold the answer. Of every
                # other job, its account is what it had done by now.
                await asyncio.wait(ends, timeout=_BROKER_GRACE_S)
        finally:
            for child in children.values():
                child.kill()
            await asyncio.wait(ends, timeout=grace_s)
        stuck = [name for name, child in children.items() if not child.ended.done()]
        if stuck:
            used_ms = sum(child.ended.result().cpu_ms for child in children.values() if child.ended.done())
            raise GuestError(
                PROCESS_STUCK,
                f"The job's {' and '.join(stuck)} did not end within {grace_s:g} s of being killed.",
                Usage(wall_ms=wall_ms, cpu_ms=used_ms, peak_memory_bytes=0),
                hint="It sleeps in the kernel: look for a disk, a device or a driver that does not answer.",
            )
        return Ended(worker.ended.result(), None if broker is None else broker.ended.result(), killed, wall_ms)

    async def _watch(self, job: GuestJob, worker: Child, watcher: Watcher, started: float) -> SandboxError | None:
        """Wait for the worker's end; why it is to be killed, if it is."""
        deadline = started + job.limits.deadline_ms / 1000
        while not worker.ended.done():
            left = deadline - time.monotonic()
            if left <= 0:
                return endings.late(job.limits, _NOTHING, compiling=False)
            # The event loop counts in milliseconds and wakes up late: the last one is spent looking at the clock.
            await asyncio.wait({worker.ended}, timeout=min(max(0.0, left - _TICK_S), watcher.pause_s))
            if not worker.ended.done():
                for event in watcher.look():
                    self._settings.on_event(job.job_id, event)
                    if event.kill:
                        return event.error()
        return None


@contextmanager
def open_sandbox(
    command: Sequence[str] = ZYGOTE,
    *,
    store: ModuleStore | None = None,
    settings: Callable[[Children], Settings] = lambda _children: Settings(),
) -> Iterator[ProcessSandbox]:
    """A sandbox over a zygote of its own, which ends with it. Enter it before anything secret is opened."""
    with closing(Children(command)) as children:
        sandbox = ProcessSandbox(children, store=store, settings=settings(children))
        with closing(sandbox):
            yield sandbox


def strict(children: Children, accepted: Set[str] = frozenset()) -> Callable[[Level], SandboxError | None]:
    """The `refuse` of a host that takes no job which it cannot protect as its level demands, but for what is accepted.

    `accepted` names protections that may be missing (`ringfence.agent.confine.protections`).
    """
    present = protections.survey(probe(), namespaces=children.isolated)
    return lambda level: protections.refusal(level, present, accepted)


def _used(started: float, cpu_ms: float) -> Usage:
    return Usage(wall_ms=(time.monotonic() - started) * 1000, cpu_ms=cpu_ms, peak_memory_bytes=0)


async def _check_result(job: GuestJob, outcome: Outcome) -> None:
    """Raises `GuestError` (`sandbox.result_invalid`) for output that is not what it was declared to be."""
    try:
        if len(outcome.output) <= _INLINE_CHECK_BYTES:
            check_result(outcome.output, job.result, job.level)
        else:
            await asyncio.to_thread(check_result, outcome.output, job.result, job.level)
    except SandboxError as error:
        raise GuestError(error.code, error.message, outcome.usage, field=error.field, hint=error.hint) from error
