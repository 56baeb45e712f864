"""Compiles the demo's guests from C to WebAssembly with the pinned compiler of the `ziglang` wheel.

The guests need no C library (`RINGFENCE_FREESTANDING` in ringfence.h), so one takes about a tenth of a second; building
a C library would take half a minute the first time. What was compiled is kept under a name that holds the digest of
everything it was made from.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.resources
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from ringfence.errors import BAD_ARGUMENT, MISSING_EXTRA, UNREADABLE_FILE, UsageError

_FLAGS = (
    *("-target", "wasm32-wasi", "-nostdlib", "-Wl,-z,stack-size=65536", "-s"),
    *("-O2", "-mbulk-memory", "-fno-builtin"),
    *("-Wall", "-Wextra", "-Werror"),
)
_TIMEOUT_S = 300
_SHOWN_LINES = 20


def demo_guest(name: str) -> Path:
    """The C source of a guest of the demo: "analyse", "hog" or "forever"."""
    return Path(__file__).parent / "demo_data" / "guests" / f"{name}.c"


def header_folder() -> Path:
    """The folder of `ringfence.h`, for a compiler's -I."""
    return Path(str(importlib.resources.files("ringfence.agent.sandbox"))) / "guest"


def cache_folder() -> Path:
    """Where compiled guests are kept for this user (XDG Base Directory Specification)."""
    named = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(named) if Path(named).is_absolute() else Path.home() / ".cache"
    return base / "ringfence" / "guests"


def compile_guest(source: Path, output_dir: Path) -> bytes:
    """The WebAssembly of the freestanding guest in `source`, from the cache in `output_dir` where it is there.

    Raises `UsageError`: `usage.unreadable_file`, `usage.missing_extra` without ziglang, and `usage.bad_argument` with
    the compiler's own words when it refuses the source.
    """
    try:
        version = importlib.metadata.version("ziglang")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(
            MISSING_EXTRA,
            "The compiler for guests is not installed.",
            field="ziglang",
            hint="In the folder of the clone, run: pip install '.[demo]'",
        ) from error
    try:
        code = source.read_bytes()
    except OSError as error:
        raise UsageError(
            UNREADABLE_FILE, f"The guest's source {source} cannot be read ({error.strerror}).", field="source"
        ) from error
    header = header_folder()
    digest = hashlib.sha256()
    for part in (code, (header / "ringfence.h").read_bytes(), version.encode(), " ".join(_FLAGS).encode()):
        digest.update(hashlib.sha256(part).digest())
    kept = output_dir / f"{source.stem}-{digest.hexdigest()[:32]}.wasm"
    if not kept.exists():
        _compile(source.resolve(), header, kept.absolute())
    return kept.read_bytes()


def _compile(source: Path, header: Path, target: Path) -> None:
    cache = target.parent / "zig-cache"
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / "guest.wasm"
        done = subprocess.run(  # noqa: S603 - our own compiler, no shell
            [sys.executable, "-m", "ziglang", "cc", *_FLAGS, "-I", str(header), "-o", str(made), source.name],
            cwd=source.parent,
            env=os.environ | {"ZIG_LOCAL_CACHE_DIR": str(cache), "ZIG_GLOBAL_CACHE_DIR": str(cache)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip().splitlines()[:_SHOWN_LINES]
            raise UsageError(
                BAD_ARGUMENT,
                "The guest does not compile:\n" + "\n".join(said),
                field=source.name,
                hint="Mend the source.",
            )
        made.replace(target)
