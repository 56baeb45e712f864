"""Real modules, made for other purposes: how many each level accepts, and whether those that are guests run right."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from wasmtime import Engine, Module, wat2wasm

from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import MAX_MODULE_BYTES, Sandbox
from ringfence.agent.sandbox.wasm import MalformedModule, decode_module
from tools.conformance.acceptance import CONTRACT, Acceptance, everything
from tools.conformance.guests import SECONDS, plain, sandboxed
from tools.conformance.oracle import WasmTools

_MODULE: Final = b"\0asm\1\0\0\0"
# The marks of the sightglass benchmarks around what they time: functions that do nothing, without parameters.
_MARKS: Final = "bench"
_MARK: Final = re.compile(
    rf'^ *\(import "{_MARKS}" "\w+" \(func (\$\S+) (?:\(;\d+;\) )?(\(type \S+\))\)\)\n', re.MULTILINE
)


@dataclass(slots=True)
class Family:
    """Modules for one kind of host: how many each level accepts, and why it refuses the others."""

    modules: int = 0
    accepted: dict[Level, int] = field(default_factory=lambda: dict.fromkeys(Level, 0))
    refused: dict[Level, list[str]] = field(default_factory=lambda: {level: [] for level in Level})


@dataclass(slots=True)
class ProgramFigures:
    """What was found about the modules, apart from what makes a module a guest, and about the guests among them.

    `same` guests did at level `high` what they do under plain wasmtime; `repeatable` of them write the same each time,
    and `well` of them end with status 0; the others end alike with another status, or trap.
    `not_run` has the reasons for which accepted modules for WASI are not run, each with how many.
    """

    left_out: dict[str, int] = field(default_factory=dict)
    wasi: Family = field(default_factory=Family)
    others: Family = field(default_factory=Family)
    guests: int = 0
    same: int = 0
    repeatable: int = 0
    well: int = 0
    different: list[str] = field(default_factory=list)
    not_run: dict[str, int] = field(default_factory=dict)


def find(folder: Path) -> dict[str, Path]:
    """Every module in a folder, at any depth, by its path in it."""
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.wasm"))}


async def run(modules: Mapping[str, Path], sandbox: Sandbox, tool: WasmTools) -> ProgramFigures:
    """Look at `modules`, each by its name, and run those that are guests. Raises `ValueError`."""
    figures = ProgramFigures()
    levels = {level: Acceptance(level) for level in Level}
    wide = everything()
    for name, path in modules.items():
        code = path.read_bytes()
        if (why := _not_a_module(code)) is not None:
            figures.left_out[why] = figures.left_out.get(why, 0) + 1
            continue
        hosts = _hosts(code, wide)
        family = figures.wasi if hosts <= {WASI, RINGFENCE, _MARKS} else figures.others
        family.modules += 1
        for acceptance in levels.values():
            _judge(family, acceptance, name, code)
        if family is figures.wasi:
            guest = _unmarked(path, tool) if _MARKS in hosts else code
            await _try(figures, name, guest, sandbox, levels[Level.HIGH])
    return figures


def _judge(family: Family, acceptance: Acceptance, name: str, code: bytes) -> None:
    """Count a module as accepted by a level or refused, apart from what makes a module a guest."""
    complaint = acceptance.complaint(code)
    findings = [] if complaint else [one for one in acceptance.refused(code) if one.check not in CONTRACT]
    if not complaint and not findings:
        family.accepted[acceptance.level] += 1
        return
    why = complaint.splitlines()[0] if complaint else f"{findings[0].check}: {findings[0].reason}"
    family.refused[acceptance.level].append(f"{name}: {why}")


async def _try(figures: ProgramFigures, name: str, code: bytes, sandbox: Sandbox, strict: Acceptance) -> None:
    """Run a module at level `high` and by plain wasmtime, if it is a guest."""
    if strict.complaint(code):
        return
    findings = strict.refused(code)
    if not {one.check for one in findings} <= CONTRACT:
        return
    missing = sorted(one.name for one in decode_module(code).imports if (one.module, one.name) not in IMPORTS)
    if missing or findings:
        why = f"needs {', '.join(missing)}" if missing else findings[0].reason
    elif (expected := plain(code)) is None:
        why = f"runs for more than {SECONDS} s"
    else:
        figures.guests += 1
        actual = await sandboxed(sandbox, code, Level.HIGH)
        again = expected if expected.output == actual.output else plain(code)
        repeatable = again is not None and expected.output == again.output
        if expected.status != actual.status or (repeatable and expected.output != actual.output):
            ours, theirs = actual.why or "another output", expected.why or f"status {expected.status}"
            figures.different.append(f"{name}: {ours}; by plain wasmtime: {theirs}")
            return
        figures.same += 1
        figures.repeatable += repeatable
        figures.well += expected.status == 0
        return
    figures.not_run[why] = figures.not_run.get(why, 0) + 1


def _not_a_module(code: bytes) -> str | None:
    """Why a file is not looked at."""
    if not code.startswith(_MODULE):
        return "components and other formats"
    return "larger than a guest may be" if len(code) > MAX_MODULE_BYTES else None


def _hosts(code: bytes, wide: Engine) -> set[str]:
    """The modules that a module imports from."""
    try:
        return {one.module for one in decode_module(code).imports}
    except MalformedModule:
        return {one.module for one in Module(wide, code).imports}


def _unmarked(path: Path, tool: WasmTools) -> bytes:
    """A benchmark with its marks as functions of its own instead of imports, because nothing offers them."""
    text = tool.text(path)
    marks = "".join(f"(func {name} {kind})\n" for name, kind in _MARK.findall(text))
    end = text.rstrip().removesuffix(")")
    return bytes(wat2wasm(f"{_MARK.sub('', end)}{marks})"))
