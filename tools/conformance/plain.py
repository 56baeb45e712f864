"""Runs one WASI command by wasmtime with its default settings, as `python -m tools.conformance.plain MODULE OUTPUT`.

Its standard input is empty and its standard output goes to OUTPUT; its exit status is printed, or what trapped.
"""

from __future__ import annotations

import sys

from wasmtime import Engine, ExitTrap, Func, Linker, Module, Store, Trap, WasiConfig


def main(path: str, output: str) -> str:
    """The exit status of the module, or how it trapped."""
    engine = Engine()
    store, linker = Store(engine), Linker(engine)
    wasi = WasiConfig()
    wasi.stdout_file = output
    store.set_wasi(wasi)
    linker.define_wasi()
    entry = linker.instantiate(store, Module.from_file(engine, path)).exports(store)["_start"]
    if not isinstance(entry, Func):
        return "its entry point is no function"
    try:
        entry(store)
    except ExitTrap as ended:
        return str(ended.code)
    except Trap as trap:
        return trap.message.splitlines()[-1]
    return "0"


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]))
