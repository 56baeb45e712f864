"""The kernel catalogue: one source for every device, and a committed build that is current."""

from __future__ import annotations

import importlib.resources
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.errors import DEVICE_ARGUMENT, KERNEL_UNKNOWN, SandboxError
from ringfence.agent.gpu.catalogue import KERNELS, MAX_BLOCK, MAX_THREADS, Argument, check_launch

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
GPU = importlib.resources.files("ringfence.agent.gpu")
SOURCES = Path(str(GPU)) / "catalogue"

DECLARED = {
    "unsigned long long *": Argument.POINTER,
    "long long *": Argument.POINTER,
    "double *": Argument.POINTER,
    "long long ": Argument.I64,
    "double ": Argument.F64,
    "unsigned ": Argument.U32,
}


def test_every_source_is_in_the_catalogue_and_every_kernel_has_a_source() -> None:
    assert {path.stem for path in SOURCES.iterdir()} == set(KERNELS)


@pytest.mark.parametrize("name", KERNELS)
def test_the_catalogue_knows_each_argument_as_the_source_declares_it(name: str) -> None:
    source = (SOURCES / f"{name}.hip").read_text()
    declaration = re.search(rf'extern "C" __global__ void {name}\(([^)]*)\)', source)
    assert declaration is not None
    types = [re.sub(r"\w+$", "", text.strip()).removeprefix("const ") for text in declaration[1].split(",")]
    assert tuple(DECLARED[type_] for type_ in types) == KERNELS[name].arguments


def test_the_committed_build_is_current(tmp_path: Path) -> None:
    built = tmp_path / "catalogue.wasm"
    subprocess.run([sys.executable, ROOT / "tools" / "build_catalogue.py", "--output", built], check=True)
    assert built.read_bytes() == GPU.joinpath("catalogue.wasm").read_bytes(), "run tools/build_catalogue.py"


def test_the_build_imports_nothing_and_names_no_path() -> None:
    build = GPU.joinpath("catalogue.wasm").read_bytes()
    module = wasmtime.Module(wasmtime.Engine(), build)
    assert module.imports == []
    exported = {export.name for export in module.exports}
    assert exported == {"memory", "ringfence_arguments", "ringfence_pool", *(f"launch_{name}" for name in KERNELS)}
    assert b"/" not in build.replace(b"://", b"")


@pytest.mark.parametrize("architecture", ["gfx90a", "gfx942", "gfx1100"])
@pytest.mark.parametrize("name", KERNELS)
def test_the_same_source_compiles_for_a_real_gpu(name: str, architecture: str, tmp_path: Path) -> None:
    assembly = tmp_path / "kernel.s"
    target = ["-x", "hip", f"--offload-arch={architecture}", "--cuda-device-only", "--no-gpu-bundle-output"]
    options = ["-nogpulib", "-nogpuinc", "-O3", "-Wall", "-Wextra", "-Werror", "-include", str(HERE / "amdgcn_shim.h")]
    source = SOURCES / f"{name}.hip"
    subprocess.run(
        [sys.executable, "-m", "ziglang", "clang", *target, *options, "-S", source, "-o", assembly], check=True
    )
    text = assembly.read_text()
    found = re.findall(r"\.size: +(\d+)\n +\.value_kind: +(global_buffer|by_value)\n", text)
    sizes = {Argument.POINTER: ("8", "global_buffer"), Argument.U32: ("4", "by_value")}
    assert found == [sizes.get(kind, ("8", "by_value")) for kind in KERNELS[name].arguments]
    assert not re.search(r"v_fma_f64|v_fmac_f64", text), "a fused multiply-add rounds once, the CPU device twice"


GOOD = (256, 512, 3)


def test_a_launch_within_the_limits_is_accepted() -> None:
    assert check_launch("square_i64", 1, 1, GOOD) is KERNELS["square_i64"]
    assert check_launch("square_i64", MAX_THREADS // MAX_BLOCK, MAX_BLOCK, GOOD).pointers(GOOD) == [256, 512]


@pytest.mark.parametrize(
    ("grid", "block", "arguments", "field"),
    [
        (1, 0, GOOD, "block"),
        (1, MAX_BLOCK + 1, GOOD, "block"),
        (0, 1, GOOD, "grid"),
        (MAX_THREADS // MAX_BLOCK + 1, MAX_BLOCK, GOOD, "grid"),
        (2**32 - 1, 1, GOOD, "grid"),
        (1, 1, GOOD[:2], "arguments"),
        (1, 1, (*GOOD, 0), "arguments"),
        (1, 1, (257, 512, 3), "arguments[0]"),
        (1, 1, (256, 512, 2**32), "arguments[2]"),
        (1, 1, (256, 512, -1), "arguments[2]"),
    ],
)
def test_a_bad_launch_is_refused_by_its_field(grid: int, block: int, arguments: tuple[int, ...], field: str) -> None:
    with pytest.raises(SandboxError) as caught:
        check_launch("square_i64", grid, block, arguments)
    assert (caught.value.code, caught.value.field) == (DEVICE_ARGUMENT, field)


def test_an_unknown_kernel_is_refused_and_the_catalogue_named() -> None:
    with pytest.raises(SandboxError, match="square_i64") as caught:
        check_launch("memset", 1, 1, ())
    assert caught.value.code is KERNEL_UNKNOWN
