"""Compiled modules, kept: nothing is run that this agent's compiler did not make for that very job."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import WORKER_LOST, SandboxError
from ringfence.agent.sandbox import files
from ringfence.agent.sandbox.children import Child, Children
from ringfence.agent.sandbox.exchange import Refusal
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.modules import Compiled, Modules, ModuleStore, Wanted, open_store
from ringfence.agent.sandbox.orders import CompileOrder, Order
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.sandbox.validation import Report
from ringfence.agent.sandbox.verdicts import Verdict

MIB = 1 << 20
NAME, OTHER = "a" * 64, "b" * 64
ACCEPTED = Verdict(Report(Level.HIGH, (), entry="command"), None)
REFUSED = Verdict(None, Refusal("sandbox.module_refused", "No."))
WANTED = Wanted(b"module", Level.HIGH, 1 << 20, 0)
ECHO = bytes(
    wasmtime.wat2wasm("""(module
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1) (data (i32.const 0) "\\08\\00\\00\\00\\05\\00\\00\\00right")
      (func (export "_start") (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 64)))))""")
)


@pytest.fixture
def store(tmp_path: Path) -> ModuleStore:
    opened = open_store(tmp_path / "modules", MIB)
    assert opened is not None
    return opened


def entry(tmp_path: Path, name: str = NAME) -> Path:
    return tmp_path / "modules" / f"{name}.module"


def test_what_was_saved_comes_back(store: ModuleStore, tmp_path: Path) -> None:
    store.save(NAME, ACCEPTED, b"native code")
    assert store.load(NAME) == (ACCEPTED, b"native code")
    assert store.load(OTHER) is None
    again = open_store(tmp_path / "modules", MIB)
    assert again is not None
    assert again.load(NAME) == (ACCEPTED, b"native code")
    assert entry(tmp_path).stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in (tmp_path / "modules").iterdir()) == [entry(tmp_path).name]


@pytest.mark.parametrize("at", [0, 24, 25, 40, 56, 57, 61, 100, -1])
def test_a_changed_entry_is_not_used_and_removed(store: ModuleStore, tmp_path: Path, at: int) -> None:
    store.save(NAME, ACCEPTED, b"native code")
    content = bytearray(entry(tmp_path).read_bytes())
    content[at] ^= 1
    entry(tmp_path).write_bytes(content)
    assert store.load(NAME) is None
    assert not entry(tmp_path).exists()


@pytest.mark.parametrize("length", [0, 1, 24, 25, 56, 57, 60, 61, 100])
def test_an_entry_cut_short_is_not_used_and_removed(store: ModuleStore, tmp_path: Path, length: int) -> None:
    store.save(NAME, ACCEPTED, b"native code")
    entry(tmp_path).write_bytes(entry(tmp_path).read_bytes()[:length])
    assert store.load(NAME) is None
    assert not entry(tmp_path).exists()


def test_an_entry_of_another_module_is_not_used(store: ModuleStore, tmp_path: Path) -> None:
    store.save(OTHER, ACCEPTED, b"another module's code")
    entry(tmp_path, OTHER).rename(entry(tmp_path))
    assert store.load(NAME) is None


def test_an_entry_of_another_key_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "modules").mkdir()
    ModuleStore(tmp_path / "modules", bytes(32), MIB).save(NAME, ACCEPTED, b"native code")
    mine = open_store(tmp_path / "modules", MIB)
    assert mine is not None
    assert mine.load(NAME) is None


def test_the_key_lies_where_who_writes_the_cache_cannot_replace_it(store: ModuleStore, tmp_path: Path) -> None:
    store.save(NAME, ACCEPTED, b"native code")
    key = tmp_path / "modules.key"
    assert (len(key.read_bytes()), key.stat().st_mode & 0o777) == (32, 0o600)
    key.write_bytes(b"written halfway")
    renewed = open_store(tmp_path / "modules", MIB)
    assert renewed is not None
    assert len(key.read_bytes()) == 32
    assert renewed.load(NAME) is None


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "giant"])
def test_what_is_no_entry_holds_nobody(store: ModuleStore, tmp_path: Path, kind: str) -> None:
    """A fifo would never end, a giant not fit, and a link lead elsewhere."""
    path = entry(tmp_path)
    store.save(OTHER, ACCEPTED, b"native code")
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "link":
            path.symlink_to(entry(tmp_path, OTHER))
        case "folder":
            path.mkdir()
        case "giant":
            with path.open("wb") as file:
                file.truncate(1 << 40)
    assert store.load(NAME) is None
    store.save(NAME, ACCEPTED, b"native code")
    if kind != "folder":
        assert store.load(NAME) == (ACCEPTED, b"native code")
    assert not list((tmp_path / "modules").glob("*.new"))


def test_what_was_planted_where_an_entry_is_written_is_not_written_to(store: ModuleStore, tmp_path: Path) -> None:
    planted = tmp_path / "modules" / f"{NAME}.{os.getpid()}.new"
    (tmp_path / "elsewhere").write_bytes(b"mine")
    for fifo in (True, False):
        if fifo:
            os.mkfifo(planted)
        else:
            planted.symlink_to(tmp_path / "elsewhere")
        store.save(NAME, ACCEPTED, b"native code")
        assert not planted.is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"mine"
    store.save(NAME, ACCEPTED, b"native code")
    assert store.load(NAME) == (ACCEPTED, b"native code")


def test_a_folder_that_cannot_be_written_costs_a_compilation_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    lost = ModuleStore(tmp_path / "file" / "modules", bytes(32), MIB)
    lost.save(NAME, ACCEPTED, b"native code")
    assert lost.load(NAME) is None


def test_the_entries_used_longest_ago_make_room(tmp_path: Path) -> None:
    store = open_store(tmp_path / "modules", 5000)
    assert store is not None
    names = [letter * 64 for letter in "abcdef"]
    for at, name in enumerate(names[:4]):
        store.save(name, ACCEPTED, bytes(900))
        os.utime(entry(tmp_path, name), (at, at))
    assert store.load(names[0]) is not None
    store.save(names[4], ACCEPTED, bytes(1500))
    kept = [name[0] for name in names if entry(tmp_path, name).exists()]
    assert kept == ["a", "d", "e"]
    store.save(names[5], ACCEPTED, bytes(6000))
    assert not list((tmp_path / "modules").glob("*.module"))


def test_no_capacity_is_no_store(tmp_path: Path) -> None:
    assert open_store(tmp_path / "modules", 0) is None
    assert not (tmp_path / "modules").exists()


def test_the_name_of_an_entry_covers_all_that_it_depends_on() -> None:
    others = [
        replace(WANTED, code=b"another"),
        replace(WANTED, level=Level.LOW),
        replace(WANTED, memory_bytes=1 << 21),
        replace(WANTED, qubits=1),
    ]
    names = {one.name("runtime") for one in (WANTED, *others)} | {WANTED.name("another runtime")}
    assert len(names) == 6


class Compiler:
    """Compiles as the test says: a module's code is its bytes twice; `b"bad..."` is refused, `b"lost..."` fails."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.cancelled = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, wanted: Wanted, stack: ExitStack) -> Compiled:
        self.asked.append(wanted.code)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if wanted.code.startswith(b"lost"):
            raise SandboxError(WORKER_LOST, "Lost.")
        if wanted.code.startswith(b"bad"):
            files.growing(stack, "compiled")
            return Compiled(REFUSED, -1, 0, 100, 1.0)
        code = wanted.code * 2
        return Compiled(ACCEPTED, files.sealed(stack, "compiled", code), len(code), len(code), 1.0)


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    before = len(os.listdir("/proc/self/fd"))
    yield Compiler()
    assert len(os.listdir("/proc/self/fd")) == before


async def code_of(modules: Modules, wanted: Wanted = WANTED) -> bytes:
    with ExitStack() as stack:
        compiled = await modules.get(wanted, stack)
        return os.pread(compiled.descriptor, compiled.size + 1, 0)


async def test_jobs_that_want_the_same_at_a_time_wait_for_one_compilation(compiler: Compiler) -> None:
    with closing(Modules(compiler)) as modules:
        compiler.go.clear()
        jobs = [asyncio.create_task(code_of(modules)) for _ in range(5)]
        await asyncio.sleep(0)
        jobs[0].cancel()
        await asyncio.sleep(0)
        compiler.go.set()
        assert await asyncio.gather(*jobs[1:]) == [b"modulemodule"] * 4
        assert await code_of(modules) == b"modulemodule"
        assert compiler.asked == [b"module"]


async def test_a_compilation_that_nobody_waits_for_any_more_ends(compiler: Compiler) -> None:
    with closing(Modules(compiler)) as modules:
        compiler.go.clear()
        jobs = [asyncio.create_task(code_of(modules)) for _ in range(3)]
        await asyncio.sleep(0)
        for job in jobs:
            job.cancel()
        await asyncio.wait(jobs)
        assert (len(compiler.asked), compiler.cancelled) == (1, 1)
        compiler.go.set()
        assert await code_of(modules) == b"modulemodule"


async def test_a_compilation_that_fails_fails_for_who_waits_and_is_not_kept(compiler: Compiler) -> None:
    with closing(Modules(compiler)) as modules:
        lost = replace(WANTED, code=b"lost")
        ends = await asyncio.gather(*(code_of(modules, lost) for _ in range(3)), return_exceptions=True)
        assert all(isinstance(end, SandboxError) for end in ends)
        with pytest.raises(SandboxError):
            await code_of(modules, lost)
        assert len(compiler.asked) == 2


async def test_another_level_or_limit_is_another_compilation(compiler: Compiler) -> None:
    with closing(Modules(compiler)) as modules:
        for wanted in (WANTED, replace(WANTED, level=Level.LOW), replace(WANTED, qubits=3)):
            for _ in range(2):
                await code_of(modules, wanted)
        assert len(compiler.asked) == 3


async def test_a_refusal_is_kept_and_holds_no_descriptor(compiler: Compiler) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(Modules(compiler)) as modules, ExitStack() as stack:
        for number in range(300):
            wanted = replace(WANTED, code=b"bad%d" % number)
            assert (await modules.get(wanted, stack)).verdict == REFUSED
            assert (await modules.get(wanted, stack)).descriptor == -1
        assert len(compiler.asked) == 300
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(("capacity", "size"), [(10_000, 1000), (MIB, 10)])
async def test_what_is_kept_is_bounded_in_bytes_and_in_number(compiler: Compiler, capacity: int, size: int) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with closing(Modules(compiler, capacity=capacity)) as modules:
        for number in range(400):
            await code_of(modules, replace(WANTED, code=b"%0*d" % (size, number)))
        assert len(os.listdir("/proc/self/fd")) - before <= min(capacity // (2 * size), 256)
        last = replace(WANTED, code=b"%0*d" % (size, 399))
        await code_of(modules, last)
        assert len(compiler.asked) == 400


async def test_what_a_job_has_taken_outlives_what_is_kept(compiler: Compiler) -> None:
    """Also one that is too large to be kept at all."""
    with closing(Modules(compiler, capacity=20)) as modules, ExitStack() as stack:
        first = await modules.get(WANTED, stack)
        for number in range(5):
            await code_of(modules, replace(WANTED, code=b"another%d" % number))
        assert os.pread(first.descriptor, 100, 0) == b"modulemodule"
        large = replace(WANTED, code=b"x" * 100)
        compiler.go.clear()
        both = [asyncio.create_task(code_of(modules, large)) for _ in range(2)]
        await asyncio.sleep(0)
        compiler.go.set()
        assert await asyncio.gather(*both) == [b"x" * 200] * 2


async def test_a_store_spares_the_compilation_and_keeps_no_refusal(
    compiler: Compiler, store: ModuleStore, tmp_path: Path
) -> None:
    with closing(Modules(compiler, store)) as modules:
        assert await code_of(modules) == b"modulemodule"
        with ExitStack() as stack:
            await modules.get(replace(WANTED, code=b"bad"), stack)
    with closing(Modules(compiler, store)) as modules:
        assert await code_of(modules) == b"modulemodule"
    assert compiler.asked == [b"module", b"bad"]
    (kept,) = (tmp_path / "modules").glob("*.module")
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    with closing(Modules(compiler, store)) as modules:
        assert await code_of(modules) == b"modulemodule"
    assert len(compiler.asked) == 3


class Counting(Children):
    """Counts the compile children that it forks."""

    compiled = 0

    async def fork(self, order: Callable[[int], Order], descriptors: Sequence[int]) -> Child:
        self.compiled += isinstance(order(0), CompileOrder)
        return await super().fork(order, descriptors)


async def test_code_from_the_disk_runs_and_forged_code_does_not(
    limits: Limits, store: ModuleStore, tmp_path: Path
) -> None:
    async def run(children: Children) -> bytes:
        with closing(ProcessSandbox(children, store=store)) as sandbox:
            return (await sandbox.run(GuestJob(ECHO, b"", limits))).output

    with closing(Counting()) as children:
        assert [await run(children) for _ in range(3)] == [b"right"] * 3
        assert children.compiled == 1
        (kept,) = (tmp_path / "modules").glob("*.module")
        content = kept.read_bytes()
        assert b"right" in content
        kept.write_bytes(content.replace(b"right", b"wrong"))
        assert [await run(children) for _ in range(2)] == [b"right"] * 2
        assert children.compiled == 2
