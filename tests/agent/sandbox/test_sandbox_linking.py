"""Guests linked to their host functions through the shim, in this process: real wasm, no lock-down."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from wasmtime import Instance, Module, Store, Trap, WasmtimeError, wat2wasm

from ringfence.agent import ring
from ringfence.agent.errors import GUEST_ARGUMENT, SandboxError
from ringfence.agent.sandbox import progress, shim
from ringfence.agent.sandbox.engines import engine
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI, Import
from ringfence.agent.sandbox.linking import Host, enter
from ringfence.agent.sandbox.memory import GuestMemory
from ringfence.agent.sandbox.wasi import GuestExit, Wasi

PAGE = 65536
QUEUE_SLOTS = shim.QUEUE_BYTES // ring.SLOT_BYTES


class RecordingChannel:
    """Keeps what crosses; every measurement is 1, every sync is empty."""

    def __init__(self) -> None:
        self.batches: list[list[ring.Command]] = []

    def send(self, slots: memoryview) -> None:
        self.batches.append(ring.decode_batch(bytes(slots)))

    def settle(self) -> bytes:
        return b"\1" if self.batches and isinstance(self.batches[-1][-1], ring.Measure) else b""

    @property
    def commands(self) -> list[ring.Command]:
        return [command for batch in self.batches for command in batch]


@dataclass
class Runtime:
    """One guest's surroundings. `failure` is what its run ended with, by the host's word before the runtime's."""

    memory: GuestMemory
    host: Host
    store: Store
    page: memoryview
    streams: Wasi
    channel: RecordingChannel

    def run(self, text: str, *, devices: bool = True) -> None:
        """Run a guest's `_start`; raises what ended it."""
        try:
            guest = Module(self.store.engine, bytes(wat2wasm(text)))
            self.host.open(self.store)
            channel = self.channel if devices else None
            instance = self.host.instantiate(guest, wasi=self.streams, channel=channel, progress=self.page)
            instance.exports(self.store)["_start"](self.store)  # type: ignore[operator]
        except (Trap, WasmtimeError):
            self.host.raise_failure()
            raise
        self.host.finish()


Make = Callable[..., Runtime]


@pytest.fixture
def make() -> Iterator[Make]:
    with ExitStack() as stack:

        def build(profile: str = "locked", limit: int = 16 * PAGE, clock: Callable[[], int] = lambda: 5) -> Runtime:
            memory = GuestMemory()
            machine = engine(profile, memory)
            host = Host(machine, memory)
            status = os.memfd_create("status")
            stack.callback(os.close, status)
            os.ftruncate(status, progress.PAGE_BYTES)
            page = memory.share(status)
            memory.begin(limit, lambda _size: None)
            store = Store(machine)
            store.set_limits(instances=2, memories=2)
            streams = Wasi(memory, memoryview(b"given"), 1000, clocks=(clock, clock), random=bytes)
            return Runtime(memory, host, store, page, streams, RecordingChannel())

        yield build


def imported(*names: str) -> str:
    """The imports of the text format, each as $name."""
    lines = []
    for name in names:
        key = (RINGFENCE, name) if (RINGFENCE, name) in IMPORTS else (WASI, name)
        lines.append(declared(IMPORTS[key], f"${name}"))
    return " ".join(lines)


def declared(one: Import, label: str) -> str:
    types = "".join(f"(param {kind})" for kind in one.parameters) + "".join(f"(result {kind})" for kind in one.results)
    return f'(import "{one.module}" "{one.name}" (func {label} {types}))'


def guest(body: str, *names: str, memory: str = "1", more: str = "") -> str:
    return f'(module {imported(*names)} (memory (export "memory") {memory}) {more} (func (export "_start") {body}))'


GATE = "(drop (call $quantum_gate (i32.const {}) (i32.const {}) (f64.const {})))"
MEASURE = "(drop (call $quantum_measure (i32.const 0) (i32.const 0)))"


def test_a_guest_may_import_everything_that_is_described(make: Make) -> None:
    text = " ".join(declared(one, "") for one in IMPORTS.values())
    make().run(f'(module {text} (memory (export "memory") 1) (func (export "_start")))')


@pytest.mark.parametrize("key", list(IMPORTS))
def test_an_import_with_another_type_is_not_linked(make: Make, key: tuple[str, str]) -> None:
    module, name = key
    text = f'(module (import "{module}" "{name}" (func (param f32))) (func (export "_start")))'
    with pytest.raises(WasmtimeError, match="incompatible import type"):
        make().run(text)


def test_a_gate_reaches_the_broker_with_all_its_bits(make: Make) -> None:
    runtime = make()
    runtime.run(guest(GATE.format(-1, -2, "-0x1.8p-1074") + GATE.format(8, 1 << 16, "0.5"), "quantum_gate"))
    assert runtime.channel.batches == [
        [ring.Gate(2**32 - 1, 2**32 - 2, float.fromhex("-0x1.8p-1074")), ring.Gate(8, 1 << 16, 0.5)]
    ]


def test_calls_of_the_shim_and_of_the_host_cross_in_the_order_in_which_they_were_made(make: Make) -> None:
    runtime = make()
    body = "".join(
        GATE.format(index, 0, 0)
        + f"(drop (call $amd_gpu_copy (i64.const {index}) (i64.const 8) (i64.const 4) (i32.const 3)))"
        + f"(drop (call $amd_gpu_copy (i64.const {index}) (i64.const 8) (i64.const 40) (i32.const 1)))"
        + GATE.format(index, 1, 0)
        for index in range(50)
    )
    runtime.run(guest(body + MEASURE + GATE.format(3, 3, 0), "quantum_gate", "amd_gpu_copy", "quantum_measure"))
    assert len(runtime.channel.batches) == 2
    assert runtime.channel.commands == [
        *(
            command
            for index in range(50)
            for command in (
                ring.Gate(index, 0, 0.0),
                ring.Copy(index, 8, 4),
                ring.Write(index, bytes(40)),
                ring.Gate(index, 1, 0.0),
            )
        ),
        ring.Measure(0, 0),
        ring.Gate(3, 3, 0.0),
    ]


@pytest.mark.parametrize("gates", [1, QUEUE_SLOTS - 1, QUEUE_SLOTS, QUEUE_SLOTS + 1, 3 * QUEUE_SLOTS + 7])
@pytest.mark.parametrize("measured", [False, True])
def test_gates_cross_by_themselves_when_the_queue_is_full_and_none_is_lost(
    make: Make, gates: int, measured: bool
) -> None:
    runtime = make()
    body = f"""(local $i i32)
      (loop $more (drop (call $quantum_gate (local.get $i) (i32.const 0) (f64.const 0)))
        (br_if $more (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const {gates}))))"""
    runtime.run(guest(body + MEASURE * measured, "quantum_gate", "quantum_measure"))
    assert runtime.channel.commands == [
        *(ring.Gate(index, 0, 0.0) for index in range(gates)),
        *[ring.Measure(0, 0)] * measured,
    ]
    assert max(map(len, runtime.channel.batches)) <= QUEUE_SLOTS
    assert progress.said(runtime.page, progress.COMMANDS) == gates + measured


def test_a_checkpoint_shows_at_once_in_memory_that_another_process_maps(make: Make) -> None:
    body = """(call $security_checkpoint (i32.const 9)) (call $security_checkpoint (i32.const -1))
      (drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0)))"""
    seen: list[int] = []

    def look() -> int:
        seen.extend(progress.said(runtime.page, word) for word in (progress.CHECKPOINTS, progress.LAST_CHECKPOINT))
        return 0

    runtime = make(clock=look)
    runtime.run(guest(body, "security_checkpoint", "clock_time_get"), devices=False)
    assert seen == [2, 2**32 - 1]
    assert runtime.channel.batches == []


@pytest.mark.parametrize("profile", ["locked", "open"])
def test_parameters_arrive_unsigned_and_results_come_back_whole(make: Make, profile: str) -> None:
    runtime = make(profile)
    body = """(i64.store (i32.const 0) (call $amd_gpu_alloc (i64.const -1) (i32.const 0)))"""
    runtime.channel.settle = lambda: struct.pack("<Q", 2**64 - 2)  # type: ignore[method-assign]
    runtime.run(guest(body, "amd_gpu_alloc"))
    assert runtime.channel.commands == [ring.Alloc(2**64 - 1)]
    assert bytes(runtime.memory.read(0, 8)) == struct.pack("<Q", 2**64 - 2)


def test_a_result_of_nothing_is_not_the_one_before(make: Make) -> None:
    runtime = make()
    runtime.channel.settle = iter([struct.pack("<Q", 2**64 - 1), b""]).__next__  # type: ignore[method-assign]
    body = """(drop (call $amd_gpu_alloc (i64.const 8) (i32.const 0)))
      (i32.store (i32.const 0) (i32.const -1)) (i32.store (i32.const 0) (call $sched_yield))"""
    runtime.run(guest(body, "amd_gpu_alloc", "sched_yield"))
    assert bytes(runtime.memory.read(0, 4)) == bytes(4)


CLOCK = "(i32.store (i32.const 0) (call $clock_time_get (i32.const {}) (i64.const -1) (i32.const {})))"


@pytest.mark.parametrize("clock", [0, 1])
@pytest.mark.parametrize("place", [8, 9, 12, PAGE - 8])
def test_a_clock_is_read_into_any_place_of_the_memory(make: Make, clock: int, place: int) -> None:
    runtime = make(clock=lambda: 0x0102030405060708)
    runtime.run(guest("(i32.store (i32.const 0) (i32.const 9))" + CLOCK.format(clock, place), "clock_time_get"))
    assert bytes(runtime.memory.read(place, 8)) == bytes.fromhex("0807060504030201")
    assert bytes(runtime.memory.read(0, 8)) == bytes(8)


@pytest.mark.parametrize(("clock", "place"), [(0, PAGE - 7), (1, PAGE - 7), (0, PAGE), (1, -8), (0, -1)])
def test_a_clock_is_read_into_no_other_place(make: Make, clock: int, place: int) -> None:
    with pytest.raises(SandboxError) as caught:
        make().run(guest(CLOCK.format(clock, place), "clock_time_get"))
    assert caught.value.code == GUEST_ARGUMENT


@pytest.mark.parametrize("clock", [2, 3, -1, -(2**31)])
def test_a_clock_that_does_not_exist_is_a_number_for_the_guest(make: Make, clock: int) -> None:
    runtime = make()
    runtime.run(guest(CLOCK.format(clock, -1), "clock_time_get"))
    assert bytes(runtime.memory.read(0, 4)) == struct.pack("<I", 28)


@pytest.mark.parametrize(("result", "seen"), [(0, 0), (7, 7), (-1, 2**32 - 1)])
def test_a_guest_is_entered_with_unsigned_parameters_and_results(make: Make, result: int, seen: int) -> None:
    store = make().store
    text = f"""(module (global (export "given") (mut i32) (i32.const 0))
      (func (export "none")) (func (export "trap") unreachable)
      (func (export "two") (param i32 i32) (result i32)
        (global.set 0 (local.get 1)) (if (i32.lt_s (local.get 0) (i32.const 0)) (then unreachable))
        (i32.const {result})))"""
    exports = Instance(store, Module(store.engine, bytes(wat2wasm(text))), []).exports(store)
    functions = {name: exports[name] for name in ("none", "two", "trap")}
    assert enter(store, functions["none"]) == 0  # type: ignore[arg-type]
    assert enter(store, functions["two"], 5, 2**32 - 2) == seen  # type: ignore[arg-type]
    assert exports["given"].value(store) == -2  # type: ignore[union-attr]
    for name, parameters in (("trap", ()), ("two", (2**31, 0))):
        with pytest.raises(Trap):
            enter(store, functions[name], *parameters)  # type: ignore[arg-type]
    with pytest.raises(WasmtimeError, match="another type"):
        enter(store, functions["two"], 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError(), KeyboardInterrupt(), RecursionError()])
def test_any_exception_of_a_host_function_ends_the_guest_and_comes_out(make: Make, error: BaseException) -> None:
    def fail() -> int:
        raise error

    runtime = make(clock=fail)
    body = "(drop (call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 0))) (call $proc_exit (i32.const 0))"
    with pytest.raises(type(error)) as caught:
        runtime.run(guest(body, "clock_time_get", "proc_exit"))
    assert caught.value is error


@pytest.mark.parametrize("where", ["(start $s)", ""])
def test_a_refused_call_ends_the_guest_with_its_code(make: Make, where: str) -> None:
    call = "(drop (call $random_get (i32.const -4) (i32.const 8)))"
    text = guest(call, "random_get", more=f"(func $s {call if where else ''}) {where}")
    with pytest.raises(SandboxError) as caught:
        make().run(text)
    assert caught.value.code == GUEST_ARGUMENT


def test_an_exit_unwinds_every_frame_of_the_guest(make: Make) -> None:
    with pytest.raises(GuestExit) as caught:
        make().run(guest("(call $proc_exit (i32.const -3)) unreachable", "proc_exit"))
    assert caught.value.status == 2**32 - 3


def test_a_trap_of_the_guest_s_own_stays_one(make: Make) -> None:
    with pytest.raises(Trap):
        make().run(guest("unreachable"))


@pytest.mark.parametrize("name", ["quantum_gate", "quantum_measure", "amd_gpu_sync"])
def test_a_guest_with_device_imports_needs_a_channel(make: Make, name: str) -> None:
    with pytest.raises(ValueError, match="channel"):
        make().run(guest("", name), devices=False)


def test_a_guest_without_imports_needs_nothing(make: Make) -> None:
    make().run('(module (func (export "_start")))', devices=False)


def test_the_guest_s_memory_and_the_shim_s_are_two(make: Make) -> None:
    runtime = make()
    # Were they one, the guest's bytes would be the queue's: all of its memory but the last word is written.
    body = GATE.format(3, 1, 0.5) + "(memory.fill (i32.const 0) (i32.const 255) (i32.const 65536))"
    runtime.run(guest(body + GATE.format(3, 1, 0.5), "quantum_gate"))
    assert runtime.channel.batches == [[ring.Gate(3, 1, 0.5)] * 2]


GROW = "(drop (memory.grow (i32.const {})))"


def test_a_guest_grows_to_its_limit_and_not_past_it(make: Make) -> None:
    runtime = make(limit=3 * PAGE)
    runtime.run(guest(GROW.format(2), memory="1"))
    assert (runtime.memory.size, runtime.memory.denied) == (3 * PAGE, 0)
    assert progress.said(runtime.page, progress.MEMORY) == 3 * PAGE
    runtime = make(limit=3 * PAGE)
    runtime.run(guest(GROW.format(3), memory="1"))
    assert (runtime.memory.size, runtime.memory.denied) == (PAGE, 4 * PAGE)
    runtime = make(limit=3 * PAGE)
    runtime.run(guest(GROW.format(3) + GROW.format(1), memory="1"))
    assert (runtime.memory.size, runtime.memory.denied) == (2 * PAGE, 0)


@pytest.mark.parametrize(
    ("length", "reach"),
    [
        (7, lambda memory, offset: memory.read(offset, 7)),
        (0, lambda memory, offset: memory.read(offset, 0)),
        (7, lambda memory, offset: memory.write(offset, b"1234567")),
        (4, lambda memory, offset: memory.put_u32(offset, 7)),
        (8, lambda memory, offset: memory.put_u64(offset, 7)),
        (8, lambda memory, offset: memory.vector(offset)),
    ],
)
def test_a_host_function_reaches_up_to_the_end_of_the_memory_and_no_further(
    make: Make, length: int, reach: Callable[[GuestMemory, int], object]
) -> None:
    runtime = make()
    runtime.run(guest(GROW.format(1)))
    reach(runtime.memory, 2 * PAGE - length)
    for offset in (2 * PAGE - length + 1, 2 * PAGE + 1, 2**32 - 1, 2**64 - 1):
        with pytest.raises(SandboxError) as caught:
            reach(runtime.memory, offset)
        assert caught.value.code == GUEST_ARGUMENT


def test_a_vector_names_what_lies_in_the_memory(make: Make) -> None:
    runtime = make()
    runtime.run(guest(""))
    memory = runtime.memory
    for address, length in ((PAGE - 3, 3), (PAGE, 0), (0, PAGE)):
        memory.write(8, struct.pack("<II", address, length))
        assert len(memory.vector(8)) == length
    for address, length in ((PAGE - 3, 4), (PAGE + 1, 0), (2**32 - 1, 2**32 - 1), (1, PAGE)):
        memory.write(8, struct.pack("<II", address, length))
        with pytest.raises(SandboxError):
            memory.vector(8)


def test_a_guest_that_starts_beyond_its_limit_is_known_as_such(make: Make) -> None:
    runtime = make(limit=PAGE)
    with pytest.raises(WasmtimeError):
        runtime.run(guest("", memory="2"))
    assert runtime.memory.denied == 2 * PAGE


def test_a_second_memory_is_not_given(make: Make) -> None:
    runtime = make()
    runtime.run(guest(""))
    with pytest.raises(WasmtimeError):
        runtime.run(guest(""))


def test_a_guest_with_a_64_bit_memory_is_linked_and_held_to_its_limit(make: Make) -> None:
    runtime = make("open", limit=2 * PAGE)
    body = """(i64.store (i64.const 65528) (i64.const 1)) (drop (memory.grow (i64.const 5)))
      (drop (call $sched_yield)) (call $security_checkpoint (i32.const 1))"""
    runtime.run(guest(body, "sched_yield", "security_checkpoint", memory="i64 1"), devices=False)
    assert (runtime.memory.size, runtime.memory.denied) == (PAGE, 6 * PAGE)
    with pytest.raises(Trap):
        make("open").run(guest("(i64.store (i64.const 0x100000000) (i64.const 1))", memory="i64 1"), devices=False)


def test_an_engine_s_first_memory_is_the_shim_s_or_none() -> None:
    memory = GuestMemory()
    memory.begin(16 * PAGE, lambda _size: None)
    machine = engine("locked", memory)
    with pytest.raises(WasmtimeError, match="not the shim's"):
        Instance(Store(machine), Module(machine, bytes(wat2wasm("(module (memory 1))"))), [])


def test_the_shim_can_be_compiled_before_and_for_every_profile() -> None:
    for profile in ("locked", "open"):
        compiled = Module(engine(profile), shim.binary()).serialize()
        memory = GuestMemory()
        machine = engine(profile, memory)
        Host(machine, memory, Module.deserialize(machine, compiled)).open(Store(machine))
