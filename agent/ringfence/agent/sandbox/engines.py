"""The runtime as Ringfence configures it: which features of WebAssembly each security level accepts.

Two profiles. `locked` (levels high and quantum) is WebAssembly 2.0 with SIMD and nothing that widens the attack
surface. `open` (low and medium) adds what needs no second memory, no thread and no collector: tail calls, extended
constants, relaxed SIMD, typed function references and 64-bit memory, which `medium` refuses in its validation.
"""

from __future__ import annotations

from wasmtime import Config, Engine
from wasmtime import _bindings as wasmtime_c

from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.memory import GuestMemory

PROFILES = ("locked", "open")


def profile(level: Level) -> str:
    """The profile that a level's modules are compiled and run by."""
    return "locked" if level.locked else "open"


def engine(name: str, memory: GuestMemory | None = None) -> Engine:
    """An engine of a profile; with `memory`, the guest's memory is that one.

    The default reservation stays: a smaller one brings explicit bounds checks back. No thread is started. What one
    engine of a profile has compiled, another of the same profile and version can run.
    """
    wide = name == "open"
    config = Config()
    config.parallel_compilation = False
    config.wasm_simd = True
    config.wasm_threads = False
    config.wasm_gc = False
    config.wasm_exceptions = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = wide
    config.wasm_function_references = wide
    config.wasm_relaxed_simd = wide
    config.wasm_tail_call = wide
    # The binding has no names for these, and the runtime has them on unless told otherwise. Without a collector there
    # are no external references, of which no host function gives out any.
    wasmtime_c.wasmtime_config_gc_support_set(config.ptr(), False)
    wasmtime_c.wasmtime_config_wasm_wide_arithmetic_set(config.ptr(), False)
    wasmtime_c.wasmtime_config_wasm_compact_imports_set(config.ptr(), False)
    # A copy-on-write image would be made and mapped with system calls that a worker may not use.
    wasmtime_c.wasmtime_config_memory_init_cow_set(config.ptr(), False)
    if memory is not None:
        memory.install(config)
    return Engine(config)
