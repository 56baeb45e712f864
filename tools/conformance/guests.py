"""Runs modules as guests, in the sandbox itself and by plain wasmtime, and says how each ended."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.agent.errors import GUEST_EXIT, SandboxError
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import GuestJob, Limits, Sandbox
from tools.conformance.spec import ROOT

SECONDS: Final = 30
"""How long a guest may run."""
_LIMITS: Final = Limits(
    memory_bytes=1 << 30, gpu_memory_bytes=1 << 20, deadline_ms=2 * SECONDS * 1000, output_bytes=64 << 20, qubits=0
)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a guest ended: its exit status, or None and why there is none; and what it wrote, if it ended well."""

    status: int | None
    output: bytes
    why: str = ""


async def sandboxed(sandbox: Sandbox, code: bytes, level: Level) -> Ended:
    """Run a guest in the sandbox, without input."""
    try:
        outcome = await sandbox.run(GuestJob(code, b"", _LIMITS, level))
    except SandboxError as error:
        said = re.search(r"exited with status (\d+)", error.message) if error.code is GUEST_EXIT else None
        return Ended(int(said[1]) if said else None, b"", f"{error.code}: {error.message}")
    return Ended(0, outcome.output)


def plain(code: bytes) -> Ended | None:
    """Run a guest by wasmtime as it comes, with its own WASI and without input, in a process of its own.

    None when it runs longer than a guest may.
    """
    with tempfile.TemporaryDirectory() as folder:
        module, output = Path(folder, "module.wasm"), Path(folder, "output")
        module.write_bytes(code)
        command = [sys.executable, "-m", "tools.conformance.plain", str(module), str(output)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=SECONDS)
        except subprocess.TimeoutExpired:
            return None
        except subprocess.CalledProcessError as error:
            return Ended(None, b"", error.stderr.decode(errors="replace").strip().splitlines()[-1])
        said = done.stdout.decode()
        return Ended(int(said), output.read_bytes()) if said.isdecimal() else Ended(None, b"", said)
