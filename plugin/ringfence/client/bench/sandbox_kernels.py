"""The seven kernels of `ringfence bench sandbox`: compiled, run in three ways in turn, and compared.

Each is the same C source on both sides, compiled by the same pinned compiler. It times its own rounds of work, inside
the guest, so that starting processes is no part of it.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from ringfence.client.errors import ClientError
from ringfence.client.guests import cache_folder, header_folder
from ringfence.errors import BAD_ARGUMENT, MISSING_EXTRA, Code, Kind, UsageError

if TYPE_CHECKING:
    import wasmtime

KERNEL_MISMATCH: Final = Code("client.kernel_mismatch", Kind.INTERNAL)

WAYS: Final = ("sandboxed", "plain", "native", "tuned")
KERNELS: Final = ("matmul", "stencil", "nbody", "sha256", "lz", "sieve", "sort")
SOURCES: Final = Path(__file__).parent / "kernels"

_SHARED_FLAGS: Final = ("-O3", "-ffp-contract=off", "-nostdlib", "-s", "-Wall", "-Wextra", "-Werror")
WASM_FLAGS: Final = (
    *("-target", "wasm32-wasi", *_SHARED_FLAGS),
    *("-msimd128", "-mbulk-memory", "-Wl,-z,stack-size=65536"),
)
NATIVE_FLAGS: Final = (
    *("-target", f"{platform.machine()}-linux-none", *_SHARED_FLAGS),
    *("-static", "-lcompiler_rt"),
)
TUNED_FLAGS: Final = (*NATIVE_FLAGS, "-march=native")

_COMPILE_S: Final = 300
_NATIVE_S: Final = 60
_SHOWN_LINES: Final = 20


@dataclass(frozen=True, slots=True)
class Rounds:
    """What one run of a kernel printed: a checksum and nanoseconds for every round."""

    checksums: tuple[int, ...]
    nanoseconds: tuple[int, ...]

    @property
    def undisturbed(self) -> float:
        """Nanoseconds of a round while nothing else ran: the median of the fastest quarter."""
        ordered = sorted(self.nanoseconds)
        return statistics.median(ordered[: max(1, len(ordered) // 4)])


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel's three programs: WebAssembly, native for every processor, and native for this one alone."""

    name: str
    wasm: bytes
    native: Path
    tuned: Path


def compiler() -> str:
    """The pinned compiler and its version; raises `UsageError` (`usage.missing_extra`) without it."""
    try:
        return f"ziglang {importlib.metadata.version('ziglang')}"
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            MISSING_EXTRA,
            "The compiler for guests is not installed.",
            field="ziglang",
            hint="In the folder of the clone, run: pip install '.[demo]'",
        ) from error


def build(name: str, folder: Path) -> Built:
    """Compiles the kernel `name` into `folder`; errors as for `compile_source`."""
    paths = [folder / f"{name}.{kind}" for kind in ("wasm", "native", "tuned")]
    for path, flags in zip(paths, (WASM_FLAGS, NATIVE_FLAGS, TUNED_FLAGS), strict=True):
        compile_source(name, path, flags)
    wasm, native, tuned = paths
    return Built(name, wasm.read_bytes(), native, tuned)


def compile_source(name: str, target: Path, flags: Sequence[str]) -> None:
    """Compiles one of `SOURCES` to `target`.

    Raises `UsageError` (`usage.bad_argument`) with the compiler's words where it refuses: the kernels know the system
    calls of Linux on x86-64 and AArch64 only.
    """
    cache = str(cache_folder() / "zig-cache")
    command = [sys.executable, "-m", "ziglang", "cc", *flags, "-I", str(header_folder())]
    done = subprocess.run(  # noqa: S603 - our own compiler, no shell
        [*command, "-o", str(target), f"{name}.c"],
        cwd=SOURCES,
        env=os.environ | {"ZIG_LOCAL_CACHE_DIR": cache, "ZIG_GLOBAL_CACHE_DIR": cache},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_COMPILE_S,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()[:_SHOWN_LINES]
        raise UsageError(
            BAD_ARGUMENT,
            f"The kernel {name} does not compile for {platform.machine()}:\n" + "\n".join(said),
            field=name,
            hint="The benchmark runs on Linux on x86-64 and AArch64.",
        )


def encode_rounds(count: int) -> bytes:
    """The standard input of a kernel that is to do `count` rounds."""
    return count.to_bytes(4, "little")


def decode_rounds(output: bytes) -> Rounds:
    """What a kernel printed."""
    checksums, nanoseconds = zip(*(map(int, line.split()) for line in output.splitlines()), strict=True)
    return Rounds(checksums, nanoseconds)


def run_native(program: Path, rounds: int) -> Rounds:
    """One run of a native program, in a process of its own."""
    done = subprocess.run(  # noqa: S603 - compiled here, from a source of this package
        [str(program)], input=encode_rounds(rounds), stdout=subprocess.PIPE, timeout=_NATIVE_S, check=True
    )
    return decode_rounds(done.stdout)


class PlainWasmtime:
    """wasmtime as it comes: its own defaults, memory and WASI, in this process, without any limit."""

    def __init__(self, folder: Path) -> None:
        import wasmtime

        self._engine = wasmtime.Engine()
        self._linker = wasmtime.Linker(self._engine)
        self._linker.define_wasi()
        self._input, self._output = folder / "plain.in", folder / "plain.out"

    def compile(self, wasm: bytes) -> wasmtime.Module:
        """Compiles a kernel."""
        import wasmtime

        return wasmtime.Module(self._engine, wasm)

    def run(self, module: wasmtime.Module, rounds: int) -> Rounds:
        """One run of a kernel."""
        import wasmtime

        self._input.write_bytes(encode_rounds(rounds))
        streams = wasmtime.WasiConfig()
        streams.stdin_file = str(self._input)
        streams.stdout_file = str(self._output)
        store = wasmtime.Store(self._engine)
        store.set_wasi(streams)
        exports = self._linker.instantiate(store, module).exports(store)
        cast("wasmtime.Func", exports["_start"])(store)
        store.close()
        return decode_rounds(self._output.read_bytes())


def check_agreement(name: str, runs: Mapping[str, Rounds]) -> None:
    """Raises `ClientError` (`client.kernel_mismatch`) unless every way computed the same in every round."""
    if len({run.checksums for run in runs.values()}) != 1:
        raise ClientError(
            KERNEL_MISMATCH,
            f"The kernel {name} computed one thing in WebAssembly and another natively.",
            field=name,
            hint="Compare the checksums that the two programs print; a compiler or the runtime is wrong.",
        )


def compare(name: str, pairs: Sequence[Mapping[str, Rounds]]) -> dict[str, Any]:
    """A kernel's row: milliseconds of a round each way, and the medians of the ratios inside each pair."""
    times = {way: [pair[way].undisturbed for pair in pairs] for way in WAYS}

    def over(way: str) -> float:
        ratios = [ours / theirs for ours, theirs in zip(times["sandboxed"], times[way], strict=True)]
        return round(statistics.median(ratios), 3)

    return {
        "name": name,
        **{f"{way}_ms": round(statistics.median(values) / 1e6, 3) for way, values in times.items()},
        "over_plain": over("plain"),
        "over_native": over("native"),
        "over_tuned": over("tuned"),
    }


def overall(ratios: Iterable[float]) -> dict[str, float]:
    """The geometric mean and the worst of the kernels' ratios."""
    values = list(ratios)
    return {"geomean": round(math.exp(statistics.fmean(map(math.log, values))), 3), "worst": max(values)}
