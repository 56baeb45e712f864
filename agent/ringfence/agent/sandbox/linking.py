"""Links a guest to its host functions: through the shim, by wasmtime's unchecked C functions, a call at a time.

`wasmtime.Func` would convert every parameter and look its function up: 8 µs a call. Here a host function has no
parameters at all, because the shim leaves them in its memory, and costs less than a tenth of that. A worker has one
thread, so its guest is called with the interpreter's lock held: no host call waits to take it.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable
from typing import Final

from wasmtime import Engine, Func, FuncType, Instance, Linker, Module, Store, WasmtimeError
from wasmtime import _bindings as wasmtime_c
from wasmtime._exportable import AsExtern
from wasmtime._extern import get_extern_ptr, wrap_extern
from wasmtime._ffi import dll
from wasmtime._func import enter_wasm

from ringfence.agent.sandbox import shim
from ringfence.agent.sandbox.hostcalls import Channel, HostCalls, HostFunction
from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI
from ringfence.agent.sandbox.memory import GuestMemory
from ringfence.agent.sandbox.wasi import Wasi

# wasmtime_func_unchecked_callback_t without its parameters, which neither calling convention needs declared.
_CALLBACK: Final = ctypes.CFUNCTYPE(ctypes.c_size_t)
_NO_FINALIZER: Final = ctypes.CFUNCTYPE(None, ctypes.c_void_p)()
_NO_PARAMETERS: Final = struct.Struct("")
_I32: Final = 0  # WASMTIME_I32 (wasmtime/val.h)
_CLOCK: Final = (WASI, "clock_time_get")
# wasmtime_func_call as a function that keeps the interpreter's lock; `wasmtime.Func` lets go of it.
_ENTER: Final = ctypes.PYFUNCTYPE(
    ctypes.POINTER(wasmtime_c.wasmtime_error_t),
    ctypes.POINTER(wasmtime_c.wasmtime_context_t),
    ctypes.POINTER(wasmtime_c.wasmtime_func_t),
    *(ctypes.POINTER(wasmtime_c.wasmtime_val_t), ctypes.c_size_t) * 2,
    ctypes.POINTER(ctypes.POINTER(wasmtime_c.wasm_trap_t)),
)(("wasmtime_func_call", dll))
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
        self._clocks: list[Callable[[], int]] = []
        # ctypes callbacks live as long as the objects that wrap them.
        self._callbacks: list[object] = []
        self._linker = Linker(engine)
        for one in shim.HOSTED:
            name = shim.exported(one.module, one.name)
            any_call = self._passing_on(name, shim.parameters(one))
            self._define(name, self._clock(any_call) if (one.module, one.name) == _CLOCK else any_call)
        self._define(shim.FLUSH, self._passing_on(shim.FLUSH, _NO_PARAMETERS))
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
        self._clocks[:] = wasi.clocks
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

    def _passing_on(self, name: str, parameters: struct.Struct) -> Callable[[], int]:
        """What calls the host function `name` with the `parameters` that lie in the shim's memory."""
        # Names of this function are quicker to reach than those of a module or an object, and every call pays for it.
        functions, failed, unpack = self._functions, self._failed, parameters.unpack
        given = self._memory.shim[shim.PARAMETERS : shim.PARAMETERS + parameters.size]
        results = self._memory.shim[shim.RESULT : shim.RESULT + 8].cast("Q")

        def call() -> int:
            try:
                result = functions[name](*unpack(given))
                if result:  # the shim has put 0 there
                    results[0] = result
            except BaseException as error:  # noqa: BLE001 - ctypes would print and forget it; raise_failure raises it
                return failed(error)
            return 0

        return call

    def _clock(self, any_call: Callable[[], int]) -> Callable[[], int]:
        """`clock_time_get` of a clock that there is, in one step, and of another by `any_call`.

        A guest may read the clock thousands of times a second, and the way of all calls takes twice as long.
        """
        clocks, put_u64, failed = self._clocks, self._memory.put_u64, self._failed
        words = self._memory.shim[shim.PARAMETERS : shim.PARAMETERS + 24].cast("I")

        def call() -> int:
            try:
                clock = words[0]
                if clock > 1:
                    return any_call()
                put_u64(words[4], clocks[clock]())
            except BaseException as error:  # noqa: BLE001 - as above
                return failed(error)
            return 0

        return call

    def _failed(self, error: BaseException) -> int:
        """Keep what ends the guest; the trap that ends it."""
        self._failure = error
        return _trap()

    def _define(self, name: str, call: Callable[[], int]) -> None:
        """Offer the shim a host function called `name`."""
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


def enter(store: Store, function: Func, *parameters: int) -> int:
    """Call a guest's function of i32 parameters, at most one i32 result, both unsigned; 0 without a result.

    Raises what calling it would: `wasmtime.Trap` or `wasmtime.WasmtimeError`.
    """
    given = (wasmtime_c.wasmtime_val_t * len(parameters))()
    for value, parameter in zip(given, parameters, strict=True):
        value.kind, value.of.i32 = _I32, parameter
    results = len(function.type(store).results)
    result = (wasmtime_c.wasmtime_val_t * results)()
    context, raw = wasmtime_c.wasmtime_store_context(store.ptr()), get_extern_ptr(function).of.func
    with enter_wasm(store) as trap:
        if _ENTER(context, ctypes.byref(raw), given, len(parameters), result, results, trap):
            raise WasmtimeError("the guest's function is of another type")
    return result[0].of.i32 & 0xFFFF_FFFF if results else 0


def _trap() -> int:
    """A trap that the runtime owns, as the pointer that a callback returns."""
    trap = wasmtime_c.wasmtime_trap_new_code(_UNREACHABLE)
    return ctypes.cast(trap, ctypes.c_void_p).value or 0
