"""What the sandbox's tests share: limits, a sandbox without devices, and a way to run guests written as text."""

from __future__ import annotations

import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.port import GuestJob, Limits, Outcome, Sandbox
from ringfence.agent.sandbox.process import ProcessSandbox

HERE = Path(__file__).parent
MIB = 1024 * 1024


@pytest.fixture
def limits() -> Limits:
    return Limits(memory_bytes=4 * MIB, gpu_memory_bytes=4 * MIB, deadline_ms=20_000, output_bytes=4096, qubits=2)


@pytest.fixture
def idle_broker() -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", str(HERE / "idle_broker.py"))


@pytest.fixture
def hostile() -> Callable[[str, str], tuple[str, ...]]:
    """The command of a hostile worker, by stage and action."""
    return lambda stage, action: (sys.executable, "-I", str(HERE / "hostile_worker.py"), stage, action)


@pytest.fixture
def run_text(limits: Limits, idle_broker: tuple[str, ...]) -> Callable[..., Awaitable[Outcome]]:
    """Runs a guest written in the text format, by default without devices."""

    async def run(text: str, *, standard_input: bytes = b"", within: Limits = limits, devices: bool = False) -> Outcome:
        sandbox: Sandbox = ProcessSandbox() if devices else ProcessSandbox(broker=idle_broker)
        return await sandbox.run(GuestJob(bytes(wasmtime.wat2wasm(text)), standard_input, within))

    return run


@pytest.fixture
def failure(run_text: Callable[..., Awaitable[Outcome]]) -> Callable[..., Awaitable[SandboxError]]:
    """The error that a guest ends with."""

    async def run(text: str, **arguments: object) -> SandboxError:
        with pytest.raises(SandboxError) as caught:
            await run_text(text, **arguments)
        return caught.value

    return run


@pytest.fixture
def children() -> Callable[[int], set[int]]:
    """The processes whose parent is the given one."""

    def find(parent: int) -> set[int]:
        found = set()
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                after_name = Path(f"/proc/{entry}/stat").read_text(encoding="utf-8", errors="replace").rsplit(")", 1)[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(after_name.split()[1]) == parent:
                found.add(int(entry))
        return found

    return find
