"""Real agents and gateways for the end-to-end tests, and what it takes to see whether they left anything behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import wasmtime

from ringfence.agent.api.jobs import JobLimits
from ringfence.audit.kinds import Record
from ringfence.audit.records import Entry, decode_line
from ringfence.cli import main
from ringfence.client.local import LocalInstallation
from ringfence.errors import RingfenceError

_PR_SET_CHILD_SUBREAPER = 36
_Kind = TypeVar("_Kind", bound=Record)
MIB = 1024 * 1024
SEGMENT = "records-00000000000000000001.jsonl"


@pytest.fixture(scope="session", autouse=True)
def software_tpm() -> None:
    """These tests are about an attested host; without the emulator they fail instead of testing less."""
    assert shutil.which("swtpm"), (
        "swtpm is not installed: the end-to-end tests need a TPM emulator (apt install swtpm)."
    )


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Guests are compiled into a folder of this run, not into the user's."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def endless() -> bytes:
    """A guest that never ends by itself."""
    return bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))'))


@pytest.fixture(scope="session")
def nothing() -> bytes:
    """A guest that ends at once."""
    return bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))


@pytest.fixture(scope="session")
def limits() -> JobLimits:
    return JobLimits(memory_bytes=MIB, gpu_memory_bytes=MIB, deadline_ms=20_000, output_bytes=4096, qubits=0)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="rf-e2e-", dir="/tmp") as made:
        yield Path(made)


@pytest.fixture(scope="module")
def local(folder: Path) -> Iterator[LocalInstallation]:
    """An attested installation for a whole module."""
    with LocalInstallation(folder / "state") as installation:
        yield installation


@pytest.fixture
def stop() -> Callable[..., None]:
    """Ends an installation's `agent` or `gateway` and waits until it is gone."""

    def end(installation: LocalInstallation, name: str, number: int = signal.SIGTERM) -> None:
        process = installation.process(name)
        process.send_signal(number)
        process.wait(20)

    return end


@pytest.fixture
def records() -> Callable[..., list[Any]]:
    """The records of one class in an installation's log, oldest first."""

    def read(installation: LocalInstallation, name: str, kind: type[_Kind]) -> list[_Kind]:
        lines = (installation.audit_folder / name / SEGMENT).read_bytes().splitlines()
        entries: list[Entry] = [decode_line(line) for line in lines[1:]]
        return [entry.record for entry in entries if isinstance(entry.record, kind)]

    return read


@pytest.fixture
def verify_log() -> Callable[[LocalInstallation, str], None]:
    """Checks an installation's log as `ringfence audit verify --key` does."""

    def verify(installation: LocalInstallation, name: str) -> None:
        key = str(installation.public_key(name))
        assert main(["audit", "verify", str(installation.audit_folder / name), "--key", key]) == 0

    return verify


@pytest.fixture
def refusal() -> Callable[[Callable[[], object]], str]:
    """The code with which an attempt is refused; letting it through fails the test."""

    def code(attempt: Callable[[], object]) -> str:
        with pytest.raises(RingfenceError) as caught:
            attempt()
        assert caught.value.message
        return caught.value.code.name

    return code


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits until something holds, and fails when it does not in time."""

    def wait(holds: Callable[[], object], what: str, timeout_s: float = 20.0) -> None:
        give_up = time.monotonic() + timeout_s
        while not holds():
            assert time.monotonic() < give_up, f"not within {timeout_s:g} s: {what}"
            time.sleep(0.02)

    return wait


@pytest.fixture
def job_processes() -> Callable[[int], set[int]]:
    """The living processes of the jobs of the agent with the given process id."""
    return _job_processes


def _job_processes(agent: int) -> set[int]:
    return {pid for pid in _descendants(agent) if _name(pid) in ("rf-compile", "rf-guest", "rf-devices")}


def _descendants(parent: int) -> set[int]:
    found = _children(parent)
    return found.union(*map(_descendants, found))


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").rstrip("\n")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _children(parent: int) -> set[int]:
    found = set()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        status = _status(int(entry))
        if status is not None and status == ("alive", parent):
            found.add(int(entry))
    return found


def _status(pid: int) -> tuple[str, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return ("dead" if fields[0] in "ZX" else "alive"), int(fields[1])


@pytest.fixture
def alive() -> Callable[[set[int]], set[int]]:
    """Those of the given processes that still run."""
    return lambda pids: {pid for pid in pids if (status := _status(pid)) is not None and status[0] == "alive"}


@pytest.fixture
def left_behind() -> Iterator[Callable[[], list[str]]]:
    """The command lines of what outlived whoever started it since the test began: it becomes this process's child."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    before = _children(os.getpid())

    def find() -> list[str]:
        return [_command_line(pid) for pid in _children(os.getpid()) - before]

    yield find
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0
    for orphan in _children(os.getpid()) - before:
        with contextlib.suppress(ProcessLookupError):
            os.kill(orphan, signal.SIGKILL)


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


@pytest.fixture
def command() -> Callable[..., list[str]]:
    """A `ringfence` command line."""
    return lambda *words: [sys.executable, "-m", "ringfence.cli", *map(str, words)]
