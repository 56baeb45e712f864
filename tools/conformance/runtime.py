"""The runtime's C interface as the specification's scripts need it: every value type, and traps by their code.

The Python binding has no 128-bit vectors and turns NaNs into others, so calls go by `wasmtime_val_t` here.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

from wasmtime import Engine, Module, Store, TrapCode
from wasmtime import _bindings as wasmtime_c

Value = wasmtime_c.wasmtime_val_t
Extern = wasmtime_c.wasmtime_extern_t
Instance = wasmtime_c.wasmtime_instance_t


class TrappedError(Exception):
    """The guest trapped; `code` is the name of a `wasmtime.TrapCode`."""

    def __init__(self, code: str) -> None:
        super().__init__(f"trap {code}")
        self.code = code


class RefusedError(Exception):
    """The runtime refused to link or to call, for the reason that it gave."""


class Session:
    """One store, in which the instances of one script live."""

    def __init__(self, engine: Engine) -> None:
        self._store = Store(engine)
        self.context = wasmtime_c.wasmtime_store_context(self._store.ptr())

    def instantiate(self, module: Module, imports: Sequence[Extern]) -> Instance:
        """A new instance. Raises `TrappedError`, or `RefusedError` when it does not link."""
        instance = Instance()
        trap = ctypes.POINTER(wasmtime_c.wasm_trap_t)()
        listed = (Extern * len(imports))(*imports)
        error = wasmtime_c.wasmtime_instance_new(
            self.context, module.ptr(), listed, len(imports), ctypes.byref(instance), ctypes.byref(trap)
        )
        _raise(error, trap)
        return instance

    def export(self, instance: Instance, name: str) -> Extern | None:
        """What an instance exports by that name."""
        found, encoded = Extern(), name.encode()
        there = wasmtime_c.wasmtime_instance_export_get(
            self.context, ctypes.byref(instance), encoded, len(encoded), ctypes.byref(found)
        )
        return found if there else None

    def call(self, function: Extern, arguments: Sequence[Value]) -> list[Value]:
        """The results of a call. Raises `TrappedError` or `RefusedError`."""
        called = ctypes.byref(function.of.func)
        kind = wasmtime_c.wasmtime_func_type(self.context, called)
        count = wasmtime_c.wasm_functype_results(kind)[0].size
        wasmtime_c.wasm_functype_delete(kind)
        trap = ctypes.POINTER(wasmtime_c.wasm_trap_t)()
        given, results = (Value * len(arguments))(*arguments), (Value * count)()
        error = wasmtime_c.wasmtime_func_call(
            self.context, called, given, len(arguments), results, count, ctypes.byref(trap)
        )
        _raise(error, trap)
        return list(results)

    def read(self, variable: Extern) -> Value:
        """The value of a global."""
        value = Value()
        wasmtime_c.wasmtime_global_get(self.context, ctypes.byref(variable.of.global_), ctypes.byref(value))
        return value


def _raise(error: Any, trap: Any) -> None:
    """Raise what a call of the C interface answered with, if it did not succeed."""
    if trap:
        code = ctypes.c_uint8()
        known = wasmtime_c.wasmtime_trap_code(trap, ctypes.byref(code))
        wasmtime_c.wasm_trap_delete(trap)
        raise TrappedError(TrapCode(code.value).name if known else "without a code")
    if error:
        message = wasmtime_c.wasm_byte_vec_t()
        wasmtime_c.wasmtime_error_message(error, ctypes.byref(message))
        text = ctypes.string_at(message.data, message.size).decode(errors="replace")
        wasmtime_c.wasm_byte_vec_delete(ctypes.byref(message))
        wasmtime_c.wasmtime_error_delete(error)
        raise RefusedError(text)
