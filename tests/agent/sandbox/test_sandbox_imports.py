"""The one description of the imports: what a C compiler makes of the header that is written from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.agent.sandbox.imports import IMPORTS, RINGFENCE, WASI, Import
from ringfence.agent.sandbox.wasm import FunctionType, decode_module
from ringfence.client.guests import compile_guest, header_folder

TREE = Path(__file__).resolve().parents[3]


def arguments(one: Import) -> str:
    declared = [] if one.c_parameters == "void" else one.c_parameters.split(", ")
    return ", ".join(
        f"({' '.join(part.split()[:-1])}{'*' * part.count('*')})0".replace("**)", "*)") for part in declared
    )


def test_the_committed_header_is_what_the_description_gives(tmp_path: Path) -> None:
    written = tmp_path / "ringfence.h"
    command = [sys.executable, str(TREE / "tools" / "build_header.py"), "--output", str(written)]
    subprocess.run(command, check=True, timeout=60)
    committed = (header_folder() / "ringfence.h").read_text(encoding="utf-8")
    assert written.read_text(encoding="utf-8") == committed, "run `make generate` and commit what it writes"


def test_a_compiler_imports_each_function_with_the_described_types(tmp_path: Path) -> None:
    declared = [one for one in IMPORTS.values() if one.c_name]
    calls = "".join(f"  {one.c_name}({arguments(one)});\n" for one in declared)
    source = tmp_path / "everything.c"
    source.write_text(
        '#define RINGFENCE_FREESTANDING\n#include "ringfence.h"\n'
        f"static int32_t everything(void) {{\n{calls}  return 0;\n}}\nRINGFENCE_MAIN(everything)\n"
    )
    module = decode_module(compile_guest(source, tmp_path))
    compiled = {(one.module, one.name): module.types[one.type] for one in module.imports}
    assert compiled == {(one.module, one.name): FunctionType(one.parameters, one.results) for one in declared}


def test_a_reactor_compiles_with_its_entry_point(tmp_path: Path) -> None:
    source = tmp_path / "reactor.c"
    source.write_text(
        '#define RINGFENCE_FREESTANDING\n#include "ringfence.h"\n'
        "static int32_t size(const uint8_t *input, uint32_t bytes) { return input ? (int32_t)bytes : 0; }\n"
        "RINGFENCE_REACTOR(size)\nstatic int32_t none(void) { return 0; }\nRINGFENCE_MAIN(none)\n"
    )
    module = decode_module(compile_guest(source, tmp_path))
    exports = {one.name: one.index for one in module.exports}
    assert module.function_type(exports["main"]) == FunctionType(("i32", "i32"), ("i32",))


def test_the_abi_is_as_it_was() -> None:
    # Guests that were compiled once must run for ever: an entry is added here, and none is ever changed.
    assert {one.name: (one.parameters, one.results) for one in IMPORTS.values() if one.module == RINGFENCE} == {
        "amd_gpu_alloc": (("i64", "i32"), ("i64",)),
        "amd_gpu_copy": (("i64", "i64", "i64", "i32"), ("i32",)),
        "amd_gpu_kernel_launch": (("i32", "i32", "i32"), ("i32",)),
        "amd_gpu_sync": (("i32",), ("i32",)),
        "quantum_gate": (("i32", "i32", "f64"), ("i32",)),
        "quantum_measure": (("i32", "i32"), ("i32",)),
        "security_checkpoint": (("i32",), ()),
    }


@pytest.mark.parametrize("one", IMPORTS.values(), ids=lambda one: one.name)
def test_each_description_is_whole(one: Import) -> None:
    assert one.module in (RINGFENCE, WASI)
    assert one.addresses == ("*" in one.c_parameters or one.name == "amd_gpu_copy")
    assert one.meaning
    assert not one.meaning.endswith(".")


def test_a_measurement_is_a_synchronisation() -> None:
    # What returns something of the device's waits for everything before it; a copy does where it leads to the guest.
    answered = {"amd_gpu_alloc", "amd_gpu_sync", "quantum_measure"}
    assert {one.name for one in IMPORTS.values() if one.module == RINGFENCE and not one.asynchronous} == answered
