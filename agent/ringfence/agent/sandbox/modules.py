"""Compiled modules, kept: in memory as sealed files that every worker can take, and on disk under a key of the agent.

Running a compiled module is running native code, so what is read back from the disk is authenticated first
(HMAC-SHA256): whoever can write the cache's folder, beside which the key lies, can empty it, no more. An entry's name
covers all that it depends on: the module, the versions of the checks and of the runtime, this processor's features, the
level and the limits it was validated for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import mmap
import os
import platform
import secrets
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from io import FileIO
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.confine.shares import ALL
from ringfence.agent.sandbox import files
from ringfence.agent.sandbox.exchange import COMPILER_CODES, Refusal
from ringfence.agent.sandbox.imports import IMPORTS
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.lockdown import MAX_COMPILED
from ringfence.agent.sandbox.verdicts import MAX_VERDICT, Verdict, too_much

MIB: Final = 1024 * 1024
_MAGIC: Final = b"ringfence module cache 1\n"
_TAG: Final = 32
_SUFFIX: Final = ".module"
_UNFINISHED: Final = ".new"
_LARGEST_ENTRY: Final = MAX_COMPILED + MAX_VERDICT + MIB
_KEY_SUFFIX: Final = ".key"
_KEY_BYTES: Final = 32
_DEVICES: Final = ("gpu", "quantum")
# Each module that is kept in memory holds a descriptor, and a verdict there is about eight times its JSON.
_MOST_KEPT: Final = 256
_VERDICT_FACTOR: Final = 8
# Up to here a module's digest costs less than handing it to another thread.
_INLINE: Final = 256 * 1024
_MOST_WRITES: Final = 8
# What can be written, and authenticated, without being copied.
_Buffer = bytes | memoryview | mmap.mmap
_verdicts = msgspec.json.Decoder(Verdict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A module, and what it is to be validated for.

    `compute_units` is the share of thread time for compiling it; where several jobs wait, the first one's.
    """

    code: bytes
    level: Level
    memory_bytes: int
    qubits: int
    compute_units: int = ALL

    def name(self, runtime: str) -> str:
        """The name of its entry under a runtime, 64 hexadecimal digits."""
        parts = (str(self.level), str(self.memory_bytes), str(self.qubits), hashlib.sha256(self.code).hexdigest())
        return hashlib.sha256("\n".join((runtime, *parts)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A verdict, and for an accepted module the descriptor of its sealed native code, of `size` bytes.

    `weight` is what keeping both in memory costs, in bytes; `cpu_ms` is what compiling took, for who had it done.
    """

    verdict: Verdict
    descriptor: int
    size: int
    weight: int
    cpu_ms: float

    @property
    def entry(self) -> str:
        """How the module is entered: `command` or `reactor`."""
        return "" if self.verdict.report is None else self.verdict.report.entry

    @property
    def uses_devices(self) -> bool:
        """Whether it needs a device broker."""
        report = self.verdict.report
        return report is not None and any(IMPORTS[used].family in _DEVICES for used in report.imports)


Compile = Callable[[Wanted, ExitStack], Awaitable[Compiled]]


class ModuleStore:
    """The folder of the cache on disk; `key` (32 bytes) authenticates it. Errors of the disk only cost a compilation.

    The oldest entries go when all of them together have more than `capacity` bytes. It may be read from several threads
    while one writes.
    """

    def __init__(self, folder: Path, key: bytes, capacity: int) -> None:
        self._folder = folder
        self._key = key
        self._capacity = capacity
        self._size: int | None = None

    def load(self, name: str) -> tuple[Verdict, bytes | memoryview] | None:
        """The entry `name`, or None. One that the key did not make is removed."""
        path = self._folder / (name + _SUFFIX)
        try:
            data = memoryview(_read(path))
        except OSError:
            return None
        head = len(_MAGIC) + _TAG
        tag, body = data[len(_MAGIC) : head], data[head:]
        if bytes(data[: len(_MAGIC)]) != _MAGIC or not hmac.compare_digest(tag, self._tag(name, body)):
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        length = int.from_bytes(body[:4], "little")
        return _verdicts.decode(body[4 : 4 + length]), body[4 + length :]

    def save(self, name: str, verdict: Verdict, code: _Buffer) -> None:
        """Keep an entry."""
        encoded = msgspec.json.encode(verdict)
        head = len(encoded).to_bytes(4, "little") + encoded
        temporary = self._folder / f"{name}.{os.getpid()}{_UNFINISHED}"
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "wb", buffering=0) as file:
                for part in (_MAGIC, self._tag(name, head, code), head, code):
                    _write(file, part)
                size = file.tell()
            temporary.replace(self._folder / (name + _SUFFIX))
            self._make_room(size)
        except OSError:
            with suppress(OSError):
                temporary.unlink()

    def remove_unfinished(self) -> None:
        """Remove what an agent that was killed was writing. For when there is no other agent."""
        with suppress(OSError):
            for path in self._folder.glob("*" + _UNFINISHED):
                path.unlink(missing_ok=True)

    def _make_room(self, new: int) -> None:
        """Remove the oldest entries where they have come to too much, and a little more: so that they are seldom
        looked through. What was written over or is gone is counted until then."""
        if self._size is not None and self._size + new <= self._capacity:
            self._size += new
            return
        with os.scandir(self._folder) as folder:
            entries = sorted(
                (status.st_mtime_ns, status.st_size, entry.path)
                for entry in folder
                if entry.name.endswith(_SUFFIX)
                and not stat.S_ISDIR((status := entry.stat(follow_symlinks=False)).st_mode)
            )
        size = sum(size for _, size, _ in entries)
        wanted = size if size <= self._capacity else self._capacity - self._capacity // 8
        for _, entry_size, path in entries:
            if size <= wanted:
                break
            Path(path).unlink(missing_ok=True)
            size -= entry_size
        self._size = size

    def _tag(self, name: str, *body: _Buffer) -> bytes:
        tag = hmac.new(self._key, _MAGIC + name.encode() + b"\n", "sha256")
        for part in body:
            # Of something large it takes the sum while other threads run.
            tag.update(part)
        return tag.digest()


def _write(file: FileIO, data: _Buffer) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _read(path: Path) -> bytes:
    """What is in an entry's file, b"" where it is none that was ever saved: a fifo would not end, a giant not fit."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        return file.read() if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_ENTRY else b""


def open_store(folder: Path, capacity: int) -> ModuleStore | None:
    """The cache in `folder`; None for no capacity. Raises `OSError` where it cannot be.

    Its key, which is made with it, lies beside the folder, so that who can write there only cannot replace it.
    """
    if not capacity:
        return None
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder.with_name(folder.name + _KEY_SUFFIX)
    with suppress(FileExistsError):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        # Written halfway when the machine went down; what it authenticated is compiled anew.
        path.unlink()
        return open_store(folder, capacity)
    store = ModuleStore(folder, key, capacity)
    store.remove_unfinished()
    return store


class Modules:
    """Compiled modules by what was wanted. A module that several jobs want at a time is compiled once.

    In memory at most `capacity` bytes are kept, the least used go first. `close` closes their files. Verdicts that
    refuse are kept too, so that sending the same module again costs no compilation.
    """

    def __init__(self, compile_: Compile, store: ModuleStore | None = None, capacity: int = 256 * MIB) -> None:
        self._compile = compile_
        self._store = store
        self._capacity = capacity
        self._runtime = _runtime()
        self._kept: OrderedDict[str, tuple[Compiled, ExitStack]] = OrderedDict()
        self._size = 0
        self._under_way: dict[str, tuple[asyncio.Task[tuple[Compiled, ExitStack]], list[None]]] = {}
        # One, so that a store has one writer. Nobody waits for it but `close`.
        self._writer = ThreadPoolExecutor(1, "ringfence-modules")
        self._writes: list[Future[None]] = []

    async def get(self, wanted: Wanted, stack: ExitStack) -> Compiled:
        """The verdict on a module, with a descriptor of its code that lives until `stack` ends."""
        if len(wanted.code) <= _INLINE:
            name = wanted.name(self._runtime)
        else:
            name = await asyncio.to_thread(wanted.name, self._runtime)
        kept = self._kept.get(name)
        first = kept is None and name not in self._under_way
        if kept is None:
            kept = await self._wait(name, wanted)
        else:
            self._kept.move_to_end(name)
        compiled = kept[0] if first else replace(kept[0], cpu_ms=0.0)
        if compiled.descriptor < 0:
            return compiled
        descriptor = os.dup(compiled.descriptor)
        stack.callback(os.close, descriptor)
        return replace(compiled, descriptor=descriptor)

    def close(self) -> None:
        """Let go of what is kept, once what is being saved is."""
        self._writer.shutdown()
        for _, files_ in self._kept.values():
            files_.close()
        self._kept.clear()

    async def _wait(self, name: str, wanted: Wanted) -> tuple[Compiled, ExitStack]:
        """What a compilation that others may also wait for comes to; it ends when nobody does."""
        if name not in self._under_way:
            self._under_way[name] = asyncio.create_task(self._make(name, wanted)), []
        task, waiting = self._under_way[name]
        waiting.append(None)
        try:
            return await asyncio.shield(task)
        finally:
            waiting.pop()
            if not waiting:
                self._under_way.pop(name, None)
                if not task.done():
                    task.cancel()
                    await asyncio.wait({task})

    async def _make(self, name: str, wanted: Wanted) -> tuple[Compiled, ExitStack]:
        made = None if self._store is None else await self._load(self._store, name)
        if made is None:
            with ExitStack() as stack:
                compiled = await self._compile(wanted, stack)
                if compiled.descriptor < 0:
                    stack.close()
                elif self._store is not None:
                    self._save(self._store, name, compiled)
                made = compiled, stack.pop_all()
        self._keep(name, *made)
        return made

    async def _load(self, store: ModuleStore, name: str) -> tuple[Compiled, ExitStack] | None:
        """An entry of the store, read by another thread: the one that keeps the deadlines must not wait for a disk."""
        loading = asyncio.get_running_loop().run_in_executor(None, _loaded, store, name)
        try:
            return await asyncio.shield(loading)
        except asyncio.CancelledError:
            loading.add_done_callback(_forget)
            raise

    def _save(self, store: ModuleStore, name: str, compiled: Compiled) -> None:
        """Have an entry written, which costs nobody any time. One too many at a time is not kept on the disk."""
        self._writes = [write for write in self._writes if not write.done()]
        if len(self._writes) < _MOST_WRITES:
            code = mmap.mmap(compiled.descriptor, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            self._writes.append(self._writer.submit(_saved, store, name, compiled.verdict, code))

    def _keep(self, name: str, compiled: Compiled, stack: ExitStack) -> None:
        self._kept[name] = compiled, stack
        self._size += compiled.weight
        for oldest in list(self._kept):
            if self._size <= self._capacity and len(self._kept) <= _MOST_KEPT:
                return
            # Whoever still waits for one has not taken its file yet.
            if oldest not in self._under_way:
                gone, files_ = self._kept.pop(oldest)
                files_.close()
                self._size -= gone.weight


def _loaded(store: ModuleStore, name: str) -> tuple[Compiled, ExitStack] | None:
    found = store.load(name)
    if found is None:
        return None
    verdict, code = found
    weight = len(code) + _VERDICT_FACTOR * len(msgspec.json.encode(verdict))
    with ExitStack() as stack:
        return Compiled(verdict, files.sealed(stack, "module", code), len(code), weight, 0.0), stack.pop_all()


def _forget(loading: asyncio.Future[tuple[Compiled, ExitStack] | None]) -> None:
    """Close what came too late for the one who wanted it."""
    if not loading.cancelled() and loading.exception() is None and (loaded := loading.result()) is not None:
        loaded[1].close()


def _saved(store: ModuleStore, name: str, verdict: Verdict, code: mmap.mmap) -> None:
    with code:
        store.save(name, verdict, code)


def compiled_from(verdict_file: int, compiled_file: int, cpu_ms: float) -> Compiled | None:
    """What a compile child left, or None where that cannot be a verdict. The child has ended."""
    data = os.pread(verdict_file, MAX_VERDICT, 0)
    try:
        verdict = _verdicts.decode(data)
    except msgspec.MsgspecError:
        return None
    if not _possible(verdict):
        return None
    weight = _VERDICT_FACTOR * len(data)
    if verdict.refusal is not None:
        return Compiled(verdict, -1, 0, weight, cpu_ms)
    files.seal(compiled_file)
    size = os.fstat(compiled_file).st_size
    if not size:
        return None
    return Compiled(verdict, compiled_file, size, weight + size, cpu_ms)


def gave_up(cpu_ms: float) -> Compiled:
    """What a module comes to whose compiler ended of its own limits: refused, and not compiled each time it is sent."""
    return Compiled(Verdict(None, Refusal.of(too_much())), -1, 0, _VERDICT_FACTOR, cpu_ms)


def _possible(verdict: Verdict) -> bool:
    """Whether a compile child that nobody took over can have come to it: its own codes, and imports that there are."""
    if verdict.refusal is not None:
        return verdict.refusal.code in COMPILER_CODES
    return verdict.report is not None and all(used in IMPORTS for used in verdict.report.imports)


def _runtime() -> str:
    """What compiled code depends on beside its module: the checks it has passed, the runtime, and this processor."""
    versions = (metadata.version("ringfence"), metadata.version("wasmtime"))
    return "\n".join((*versions, platform.machine(), _processor_features()))


def _processor_features() -> str:
    with open("/proc/cpuinfo", encoding="ascii", errors="replace") as lines:
        return next((line for line in lines if line.startswith(("flags", "Features"))), "")
