"""Decides whether bytes are a guest: valid WebAssembly, only known imports, an entry point and one memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from wasmtime import Config, Engine, FuncType, MemoryType, Module, WasmtimeError
from wasmtime import _bindings as wasmtime_c

from ringfence.agent.errors import ENTRY_POINT_MISSING, IMPORT_UNKNOWN, MODULE_INVALID, SandboxError
from ringfence.agent.sandbox.exchange import readable
from ringfence.agent.sandbox.hostcalls import HostFunction
from ringfence.agent.sandbox.memory import GuestMemory

ENTRY_POINT: Final = "_start"
MEMORY: Final = "memory"

# Every host function a guest may import, by import module and name.
Imports = Mapping[tuple[str, str], HostFunction]


def engine(memory: GuestMemory) -> Engine:
    """An engine with WebAssembly 2.0 and SIMD, without the proposals that widen the attack surface.

    The default reservation stays: a smaller one brings explicit bounds checks back. No thread is started.
    """
    config = Config()
    config.parallel_compilation = False
    config.wasm_simd = True
    config.wasm_threads = False
    config.wasm_memory64 = False
    config.wasm_function_references = False
    config.wasm_gc = False
    config.wasm_exceptions = False
    config.wasm_multi_memory = False
    config.wasm_relaxed_simd = False
    # A copy-on-write image would be made and mapped with system calls that a worker may not use.
    wasmtime_c.wasmtime_config_memory_init_cow_set(config.ptr(), False)
    memory.install(config)
    return Engine(config)


def load(machine: Engine, code: bytes, imports: Imports) -> Module:
    """Validate and compile `code`.

    Raises `SandboxError`: `sandbox.module_invalid`, `sandbox.import_unknown`, `sandbox.entry_point_missing`.
    """
    # The text format is a convenience of wasmtime's that no guest needs: what is signed is what runs.
    if code[:4] != b"\0asm":
        raise _invalid("it does not begin with the bytes of a WebAssembly module")
    try:
        Module.validate(machine, code)
        module = Module(machine, code)
    except WasmtimeError as error:
        raise _invalid(readable(str(error).splitlines()[0])) from error
    _check_imports(module, imports)
    _check_exports(module)
    return module


def _check_imports(module: Module, imports: Imports) -> None:
    for needed in module.imports:
        where = f"{readable(needed.module)}.{readable(needed.name or '')}"
        known = imports.get((needed.module, needed.name or ""))
        if known is None or not isinstance(needed.type, FuncType):
            raise SandboxError(
                IMPORT_UNKNOWN,
                f"The module imports {where}, which this sandbox does not offer.",
                field="module",
                hint="Use only what ringfence.h declares, and WASI's standard streams, clock, random and exit.",
            )
        if _signature(needed.type) != (known.parameters, known.results):
            raise SandboxError(
                IMPORT_UNKNOWN,
                f"The module imports {where} with another signature than the sandbox offers.",
                field="module",
                hint="Declare it as ringfence.h does.",
            )


def _check_exports(module: Module) -> None:
    exports = {export.name: export.type for export in module.exports}
    entry = exports.get(ENTRY_POINT)
    if not isinstance(entry, FuncType) or _signature(entry) != ((), ()):
        raise _missing(f"no function {ENTRY_POINT} without parameters and results")
    if not isinstance(exports.get(MEMORY), MemoryType):
        raise _missing(f"no memory named {MEMORY}")


def _signature(kind: FuncType) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(map(str, kind.params)), tuple(map(str, kind.results))


def _missing(what: str) -> SandboxError:
    return SandboxError(
        ENTRY_POINT_MISSING,
        f"The module exports {what}.",
        field="module",
        hint="Build it as a WASI command (a C program with main, or with ringfence.h's RINGFENCE_MAIN).",
    )


def _invalid(why: str) -> SandboxError:
    return SandboxError(
        MODULE_INVALID,
        f"The module is not WebAssembly that this sandbox accepts: {why}.",
        field="module",
        hint="Send a module for wasm32 without threads, 64-bit memory, GC, exceptions or several memories.",
    )
