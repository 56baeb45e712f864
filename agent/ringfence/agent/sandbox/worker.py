"""The guest role: a forked child that locks itself down, runs one guest, leaves one result, and ends."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Self, cast

from wasmtime import Engine, Func, Instance, Memory, Module, Store, Trap, WasmtimeError

from ringfence.agent.confine import shares
from ringfence.agent.errors import GUEST_EXIT, GUEST_TRAP, INPUT_TOO_LARGE, MEMORY_LIMIT, MODULE_INVALID, SandboxError
from ringfence.agent.mapping import Mapper
from ringfence.agent.sandbox import exchange, shim
from ringfence.agent.sandbox.channel import RingChannel
from ringfence.agent.sandbox.engines import PROFILES, engine, profile
from ringfence.agent.sandbox.exchange import OUTPUT_OFFSET, PHASE_RUNNING, Refusal, Report
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.linking import Host, enter
from ringfence.agent.sandbox.lockdown import Lockdown
from ringfence.agent.sandbox.memory import GuestMemory
from ringfence.agent.sandbox.orders import GuestOrder
from ringfence.agent.sandbox.wasi import GuestExit, Wasi

_MAX_TABLE_ELEMENTS = 1_000_000
_PAGE = 65_536
# Of a function's name in a message; the guest chooses it.
_MAX_NAME: Final = 64
_NO_OFFSET: Final = 2**64 - 1
# The profile whose store is ready before the job is known: that of the default level.
_USUAL: Final = profile(Level.HIGH)
_CLOCKS: Final = (time.time_ns, time.monotonic_ns)
_NOTHING: Final = '(module (memory (export "memory") 1) (func (export "_start")))'


class ResultFile:
    """The mapped result file; nothing here raises or needs a system call."""

    def __init__(self, mapped: memoryview) -> None:
        self._map = mapped
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
        self._put(exchange.encode_head(self._peak, self._phase, report))

    def _put(self, head: bytes) -> None:
        self._map[: len(head)] = head


@dataclass(frozen=True, slots=True)
class Runtime:
    """One profile's engine, the memory of its guest, and the host's functions, all still unused."""

    machine: Engine
    memory: GuestMemory
    host: Host

    @classmethod
    def of(cls, name: str) -> Self:
        """The runtime of a profile."""
        memory = GuestMemory()
        machine = engine(name, memory)
        return cls(machine, memory, Host(machine, memory))

    def open(self) -> Store:
        """A store for one guest, with the shim in it."""
        store = Store(self.machine)
        # The shim and the guest have a memory each; validation sees to it that the guest has one.
        store.set_limits(table_elements=_MAX_TABLE_ELEMENTS, instances=2, tables=16, memories=2)
        self.host.open(store)
        return store


@dataclass(frozen=True, slots=True)
class Warm:
    """What a zygote makes once for every worker: a runtime for each profile, and one with a guest to rehearse with."""

    lockdown: Lockdown
    runtimes: Mapping[str, Runtime]
    rehearsal: Runtime
    nothing: bytes


def prepare(lockdown: Lockdown) -> Warm:
    """What `begin` needs, made before the fork."""
    rehearsal = Runtime.of(_USUAL)
    nothing = bytes(Module(rehearsal.machine, _NOTHING).serialize())
    return Warm(lockdown, {name: Runtime.of(name) for name in PROFILES}, rehearsal, nothing)


def begin(warm: Warm) -> Callable[[GuestOrder, Sequence[int]], None]:
    """What a worker does before it knows its job; gives what it does then."""
    loading, running = (warm.lockdown.begin(may_make_code=may) for may in (True, False))
    stores = {_USUAL: warm.runtimes[_USUAL].open()}
    mapper = Mapper()

    def run_job(order: GuestOrder, files: Sequence[int]) -> None:
        compiled_file, input_file, result_file, progress_file, *ring_files = files
        name = profile(order.level)
        runtime, result = (
            warm.runtimes[name],
            ResultFile(mapper.file(result_file, OUTPUT_OFFSET + order.output_bytes, writable=True)),
        )
        store = stores.get(name) or runtime.open()
        given = _view(mapper, input_file)
        streams = Wasi(runtime.memory, given, order.output_bytes, clocks=_CLOCKS, random=os.urandom)
        channel = RingChannel(*ring_files) if order.devices else None
        progress = runtime.memory.share(progress_file)
        runtime.memory.begin(order.memory_bytes, result.grew)
        compiled = bytes(_view(mapper, compiled_file))
        shares.take(order.compute_units)
        warm.lockdown.loader(
            loading,
            deadline_ms=order.deadline_ms,
            memory_bytes=order.memory_bytes,
            output_bytes=order.output_bytes,
            compiled_bytes=len(compiled),
        )
        module = Module.deserialize(runtime.machine, compiled)
        warm.lockdown.guest(running, memory_bytes=order.memory_bytes, output_bytes=order.output_bytes)
        result.enter(PHASE_RUNNING)
        try:
            _run(
                lambda: runtime.host.instantiate(module, wasi=streams, channel=channel, progress=progress),
                Guest(store, runtime, streams, order.entry, given),
            )
        except SandboxError as error:
            result.finish(Report(refusal=Refusal.of(error)))
        else:
            result.finish(Report(output_bytes=len(streams.output)), streams.output)

    return run_job


def rehearse(warm: Warm) -> None:
    """Run a guest of our own that does nothing, in a worker that stands by.

    A forked process copies each page that it writes, and maps each page of a library that it runs, when it first does
    so: more than a millisecond, which then no job waits for.
    """
    runtime = warm.rehearsal
    streams = Wasi(runtime.memory, memoryview(b""), 0, clocks=_CLOCKS, random=os.urandom)
    runtime.memory.begin(_PAGE, lambda _size: None)
    module = Module.deserialize(runtime.machine, warm.nothing)
    guest = Guest(runtime.open(), runtime, streams, "command", memoryview(b""))
    _run(lambda: runtime.host.instantiate(module, wasi=streams, channel=None, progress=memoryview(b"")), guest)


@dataclass(frozen=True, slots=True)
class Guest:
    """One guest, about to run."""

    store: Store
    runtime: Runtime
    streams: Wasi
    entry: str
    input: memoryview


def _run(instantiate: Callable[[], Instance], guest: Guest) -> None:
    """Run the guest to its end. Raises `SandboxError` when it is refused or does not end well."""
    memory, host = guest.runtime.memory, guest.runtime.host
    status = 0
    try:
        instance = instantiate()
        status = _call(instance, guest)
    except GuestExit as ended:
        status = ended.status
    except Trap as trap:
        try:
            host.raise_failure()
        except GuestExit as ended:
            status = ended.status
        else:
            _raise_if_outgrown(memory)
            raise _trapped(trap) from trap
    except WasmtimeError as error:
        _raise_if_outgrown(memory)
        what = exchange.readable(str(error).splitlines()[0])
        raise SandboxError(
            MODULE_INVALID, f"The module cannot be instantiated: {what}.", field="module", hint="Use fewer tables."
        ) from error
    if status != 0:
        _raise_if_outgrown(memory)
        raise _exit_status(status, guest.streams.diagnostics)
    host.finish()


def _call(instance: Instance, guest: Guest) -> int:
    """Call the entry point; its status, 0 for a command that returns."""
    store, exports = guest.store, instance.exports(guest.store)
    if guest.entry == "command":
        return enter(store, cast(Func, exports["_start"]))
    if "_initialize" in exports:
        enter(store, cast(Func, exports["_initialize"]))
    length = len(guest.input)
    if "ringfence_alloc" in exports:
        address = enter(store, cast(Func, exports["ringfence_alloc"]), length)
    else:
        address = _grow(cast(Memory, exports["memory"]), store, length)
    guest.runtime.memory.write(address, guest.input)
    return enter(store, cast(Func, exports["main"]), address, length)


def _grow(memory: Memory, store: Store, length: int) -> int:
    """The address of `length` new bytes at the end of the guest's memory."""
    pages = -(-length // _PAGE)
    try:
        return memory.grow(store, pages) * _PAGE
    except WasmtimeError as error:
        raise SandboxError(
            INPUT_TOO_LARGE,
            f"The input of {length} bytes does not fit into the guest's memory.",
            field="input",
            hint="Ask for a higher memory limit, or send less.",
        ) from error


def _view(mapper: Mapper, descriptor: int) -> memoryview:
    """The content of a sealed memory file, which stays mapped whoever lets go of it."""
    size = os.fstat(descriptor).st_size
    return mapper.sealed(descriptor, size) if size else memoryview(b"")


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
    return SandboxError(
        GUEST_TRAP, f"The guest trapped: {name}{_place(trap)}.", hint="Run it under a debugger with the same input."
    )


def _place(trap: Trap) -> str:
    """Where the guest trapped, as far as the runtime knows. A stack may run out in the shim, which is not named."""
    frame = next((one for one in trap.frames if one.module_name != shim.NAME), None)
    if frame is None:
        return ""
    name = exchange.readable((frame.func_name or "")[:_MAX_NAME]).strip()
    function = f", in function {frame.func_index}{f' ({name})' if name else ''}"
    # A stack that ran out has no offset: the runtime then gives all ones.
    return function if frame.module_offset == _NO_OFFSET else f"{function}, at offset {frame.module_offset:#x}"


def _exit_status(status: int, diagnostics: bytearray) -> SandboxError:
    said = exchange.readable(diagnostics.decode("ascii", "replace")).strip()
    words, stop = f", saying: {said}" if said else "", "" if said.endswith((".", "!", "?")) else "."
    return SandboxError(
        GUEST_EXIT,
        f"The guest exited with status {status}{words}{stop}",
        hint="A guest that succeeds exits with status 0.",
    )
