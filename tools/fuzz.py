"""Fuzz the decoders that read untrusted bytes, with atheris (libFuzzer), each in a process of its own.

    .venv/bin/python tools/fuzz.py [--seconds N] [NAME ...]

`--seconds` is shared by all the decoders named (default: all of them, 600 s). What is found lies in build/fuzz/NAME and
is printed; exit status 1. The corpus is kept there too, so that the next run goes on from it.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.fuzz.target import Target, one_input  # noqa: E402 - found from here only after the line above

BUILD = ROOT / "build" / "fuzz"


def main() -> int:
    """Runs the decoders named, as many at a time as there are processors, or a single one for `--in-process`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="decoders (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="for all of them together (%(default)s)")
    parser.add_argument("--in-process", nargs=2, metavar=("MODULE", "NAME"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        module, name = arguments.in_process
        return _fuzz(module, name, arguments.seconds)
    known = known_targets()
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no decoder is called {', '.join(unknown)}; known: {', '.join(known)}")
    names = arguments.names or list(known)
    at_once = os.cpu_count() or 1
    each = max(1, arguments.seconds * at_once // len(names))
    with ThreadPoolExecutor(at_once) as pool:
        held = list(pool.map(lambda name: _run(known[name], name, each), names))
    print(f"fuzz: {sum(held)} of {len(names)} decoders raised nothing unexpected in {each} s each")
    return 0 if all(held) else 1


def known_targets() -> dict[str, str]:
    """Every decoder's name, and the module of `tests/fuzz` that lists it; each name is there once."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "tests" / "fuzz").glob("targets_*.py")):
        for name in targets_in(path.stem):
            if name in found:
                raise SystemExit(f"the decoder {name} is listed in {found[name]} and in {path.stem}")
            found[name] = path.stem
    return dict(sorted(found.items()))


def targets_in(module: str) -> Mapping[str, Target]:
    """The decoders that a module of `tests/fuzz` lists."""
    targets: Mapping[str, Target] = importlib.import_module(f"tests.fuzz.{module}").TARGETS
    return targets


def _run(module: str, name: str, seconds: int) -> bool:
    command = [sys.executable, __file__, "--in-process", module, name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    found = "" if runs and done.returncode == 0 else "\n" + "\n".join((done.stdout + done.stderr).splitlines()[-40:])
    print(f"{name:28} {'FOUND' + found if found else runs[-1]}", flush=True)
    return not found


def _fuzz(module: str, name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["ringfence"]):
        target = targets_in(module)[name]
    folder = BUILD / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup(
        [sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(corpus)],
        lambda data: one_input(target, data),
    )
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
