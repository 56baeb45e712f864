"""The suite of WASI preview 1 through the sandbox: what a guest is offered has to behave as the suite says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.sandbox.imports import IMPORTS
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import Sandbox
from ringfence.agent.sandbox.wasm import decode_module
from tools.conformance.guests import sandboxed

_PREVIEW_1: Final = "wasm32-wasip1"


class Specification(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a test is given and what it has to do. Source: WebAssembly/wasi-testsuite, doc/specification.md."""

    args: tuple[str, ...] = ()
    env: Mapping[str, str] = {}
    root: str | None = None
    exit_code: int = 0
    stdout: str | None = None


@dataclass(slots=True)
class WasiFigures:
    """Tests that hold by level, those that do not, each named, and those that a guest is not offered, by the reason."""

    tests: int = 0
    passed: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))
    failed: dict[Level, list[str]] = field(default_factory=lambda: {level: [] for level in Level})
    apart: dict[str, list[str]] = field(default_factory=dict)

    @property
    def within(self) -> int:
        """How many tests are within what a guest is offered."""
        return self.tests - sum(map(len, self.apart.values()))


def find(folder: Path) -> list[Path]:
    """Every compiled test of preview 1 in a checkout of WebAssembly/wasi-testsuite with its binaries."""
    return sorted(path for path in folder.rglob("*.wasm") if path.parent.name == _PREVIEW_1)


async def run(tests: Sequence[Path], sandbox: Sandbox) -> WasiFigures:
    """Run the tests at every level."""
    figures = WasiFigures()
    for path in tests:
        figures.tests += 1
        name = f"{path.parents[2].name}/{path.stem}"
        beside = path.with_suffix(".json")
        wanted = msgspec.json.decode(beside.read_bytes() if beside.exists() else b"{}", type=Specification)
        code = path.read_bytes()
        if need := _need(wanted, code):
            figures.apart.setdefault(need, []).append(name)
            continue
        for level in Level:
            ended = await sandboxed(sandbox, code, level)
            right = wanted.stdout is None or ended.output == wanted.stdout.encode()
            if ended.status == wanted.exit_code and right:
                figures.passed[level] += 1
            else:
                figures.failed[level].append(f"{name}: {ended.why or 'another output or exit status than expected'}")
    return figures


def _need(wanted: Specification, code: bytes) -> str:
    """What a test needs that no guest is offered; "" when it is within."""
    if wanted.root is not None:
        return "files"
    if wanted.args:
        return "arguments"
    if wanted.env:
        return "environment variables"
    missing = sorted(one.name for one in decode_module(code).imports if (one.module, one.name) not in IMPORTS)
    return f"the functions {', '.join(missing)}" if missing else ""
