"""Whether a level takes a module: the runtime's validation with the level's features, then Ringfence's own checks."""

from __future__ import annotations

from typing import Final

from wasmtime import Config, Engine, Module, WasmtimeError

from ringfence.agent.sandbox import engines, validation
from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.port import BOUNDS
from ringfence.agent.sandbox.validation import Finding

# What makes a module a guest rather than another kind of program.
CONTRACT: Final = frozenset(
    {"imports.known", "imports.typed", "entry.present", "entry.typed", "memory.exported", "quantum.enabled"}
)
# What a level offers of the language; the others are about how a module uses it.
FEATURES: Final = frozenset(
    {"format", "layer", "specification", "size", "memory.single", "memory.plain", "control.features", "control.nesting"}
)
_MEMORY: Final = BOUNDS["memory_bytes"][1]
_QUBITS: Final = BOUNDS["qubits"][1]


class Acceptance:
    """One level's answer to modules. `engine` is the engine whose answer it is."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.engine = engines.engine(engines.profile(level))

    def complaint(self, code: bytes) -> str:
        """What the runtime says against a module; "" when it is valid."""
        return complaint(self.engine, code)

    def refused(self, code: bytes) -> list[Finding]:
        """What the checks of the level refuse in a module that the runtime takes, for a job with the highest limits."""
        report = validation.validate(code, self.level, memory_bytes=_MEMORY, qubits=_QUBITS)
        return [finding for finding in report.findings if finding.refused]

    def lacking(self, code: bytes) -> str:
        """Why the level does not offer what the module is written in; "" when it does."""
        if said := self.complaint(code):
            return said
        finding = next((one for one in self.refused(code) if one.check in FEATURES), None)
        return f"{finding.check}: {finding.reason}" if finding else ""


def complaint(engine: Engine, code: bytes) -> str:
    """What an engine says against a module; "" when it is valid."""
    try:
        Module.validate(engine, code)
    except WasmtimeError as error:
        return str(error)
    return ""


def everything() -> Engine:
    """An engine with every feature of the standard, to tell what is wrong in itself from what is not offered."""
    config = Config()
    config.parallel_compilation = False
    config.wasm_threads = config.wasm_gc = config.wasm_exceptions = config.wasm_multi_memory = True
    config.wasm_memory64 = config.wasm_function_references = config.wasm_relaxed_simd = config.wasm_tail_call = True
    return Engine(config)
