"""Links a guest to its host functions: through the shim, by wasmtime's unchecked C functions, a call at a time.

`wasmtime.Func` would convert every parameter and look its function up: 8 µs a call. Here a host function has no
parameters at all, because the shim leaves them in its memory, and costs less than a tenth of that.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from wasmtime import Engine, FuncType, Instance, Linker, Module, Store, WasmtimeError
from wasmtime import _bindings as wasmtime_c
from wasmtime._exportable import AsExtern
from wasmtime._extern import wrap_extern

from ringfence.agent.sandbox import shim
from ringfence.agent.sandbox.hostcalls import Channel, HostCalls, HostFunction
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI
from ringfence.agent.sandbox.memory import GuestMemory
from ringfence.agent.sandbox.wasi import Wasi

# wasmtime_func_unchecked_callback_t without its parameters, which neither calling convention needs declared.
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_size_t)
_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()
_NO_PARAMETERS: Final = struct.Struct("")
_UNREACHABLE: Final = wasmtime_c.wasmtime_trap_code_enum.WASMTIME_TRAP_CODE_UNREACHABLE_CODE_REACHED.value


class Host:
    """Everything a guest may call, inside its worker; one per process, and one guest per host.

    It may be made before a process forks. `engine` makes its memories from `memory`; `compiled` is the shim's module
    where it has been compiled already.
    """

    def __init__(self, engine: Engine, memory: GuestMemory, compiled: Module | None = None) -> None:
        self._memory = memory
        self._failure: BaseException | None = None
        self._calls: HostCalls | None = None
        self._functions: dict[str, HostFunction] = {}
        # ctypes callbacks live as long as the objects that wrap them.
        self._callbacks: list[object] = []
        self._linker = Linker(engine)
        for one in shim.HOSTED:
            self._define(shim.exported(one.module, one.name), shim.parameters(one))
        self._define(shim.FLUSH, _NO_PARAMETERS)
        self._shim = self._linker.instantiate_pre(compiled or Module(engine, shim.binary()))

    def open(self, store: Store) -> None:
        """Instantiate the shim in the store that the guest will live in."""
        self._store = store
        self._context = wasmtime_c.wasmtime_store_context(store.ptr())
        self._offered = wasmtime_c.wasmtime_instance_t()
        trap = ctypes.POINTER(wasmtime_c.wasm_trap_t)()
        error = wasmtime_c.wasmtime_instance_pre_instantiate(
            self._shim.ptr(), self._context, ctypes.byref(self._offered), ctypes.byref(trap)
        )
        if error or trap:
            raise WasmtimeError("the shim cannot be instantiated")

    def instantiate(self, module: Module, *, wasi: Wasi, channel: Channel | None, progress: memoryview) -> Instance:
        """Link and instantiate a guest that has been validated; its start function runs. `open` comes before.

        Raises `wasmtime.Trap` or `wasmtime.WasmtimeError` when that does not succeed. A trap is also what the guest
        ends with when a host function ended it, so ask `raise_failure` first.
        Raises `ValueError` for a guest with device imports that is given no `channel`.
        """
        wanted = [IMPORTS[(one.module, one.name or "")] for one in module.imports]
        functions = wasi.functions()
        self._functions.update(
            (shim.exported(WASI, one.name), functions[one.name]) for one in wanted if one.module == WASI
        )
        if channel is not None:
            self._calls = HostCalls(self._memory, shim.Queue(self._memory.shim), channel, progress)
            calls = self._calls.functions().items()
            self._functions.update((shim.exported(RINGFENCE, name), function) for name, function in calls)
            self._functions[shim.FLUSH] = self._calls.flush
        elif any(one.family in ("gpu", "quantum") for one in wanted):
            raise ValueError("a guest with device imports needs a channel to its broker")
        return Instance(self._store, module, [self._export(shim.exported(one.module, one.name)) for one in wanted])

    def raise_failure(self) -> None:
        """Raise what a host function ended the guest with, if one did."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Run what the guest has queued. Raises `SandboxError` when it is refused."""
        if self._calls is not None:
            self._calls.finish()

    def _export(self, name: str) -> AsExtern:
        """The shim's function of that name; `Instance.exports` would wrap all of them, for every job."""
        found, encoded = wasmtime_c.wasmtime_extern_t(), name.encode()
        wasmtime_c.wasmtime_instance_export_get(
            self._context, ctypes.byref(self._offered), encoded, len(encoded), ctypes.byref(found)
        )
        return wrap_extern(found)

    def _define(self, name: str, parameters: struct.Struct) -> None:
        """Offer the shim a host function called `name`, whose `parameters` lie in the shim's memory."""
        # Names of this function are quicker to reach than those of a module or an object, and every call pays for it.
        functions, memory, unpack = self._functions, self._memory.shim, parameters.unpack_from
        results, parameters_at = memory[shim.RESULT : shim.RESULT + 8].cast("Q"), shim.PARAMETERS

        def call() -> int:
            try:
                result = functions[name](*unpack(memory, parameters_at))
                if result is not None:
                    results[0] = result
            except BaseException as error:  # noqa: BLE001 - ctypes would print and forget it; raise_failure raises it
                self._failure = error
                return _trap()
            return 0

        callback, nothing = _CALLBACK(call), FuncType([], [])
        self._callbacks.append(callback)
        error = wasmtime_c.wasmtime_linker_define_func_unchecked(
            self._linker.ptr(),
            shim.HOST.encode(),
            len(shim.HOST),
            name.encode(),
            len(name),
            nothing.ptr(),
            ctypes.cast(callback, wasmtime_c.wasmtime_func_unchecked_callback_t),
            None,
            _NO_FINALIZER,
        )
        if error:
            raise ValueError(f"the host function {name} cannot be defined")


def _trap() -> int:
    """A trap that the runtime owns, as the pointer that a callback returns."""
    trap = wasmtime_c.wasmtime_trap_new_code(_UNREACHABLE)
    return ctypes.cast(trap, ctypes.c_void_p).value or 0
