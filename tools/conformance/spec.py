"""The core specification's suite: which scripts belong to it, and each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.sandbox.levels import Level
from tools.conformance.oracle import WasmTools
from tools.conformance.tally import Tally

ROOT: Final = Path(__file__).resolve().parents[2]
# Not of the core: proposals that are not in the standard, exceptions as they were before, annotations of the text.
_APART: Final = {"proposals", "legacy", "custom"}
_SECONDS: Final = 600


@dataclass(frozen=True, slots=True)
class SpecFigures:
    """What each level did over so many scripts; `left_out` are scripts in the folder that are not of the core."""

    scripts: int
    left_out: int
    levels: Mapping[Level, Tally]


def find(folder: Path) -> dict[str, Path]:
    """Every script in a checkout of WebAssembly/testsuite or of WebAssembly/spec, by its path in the suite."""
    core = folder / "test" / "core"
    base = core if core.is_dir() else folder
    return {str(path.relative_to(base)): path for path in sorted(base.rglob("*.wast"))}


def run(scripts: Mapping[str, Path], tool: WasmTools) -> SpecFigures:
    """Run the scripts of the core at every level."""
    core = [name for name in scripts if not _APART & set(Path(name).parts)]
    levels = {level: Tally() for level in Level}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for tallies in pool.map(lambda name: _run_one(name, scripts[name], tool), core):
            for level, tally in tallies.items():
                levels[level].add(tally)
    return SpecFigures(len(core), len(scripts) - len(core), levels)


def _run_one(name: str, script: Path, tool: WasmTools) -> Mapping[Level, Tally]:
    """The tallies of one script; one that ends badly is a failure at every level."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            tool.convert(script, Path(folder))
            done = subprocess.run(
                [sys.executable, "-m", "tools.conformance.script", folder, tool.path],
                capture_output=True,
                cwd=ROOT,
                check=True,
                timeout=_SECONDS,
            )
            return msgspec.json.decode(done.stdout, type=dict[Level, Tally])
        except (ValueError, subprocess.SubprocessError) as error:
            # Said last is what ended it, if it said anything.
            said = getattr(error, "stderr", None) or str(error).encode()
            why = said.decode(errors="replace").strip().splitlines()[-1]
            return {level: Tally(failed=[f"{name}: {why}"]) for level in Level}
