"""WASI preview 1 beyond reading and writing: every function is there, and none reaches more than the three streams."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from importlib.resources import files

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from wasmtime import Engine, Linker, Module, Store, WasiConfig, WasmtimeError, wat2wasm

from ringfence.agent.errors import DEADLINE, GUEST_ARGUMENT, GUEST_EXIT, SandboxError
from ringfence.agent.sandbox import wasi_absent, wasi_polling
from ringfence.agent.sandbox.hostcalls import HostFunction
from ringfence.agent.sandbox.imports import IMPORTS, WASI, Import
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.sandbox.wasi import GuestExit, Wasi

SUCCESS, BADF, INVAL, NOTDIR, NOTSOCK, NOTSUP, SPIPE, NOTCAPABLE = 0, 8, 28, 54, 57, 58, 70, 76
READ, WRITE, SET_FLAGS, FILESTAT, POLL = 1 << 1, 1 << 6, 1 << 3, 1 << 21, 1 << 27
OFFERED = {name: one for (module, name), one in IMPORTS.items() if module == WASI}
LIBC = "lib/libc/wasi/libc-bottom-half/sources/__wasilibc_real.c"
NOW = (1_000, 50)
PAGE = 65536


class PlainMemory:
    """A guest's memory of one page."""

    def __init__(self) -> None:
        self.data = bytearray(PAGE)

    def read(self, offset: int, length: int) -> memoryview:
        if offset + length > PAGE:
            raise SandboxError(GUEST_ARGUMENT, "outside")
        return memoryview(self.data)[offset : offset + length]

    def write(self, offset: int, data: bytes | memoryview) -> None:
        self.read(offset, len(data))[:] = data

    def vector(self, offset: int) -> memoryview:
        return self.read(*struct.unpack("<II", self.read(offset, 8)))

    def put_u32(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack("<I", value))

    def put_u64(self, offset: int, value: int) -> None:
        self.write(offset, struct.pack("<Q", value))


class Guest:
    """One guest's functions by their names, over a page of memory; `slept` is what it has waited, in nanoseconds."""

    def __init__(self, given: bytes = b"input", limit: int = 100) -> None:
        self.memory = PlainMemory()
        self.slept: list[int] = []
        self.streams = Wasi(
            self.memory,
            memoryview(given),
            limit,
            clocks=(lambda: NOW[0], lambda: NOW[1]),
            random=bytes,
            sleep=self.slept.append,
        )
        self.functions = self.streams.functions()

    def __getattr__(self, name: str) -> HostFunction:
        return self.functions[name]

    def state(self, descriptor: int) -> tuple[int, ...]:
        """Type, flags, rights and inherited rights of a stream, by fd_fdstat_get."""
        assert self.fd_fdstat_get(descriptor, 0) == SUCCESS
        return struct.unpack("<BxHxxxxQQ", self.memory.read(0, 24))

    def poll(self, *subscriptions: bytes) -> list[tuple[int, ...]]:
        """The events of a poll, each as user data, error, type, bytes and flags."""
        self.memory.write(0, b"".join(subscriptions))
        assert self.poll_oneoff(0, 4096, len(subscriptions), 8192) == SUCCESS
        (count,) = struct.unpack("<I", self.memory.read(8192, 4))
        return [struct.unpack_from("<QHB5xQH6x", self.memory.data, 4096 + 32 * index) for index in range(count)]

    def print(self, descriptor: int, text: bytes) -> int | None:
        """Write through fd_write."""
        self.memory.write(0, struct.pack("<II", 16, len(text)) + bytes(8) + text)
        return self.fd_write(descriptor, 0, 1, 8)


def clock(userdata: int, timeout: int, *, which: int = 1, flags: int = 0) -> bytes:
    return struct.pack("<QB7xI4xQQH6x", userdata, 0, which, timeout, 0, flags)


def stream(userdata: int, kind: int, descriptor: int) -> bytes:
    return struct.pack("<QB7xI28x", userdata, kind, descriptor)


@pytest.fixture
def guest() -> Guest:
    return Guest()


def importing(described: list[Import]) -> bytes:
    """A module that imports those functions with the types that they are described with."""
    clauses = "".join(
        f'(import "{one.module}" "{one.name}" (func (param {" ".join(one.parameters)})'
        f" (result {' '.join(one.results)})))"
        for one in described
    )
    return bytes(wat2wasm(f'(module {clauses} (memory (export "memory") 1))'))


def test_the_c_library_imports_nothing_else_and_with_the_same_types() -> None:
    text = files("ziglang").joinpath(LIBC).read_text(encoding="ascii")
    declared = re.findall(r"__imported_wasi_snapshot_preview1_(\w+)\(([^)]*)\) __attribute__", text)
    types = {name: tuple(f"i{bits}" for bits in re.findall(r"int(\d+)_t", arguments)) for name, arguments in declared}
    # It raises signals by itself, so it declares all but one.
    assert types == {name: one.parameters for name, one in OFFERED.items() if name != "proc_raise"}


def test_the_runtimes_own_wasi_has_every_function_with_the_same_type() -> None:
    engine = Engine()
    store, linker = Store(engine), Linker(engine)
    store.set_wasi(WasiConfig())
    linker.define_wasi()
    linker.instantiate(store, Module(engine, importing(list(OFFERED.values()))))
    wrong = Import(WASI, "fd_tell", ("i32",), ("i32",), False, "wasi", True, "", "", "", "")
    with pytest.raises(WasmtimeError, match="fd_tell"):
        linker.instantiate(store, Module(engine, importing([wrong])))


def test_every_function_is_there_and_no_other(guest: Guest) -> None:
    assert set(guest.functions) == set(OFFERED)
    assert len(OFFERED) == 46


@pytest.mark.parametrize("name", wasi_absent.functions({}))
def test_what_is_about_files_and_sockets_says_so_and_touches_nothing(guest: Guest, name: str) -> None:
    at = 2 if name == "path_symlink" else 0
    of_a_stream = {"path": NOTDIR, "sock": NOTSOCK}.get(name.partition("_")[0]) or {
        "fd_readdir": NOTDIR,
        "fd_prestat_get": BADF,
        "fd_prestat_dir_name": BADF,
        "fd_sync": INVAL,
        "fd_datasync": INVAL,
        "fd_filestat_set_size": INVAL,
        "fd_filestat_set_times": NOTCAPABLE,
    }.get(name, SPIPE)
    for rest in (0, PAGE - 1, 2**32 - 1):
        for descriptor in (0, 1, 2, 3, 100, 2**31, 2**32 - 1):
            arguments = [rest] * len(OFFERED[name].parameters)
            arguments[at] = descriptor
            assert guest.functions[name](*arguments) == (of_a_stream if descriptor < 3 else BADF)
    assert guest.memory.data == bytes(PAGE)
    guest.fd_close(1)
    assert guest.functions[name](*[1] * len(OFFERED[name].parameters)) == BADF


def test_both_clocks_have_a_resolution(guest: Guest) -> None:
    for which in (0, 1):
        assert guest.clock_res_get(which, 8 * which) == SUCCESS
    assert struct.unpack("<QQ", guest.memory.read(0, 16)) == (1, 1)
    assert guest.clock_res_get(2, 0) == INVAL
    with pytest.raises(SandboxError):
        guest.clock_res_get(0, PAGE - 7)


def test_a_closed_stream_is_gone(guest: Guest) -> None:
    assert guest.print(1, b"before") == SUCCESS
    assert guest.fd_close(1) == SUCCESS
    assert guest.print(1, b"after") == BADF
    assert (guest.fd_close(1), guest.fd_fdstat_get(1, 0), guest.fd_filestat_get(1, 0)) == (BADF, BADF, BADF)
    assert guest.print(2, b"still open") == SUCCESS
    assert (bytes(guest.streams.output), bytes(guest.streams.diagnostics)) == (b"before", b"still open")
    assert guest.fd_close(3) == BADF


def test_a_stream_takes_the_place_of_another(guest: Guest) -> None:
    assert guest.fd_renumber(2, 1) == SUCCESS
    assert guest.print(1, b"to diagnostics") == SUCCESS
    assert guest.print(2, b"to nobody") == BADF
    assert (bytes(guest.streams.output), bytes(guest.streams.diagnostics)) == (b"", b"to diagnostics")
    assert guest.fd_renumber(0, 0) == SUCCESS
    assert guest.state(0)[2] & READ
    # Only what is open can be replaced, so there are never more than three.
    assert [guest.fd_renumber(*pair) for pair in ((0, 3), (3, 0), (1, 2), (2, 1), (2**32 - 1, 5))] == [BADF] * 5


def test_a_stream_takes_the_flags_that_are_true_of_it_anyway(guest: Guest) -> None:
    assert guest.fd_fdstat_set_flags(1, 1 | 4) == SUCCESS
    assert guest.state(1) == (0, 5, WRITE | SET_FLAGS | FILESTAT | POLL, 0)
    assert guest.state(0) == (0, 0, READ | SET_FLAGS | FILESTAT | POLL, 0)
    for flag, answer in ((2, NOTSUP), (8, NOTSUP), (16, NOTSUP), (32, INVAL), (2**31, INVAL)):
        assert guest.fd_fdstat_set_flags(1, flag) == answer
    assert guest.state(1)[1] == 5
    assert guest.fd_fdstat_set_flags(3, 0) == BADF


def test_rights_are_given_up_for_good(guest: Guest) -> None:
    assert guest.fd_fdstat_set_rights(1, WRITE | READ, 0) == NOTCAPABLE
    assert guest.fd_fdstat_set_rights(1, WRITE, 1) == NOTCAPABLE
    assert guest.fd_fdstat_set_rights(3, 0, 0) == BADF
    assert guest.print(1, b"yes") == SUCCESS
    assert guest.fd_fdstat_set_rights(1, FILESTAT, 0) == SUCCESS
    assert guest.print(1, b"no") == BADF
    assert guest.fd_filestat_get(1, 0) == SUCCESS
    assert guest.fd_fdstat_set_flags(1, 0) == NOTCAPABLE
    assert guest.poll(stream(7, 2, 1)) == [(7, NOTCAPABLE, 2, 0, 0)]
    assert guest.fd_fdstat_set_rights(1, FILESTAT | WRITE, 0) == NOTCAPABLE
    assert guest.fd_fdstat_set_rights(1, 0, 0) == SUCCESS
    assert guest.fd_filestat_get(1, 0) == NOTCAPABLE
    assert guest.fd_fdstat_set_rights(0, 0, 0) == SUCCESS
    assert guest.fd_read(0, 0, 0, 0) == BADF
    assert bytes(guest.streams.output) == b"yes"


def test_the_state_of_a_stream_is_of_an_unknown_type(guest: Guest) -> None:
    guest.memory.write(0, b"\xff" * 80)
    assert guest.fd_filestat_get(2, 8) == SUCCESS
    assert struct.unpack("<8s8Q8s", guest.memory.read(0, 80)) == (b"\xff" * 8, 0, 2, 0, 1, 0, 0, 0, 0, b"\xff" * 8)
    with pytest.raises(SandboxError):
        guest.fd_filestat_get(2, PAGE - 63)


@pytest.mark.parametrize(
    ("subscriptions", "slept", "events"),
    [
        ([clock(1, 30)], [30], [(1, 0, 0, 0, 0)]),
        ([clock(1, 2**64 - 1)], [2**64 - 1], [(1, 0, 0, 0, 0)]),
        ([clock(1, 0)], [], [(1, 0, 0, 0, 0)]),
        ([clock(1, 30), clock(2, 20), clock(3, 20, which=0)], [20], [(2, 0, 0, 0, 0), (3, 0, 0, 0, 0)]),
        ([clock(1, NOW[1] + 9, flags=1)], [9], [(1, 0, 0, 0, 0)]),
        ([clock(1, NOW[0] + 9, which=0, flags=1)], [9], [(1, 0, 0, 0, 0)]),
        ([clock(1, NOW[1] - 9, flags=1)], [], [(1, 0, 0, 0, 0)]),
        ([clock(1, 5, which=2)], [], [(1, INVAL, 0, 0, 0)]),
        ([clock(1, 5, flags=2)], [], [(1, INVAL, 0, 0, 0)]),
        ([clock(1, 5), stream(2, 1, 0)], [], [(2, 0, 1, 5, 0)]),
        ([stream(1, 2, 1), stream(2, 2, 2), clock(3, 0)], [], [(1, 0, 2, 100, 0), (2, 0, 2, 1024, 0), (3, 0, 0, 0, 0)]),
        ([stream(1, 1, 1), stream(2, 2, 0)], [], [(1, BADF, 1, 0, 0), (2, BADF, 2, 0, 0)]),
        ([clock(1, 5), stream(2, 1, 3)], [], [(2, BADF, 1, 0, 0)]),
    ],
)
def test_a_poll_waits_for_the_first_of_its_events(
    guest: Guest, subscriptions: list[bytes], slept: list[int], events: list[tuple[int, ...]]
) -> None:
    assert guest.poll(*subscriptions) == events
    assert guest.slept == slept


def test_the_input_stays_ready_at_its_end() -> None:
    assert Guest(given=b"").poll(stream(1, 1, 0)) == [(1, 0, 1, 0, 0)]


def test_a_poll_that_cannot_be_meant_does_not_sleep(guest: Guest) -> None:
    guest.memory.write(0, clock(1, 5) * 2)
    for count in (0, 1025, 2**32 - 1):
        assert guest.poll_oneoff(0, 4096, count, 8192) == INVAL
    for places in ((PAGE - 47, 4096, 1, 8192), (0, PAGE - 63, 2, 8192), (0, 4096, 1, PAGE - 3)):
        with pytest.raises(SandboxError) as caught:
            guest.poll_oneoff(*places)
        assert caught.value.code == GUEST_ARGUMENT
    guest.memory.write(0, clock(1, 5) + struct.pack("<QB39x", 2, 3))
    assert guest.poll_oneoff(0, 4096, 2, 8192) == INVAL
    assert guest.slept == []


def test_the_events_may_overwrite_the_subscriptions(guest: Guest) -> None:
    guest.memory.write(0, clock(1, 5) + clock(2, 5))
    assert guest.poll_oneoff(0, 0, 2, 8192) == SUCCESS
    assert [struct.unpack_from("<Q", guest.memory.data, at)[0] for at in (0, 32)] == [1, 2]


def shaped(count: int) -> st.SearchStrategy[bytes]:
    """Subscriptions of which each field may be anything."""
    words = st.integers(0, 2**64 - 1) | st.integers(0, 3)
    halves = st.integers(0, 2**32 - 1) | st.integers(0, 3)
    fields = (words, st.integers(0, 3), halves, words, words, st.integers(0, 3))
    one = st.builds(lambda *values: struct.pack("<QB7xI4xQQH6x", *values), *fields)
    return st.lists(one, min_size=1, max_size=count).map(b"".join)


@given(shaped(5) | st.binary(min_size=48, max_size=48))
@example(bytes(48))
def test_any_subscriptions_are_answered_or_refused(subscriptions: bytes) -> None:
    slept: list[int] = []
    clocks = (lambda: 2**63, lambda: 0)
    try:
        events = wasi_polling.poll(subscriptions, clocks=clocks, ready=lambda _kind, _at: (0, 1), sleep=slept.append)
    except ValueError:
        assert slept == []
        return
    assert wasi_polling.EVENT_BYTES <= len(events) <= len(subscriptions) // 48 * wasi_polling.EVENT_BYTES
    assert len(slept) <= 1


@pytest.mark.parametrize(
    ("signal", "answer"),
    [
        *((ignored, SUCCESS) for ignored in (0, 13, 16, 17, 22, 27)),
        *((stopping, NOTSUP) for stopping in (18, 19, 20, 21)),
        *((unknown, INVAL) for unknown in (31, 255, 2**32 - 1)),
    ],
)
def test_a_signal_that_ends_nothing_is_answered(guest: Guest, signal: int, answer: int) -> None:
    assert guest.proc_raise(signal) == answer


@pytest.mark.parametrize("signal", [1, 6, 9, 11, 15, 30])
def test_a_signal_that_ends_a_process_ends_the_guest(guest: Guest, signal: int) -> None:
    with pytest.raises(GuestExit) as caught:
        guest.proc_raise(signal)
    assert caught.value.status == 128 + signal


def command(imports: str, body: str) -> bytes:
    """A guest that says "ok" at its end; at address 0 it has a subscription to 50 ms on the monotonic clock."""
    subscription = "".join(f"\\{byte:02x}" for byte in clock(1, 50_000_000))
    return bytes(
        wat2wasm(
            f"""(module {imports} (memory (export "memory") 1 1)
            (data (i32.const 0) "{subscription}") (data (i32.const 256) "\\08\\01\\00\\00\\02\\00\\00\\00ok")
            (func $same (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then (unreachable))))
            (func (export "_start") {body}
              (drop (call $fd_write (i32.const 1) (i32.const 256) (i32.const 1) (i32.const 300)))))"""
        )
    )


SLEEP = "(call $poll_oneoff (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))"


async def test_a_locked_down_worker_sleeps_without_working(
    sandbox: ProcessSandbox, limits: Limits, imported: Callable[..., str]
) -> None:
    body = "(local $left i32) (local.set $left (i32.const 10)) (loop $again"
    body += f"(call $same {SLEEP} (i32.const 0)) (call $same (i32.load (i32.const 128)) (i32.const 1))"
    body += "(br_if $again (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))"
    outcome = await sandbox.run(GuestJob(command(imported("fd_write", "poll_oneoff"), body), b"", limits))
    assert outcome.output == b"ok"
    assert outcome.usage.wall_ms > 500
    assert outcome.usage.cpu_ms < outcome.usage.wall_ms / 2


async def test_a_guest_that_sleeps_past_its_deadline_is_killed_at_it(
    sandbox: ProcessSandbox, imported: Callable[..., str]
) -> None:
    limits = Limits(memory_bytes=1 << 20, gpu_memory_bytes=1, deadline_ms=1_500, output_bytes=8, qubits=0)
    body = f"(i64.store (i32.const 24) (i64.const -1)) (drop {SLEEP})"
    with pytest.raises(GuestError) as caught:
        await sandbox.run(GuestJob(command(imported("fd_write", "poll_oneoff"), body), b"", limits))
    assert caught.value.code == DEADLINE


async def test_a_locked_down_guest_reaches_each_function_with_its_own_parameters(
    sandbox: ProcessSandbox, limits: Limits, imported: Callable[..., str]
) -> None:
    # Every function that only answers, of a stream and of no stream; path_open has the most parameters of all.
    names = [name for name in wasi_absent.functions({}) if name != "path_symlink"]
    body = ""
    for name in names:
        head, *rest = OFFERED[name].parameters
        others = " ".join(f"({kind}.const -1)" for kind in rest)
        kind, in_a_stream = name.partition("_")[0], wasi_absent.functions({0})[name](0)
        assert kind in ("fd", "path", "sock")
        for descriptor, answer in ((0, in_a_stream), (3, BADF)):
            body += f"(call $same (call ${name} ({head}.const {descriptor}) {others}) (i32.const {answer}))\n"
    outcome = await sandbox.run(GuestJob(command(imported("fd_write", *names), body), b"", limits))
    assert outcome.output == b"ok"


async def test_an_abort_ends_the_guest_with_its_status(
    sandbox: ProcessSandbox, limits: Limits, imported: Callable[..., str]
) -> None:
    body = "(drop (call $proc_raise (i32.const 6)))"
    with pytest.raises(GuestError) as caught:
        await sandbox.run(GuestJob(command(imported("fd_write", "proc_raise"), body), b"", limits))
    assert caught.value.code == GUEST_EXIT
    assert "status 134" in caught.value.message
