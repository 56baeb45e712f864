#!/usr/bin/env python3
"""Make the environment in .venv that `make demo` and `make test` run in.

It needs Python 3.11, pip and nothing else: Debian's `venv` works without the python3-venv package as long as it does
not install pip, and Debian's pip can install into another environment, so neither root nor --break-system-packages is
asked for. What is installed comes from uv.lock, hash by hash, through the uv that tools/bootstrap.txt pins.

A stamp in .venv says what it was made from; while nothing of that changed, a run touches no network.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

OLDEST_PYTHON = (3, 11)
DEMO_EXTRAS = ("agent", "demo", "gateway", "quantum")
MADE_FROM = ("uv.lock", "pyproject.toml", "tools/bootstrap.txt", "tools/setup.py")
# What a compiled TPM binding, a software TPM and the tests of real gateways need, and the Debian package that has it.
SYSTEM_PACKAGES = {
    "swtpm": "swtpm",
    "swtpm_setup": "swtpm-tools",
    "gcc": "gcc",
    "pkg-config": "pkg-config",
    "C headers": "libc6-dev",
    "Python headers": "python3-dev",
    "tss2-esys": "libtss2-dev",
    "libtss2-tcti-swtpm.so.0": "libtss2-tcti-swtpm0",
    "nginx": "nginx-light",
    "haproxy": "haproxy",
    "caddy": "caddy",
    "wrk": "wrk",
}
PROGRAMS = ("swtpm", "swtpm_setup", "gcc", "pkg-config", "nginx", "haproxy", "caddy", "wrk")
GATEWAYS = ("nginx-light", "haproxy", "caddy", "wrk")


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


def say(message: str) -> None:
    print(f"setup: {message}", file=sys.stderr, flush=True)


def execute(command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> None:
    """Run a command that prints its own progress, or raise with the command that failed."""
    sys.stderr.flush()
    outcome = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if outcome.returncode != 0:
        raise SetupError(f"this command failed with status {outcome.returncode}: {' '.join(command)}")


def succeeds(command: Sequence[str]) -> bool:
    """Whether a command is there and exits 0; what it prints is dropped."""
    try:
        outcome = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    except OSError:
        return False
    return outcome.returncode == 0


def has_library(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def missing_packages() -> list[str]:
    """The Debian packages whose content is not here; a Python or a TSS of another origin counts as present."""
    # An ordinary user's PATH lacks the folder where Debian has nginx and haproxy.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))
    present = {name: shutil.which(name, path=path) is not None for name in PROGRAMS}
    present["C headers"] = Path("/usr/include/stdio.h").is_file()
    present["Python headers"] = Path(sysconfig.get_path("include"), "Python.h").is_file()
    present["tss2-esys"] = succeeds(["pkg-config", "--exists", "tss2-esys"])
    present["libtss2-tcti-swtpm.so.0"] = has_library("libtss2-tcti-swtpm.so.0")
    return [package for name, package in SYSTEM_PACKAGES.items() if not present[name]]


def install_system_packages() -> None:
    """Install what the tests need through apt as root or with password-less sudo, or say who should run what."""
    missing = missing_packages()
    if not missing:
        return
    apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"]
    install = ["install", "--yes", "--no-install-recommends", *missing]
    by_hand = f"sudo apt-get update && sudo apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise SetupError(f"the tests need these packages (Debian's names): {' '.join(missing)}. Install them first.")
    if os.geteuid() != 0:
        if not succeeds(["sudo", "-n", "true"]):
            raise SetupError(f"the tests need the system packages {' '.join(missing)}. Run: {by_hand}")
        apt = ["sudo", "-n", *apt]
    say(f"installing the system packages {' '.join(missing)}: about half a minute, once")
    execute([*apt, "--quiet", "update"])
    execute([*apt, "--quiet", *install])


class Environment:
    """The virtual environment of one checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / ".venv"
        self.python = self.folder / "bin" / "python"
        self.uv = self.folder / "bin" / "uv"
        self.unfinished = self.folder / "setup-unfinished"

    def fingerprint(self, mode: str) -> str:
        """What the environment is made from: the files, the Python, the place and the missing packages, as one hash."""
        parts = [mode, str(self.root), sys.version, sys.executable, *missing_packages()]
        digest = hashlib.sha256("\0".join(parts).encode())
        for name in MADE_FROM:
            digest.update(hashlib.sha256((self.root / name).read_bytes()).digest())
        return digest.hexdigest()

    def stamp(self, mode: str) -> Path:
        return self.folder / f"setup-{mode}"

    def is_current(self, mode: str, fingerprint: str) -> bool:
        stamp = self.stamp(mode)
        return (
            stamp.is_file()
            and stamp.read_text(encoding="ascii") == fingerprint
            and not self.unfinished.exists()
            and self.runs()
        )

    def runs(self) -> bool:
        return succeeds([str(self.python), "-c", "import sys; sys.exit(sys.version_info < (3, 11))"])

    def is_sound(self) -> bool:
        """Whether it can be built upon: finished, of this very folder (scripts name it), with a Python that runs."""
        configuration = self.folder / "pyvenv.cfg"
        return (
            configuration.is_file()
            and f" {self.folder}\n" in configuration.read_text(encoding="utf-8") + "\n"
            and not self.unfinished.exists()
            and self.runs()
        )

    def create(self) -> None:
        if self.folder.exists():
            say("the .venv here is unfinished, broken or from another place: making it anew")
            shutil.rmtree(self.folder)
        execute([sys.executable, "-m", "venv", "--without-pip", str(self.folder)])

    def install_uv(self) -> None:
        if not succeeds([sys.executable, "-m", "pip", "--version"]):
            raise SetupError(f"{sys.executable} has no pip. Install it (Debian: sudo apt-get install python3-pip).")
        pip = [sys.executable, "-m", "pip", "--python", str(self.python), "--disable-pip-version-check", "--no-input"]
        execute([*pip, "install", "--quiet", "--require-hashes", "-r", str(self.root / "tools" / "bootstrap.txt")])

    def sync(self, choice: Sequence[str]) -> None:
        """Install what uv.lock says, and the checkout itself as an editable package."""
        command = [
            str(self.uv),
            "sync",
            "--project",
            str(self.root),
            "--frozen",
            "--inexact",
            "--python",
            str(self.python),
        ]
        environment = {name: value for name, value in os.environ.items() if name not in {"VIRTUAL_ENV", "PYTHONPATH"}}
        environment |= {"UV_PROJECT_ENVIRONMENT": str(self.folder), "UV_PYTHON_DOWNLOADS": "never"}
        execute([*command, *choice], environment=environment)


def extras_for(mode: str) -> list[str]:
    """The options of `uv sync` that choose extras and groups; the demo does without a TPM where none is."""
    if mode == "test":
        return ["--all-extras"]
    missing = [package for package in missing_packages() if package not in GATEWAYS]
    if missing:
        say(f"no software TPM here ({', '.join(missing)} missing): the demo's host will be one that is not attested")
    extras = DEMO_EXTRAS if missing else (*DEMO_EXTRAS, "tpm")
    return ["--no-dev", *(part for extra in extras for part in ("--extra", extra))]


def set_up(root: Path, mode: str) -> None:
    """Bring .venv to what `mode` needs; what the tests need is enough for the demo."""
    environment = Environment(root)
    if mode == "test":
        install_system_packages()
    if any(environment.is_current(made, environment.fingerprint(made)) for made in {mode, "test"}):
        return
    if not environment.is_sound():
        say("making .venv from 200 to 350 MB of locked wheels: ten seconds to a few minutes, by the network, once")
        environment.create()
    environment.unfinished.touch()
    began = time.monotonic()
    if not succeeds([str(environment.uv), "--version"]):
        environment.install_uv()
    environment.sync(extras_for(mode))
    environment.stamp(mode).write_text(environment.fingerprint(mode), encoding="ascii")
    environment.unfinished.unlink()
    say(f".venv is ready for `make {mode}` ({time.monotonic() - began:.0f} s)")


def main() -> int:
    parser = argparse.ArgumentParser(description="Make or refresh .venv. A run with nothing to do needs no network.")
    parser.add_argument("mode", choices=["demo", "test"], help="demo: what `make demo` needs; test: everything")
    arguments = parser.parse_args()
    if sys.version_info < OLDEST_PYTHON:
        say(f"Ringfence needs Python 3.11 or newer, and {sys.executable} is {sys.version.split()[0]}.")
        say("Name another one like this: make demo PYTHON=python3.11")
        return 1
    root = Path(__file__).resolve().parent.parent
    checkout = os.open(root, os.O_RDONLY)
    fcntl.flock(checkout, fcntl.LOCK_EX)  # two makes at once would build one .venv
    try:
        set_up(root, arguments.mode)
    except SetupError as error:
        say(str(error))
        return 1
    finally:
        os.close(checkout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
