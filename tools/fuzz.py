"""Fuzz the decoders that read untrusted bytes, with atheris (libFuzzer), each in a process of its own.

    .venv/bin/python tools/fuzz.py [--seconds N] [NAME ...]

`--seconds` is shared by all the decoders named (default: all of them, 600 s). What is found lies in build/fuzz/NAME and
is printed; exit status 1. The corpus is kept there too, so that the next run goes on from it.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "fuzz"


def main() -> int:
    """Runs the decoders named, one after another, or a single one in this process for `--in-process`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="decoders (default: all)")
    parser.add_argument("--seconds", type=int, default=600, help="for all of them together (%(default)s)")
    parser.add_argument("--in-process", metavar="NAME", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.in_process:
        return _fuzz(arguments.in_process, arguments.seconds)
    known = sorted(_targets().TARGETS)
    unknown = [name for name in arguments.names if name not in known]
    if unknown:
        parser.error(f"no decoder is called {', '.join(unknown)}; known: {', '.join(known)}")
    names = arguments.names or known
    each = max(1, arguments.seconds // len(names))
    failed = [name for name in names if not _run(name, each)]
    print(f"fuzz: {len(names) - len(failed)} of {len(names)} decoders raised nothing unexpected in {each} s each")
    return 1 if failed else 0


def _run(name: str, seconds: int) -> bool:
    command = [sys.executable, __file__, "--in-process", name, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    runs = [line for line in done.stderr.splitlines() if line.startswith("Done ")]
    print(f"{name:28} {runs[-1] if runs and done.returncode == 0 else 'FOUND'}", flush=True)
    if done.returncode != 0:
        print("\n".join((done.stdout + done.stderr).splitlines()[-40:]))
    return done.returncode == 0


def _fuzz(name: str, seconds: int) -> int:
    import atheris

    with atheris.instrument_imports(include=["ringfence"]):
        targets = _targets()
    target = targets.TARGETS[name]
    folder = BUILD / name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    flags = [f"-max_total_time={seconds}", "-max_len=8192", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup(
        [sys.argv[0], *flags, f"-artifact_prefix={folder}/", str(corpus)],
        lambda data: targets.one_input(target, data),
    )
    atheris.Fuzz()
    return 0


def _targets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_targets", ROOT / "tests" / "fuzz" / "targets.py")
    if spec is None or spec.loader is None:
        raise SystemExit("tests/fuzz/targets.py is missing")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    sys.exit(main())
