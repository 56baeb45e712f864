"""Build the kernel catalogue for the CPU device: every .hip kernel into one catalogue.wasm, the same bytes each time.

    python tools/build_catalogue.py [--output FILE]

The compiler is the pinned `ziglang` wheel, which the `demo` extra installs. A test compares the committed file with a
new build.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

GPU = Path(__file__).resolve().parent.parent / "agent" / "ringfence" / "agent" / "gpu"

FLAGS = (
    *("-target", "wasm32-freestanding", "-std=c++20", "-O3", "-msimd128", "-ffp-contract=off"),
    *("-fno-exceptions", "-fno-rtti", "-g0", "-Wall", "-Wextra", "-Werror"),
    *("-nostdlib", "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,-z,stack-size=65536"),
)


def build(output: Path) -> None:
    """Compile the catalogue into `output`; raises `subprocess.CalledProcessError` when the compiler refuses."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {"ZIG_LOCAL_CACHE_DIR": cache, "ZIG_GLOBAL_CACHE_DIR": cache, "HOME": cache}
        subprocess.run(
            # The source's name is relative, so that no path of this machine can enter the result.
            [sys.executable, "-m", "ziglang", "c++", *FLAGS, "cpu_driver.cpp", "-o", str(output.resolve())],
            cwd=GPU,
            env={**os.environ, **environment},
            check=True,
        )
    output.chmod(0o644)


def main() -> int:
    """Parse the command line and build."""
    parser = argparse.ArgumentParser(description="Build the CPU device's kernels from their .hip sources.")
    parser.add_argument(
        "--output", type=Path, default=GPU / "catalogue.wasm", help="where to write (default: in place)"
    )
    build(parser.parse_args().output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
