"""Print how the sandbox does in the public suites of WebAssembly and WASI, and with real modules, by security level.

    python -m tools.conformance [--spec DIR] [--wasi DIR] [--modules DIR] [--json]

docs/conformance.md says where the suites are and how what is printed is counted. Exit status: 0 when every promise
holds, 1 when one does not, 2 when there is nothing to run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

import msgspec

from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.process import open_sandbox
from ringfence.terminal import print_json, printable
from tools.conformance import programs, report, spec, wasi
from tools.conformance.oracle import MissingToolError, WasmTools, program
from tools.conformance.report import Figures

_SUITES: Final = {"spec": spec.find, "wasi": wasi.find, "modules": programs.find}
_WHERE: Final = """Name one suite or more: make conformance ARGS="--spec DIR --wasi DIR --modules DIR"
  --spec     git clone https://github.com/WebAssembly/testsuite
  --wasi     git clone --branch prod/testsuite-base https://github.com/WebAssembly/wasi-testsuite
  --modules  any folder with .wasm files, such as git clone https://github.com/bytecodealliance/sightglass"""


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.conformance", description="Run the public suites of WebAssembly and WASI, by level."
    )
    parser.add_argument("--spec", type=Path, metavar="DIR", help="a checkout of WebAssembly/testsuite or of /spec")
    parser.add_argument("--wasi", type=Path, metavar="DIR", help="a checkout of WebAssembly/wasi-testsuite, compiled")
    parser.add_argument("--modules", type=Path, metavar="DIR", help="a folder with real modules, at any depth")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    folders: dict[str, Path] = {name: folder for name in _SUITES if (folder := getattr(arguments, name)) is not None}
    empty = [folder for name, folder in folders.items() if not _SUITES[name](folder)]
    if empty or not folders:
        print("".join(f"{printable(str(folder))} holds nothing to run. " for folder in empty) + _WHERE, file=sys.stderr)
        return 2
    try:
        figures = _run({name: folder.resolve() for name, folder in folders.items()})
    except (MissingToolError, SandboxError) as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.json:
        print_json(msgspec.to_builtins(figures, str_keys=True))
    broken = []
    for one in figures.values():
        broken += list(report.broken(one))
        if not arguments.json:
            report.show(one)
    for promise in broken:
        print(f"broken: {printable(promise)}", file=sys.stderr)
    return 1 if broken else 0


def _run(folders: dict[str, Path]) -> dict[str, Figures]:
    """The figures of every suite that is named."""
    figures: dict[str, Figures] = {}
    if "spec" in folders:
        figures["spec"] = spec.run(spec.find(folders["spec"]), WasmTools(program()))
    if folders.keys() - {"spec"}:
        with open_sandbox() as sandbox:
            if "wasi" in folders:
                figures["wasi"] = asyncio.run(wasi.run(wasi.find(folders["wasi"]), sandbox))
            if "modules" in folders:
                found = programs.find(folders["modules"])
                figures["modules"] = asyncio.run(programs.run(found, sandbox, WasmTools(program())))
    return figures


if __name__ == "__main__":
    sys.exit(main())
