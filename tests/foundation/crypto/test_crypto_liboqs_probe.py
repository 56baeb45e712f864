"""liboqs is used where it is installed, and never makes anything happen where it is absent, broken or another one."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringfence.crypto.providers.liboqs_probe import probe

VERSION = 'const char *OQS_version(void) { return "%s"; }\n'
# All that liboqs-python touches while it is imported: a library that has no algorithm enabled.
WHOLE = VERSION % "0.16.0" + "".join(
    f"long {name}(void) {{ return 0; }}\n"
    for name in (
        *(f"OQS_{family}_{what}" for family in ("KEM", "SIG", "SIG_STFL") for what in ("new", "free", "alg_count")),
        *(f"OQS_{family}_alg_is_enabled" for family in ("KEM", "SIG", "SIG_STFL")),
        *(f"OQS_{family}_alg_identifier" for family in ("KEM", "SIG", "SIG_STFL")),
        *(f"OQS_SIG_STFL_{what}" for what in ("keypair", "sign", "verify", "sigs_remaining", "sigs_total")),
        *(f"OQS_SIG_STFL_SECRET_KEY_{what}" for what in ("new", "free", "serialize", "deserialize", "SET_store_cb")),
        *("OQS_init", "OQS_SIG_supports_ctx_str", "OQS_SIG_STFL_keygen_and_sign_supported", "OQS_MEM_secure_free"),
    )
)


def nowhere(name: str) -> None:
    """A linker that knows no library."""


def installed(folder: Path, source: str, *, lib: str = "lib") -> dict[str, str]:
    """An environment that names a folder with a library compiled from `source`."""
    (folder / lib).mkdir(parents=True)
    command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-x", "c", "-", "-o", str(folder / lib / "liboqs.so")]
    subprocess.run(command, input=source, text=True, check=True)
    return {"OQS_INSTALL_PATH": str(folder)}


def absence(environment: dict[str, str]) -> str:
    found = probe(environment, nowhere)
    assert found.module is None
    return found.absence


def test_nothing_installed_is_absent(tmp_path: Path) -> None:
    assert "no liboqs is installed" in absence({})
    assert "no liboqs is installed" in absence({"OQS_INSTALL_PATH": str(tmp_path)})


def test_a_file_that_is_no_library_is_absent(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "liboqs.so").write_text("not a library", encoding="ascii")
    assert "cannot be loaded" in absence({"OQS_INSTALL_PATH": str(tmp_path)})


def test_a_library_of_another_kind_is_absent(tmp_path: Path) -> None:
    assert "is not liboqs" in absence(installed(tmp_path, "int other(void) { return 1; }\n", lib="lib64"))


@pytest.mark.parametrize("version", ["0.15.0", "0.10.1", "1.0.0", "0.160.0", ""])
def test_another_version_is_absent_before_anything_is_imported(tmp_path: Path, version: str) -> None:
    assert f"is liboqs {version}, and" in absence(installed(tmp_path, VERSION % version))


def test_the_binding_has_to_be_there_and_of_the_right_version(tmp_path: Path) -> None:
    environment = installed(tmp_path, WHOLE)

    def missing(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    assert "is not installed (pip install 'ringfence[oqs]')" in probe(environment, nowhere, missing).absence
    assert "0.12.0 is not one of 0.16.x" in probe(environment, nowhere, lambda _: "0.12.0").absence


def test_the_linkers_library_goes_before_the_install_path(tmp_path: Path) -> None:
    environment = installed(tmp_path / "set", WHOLE)
    installed(tmp_path / "system", VERSION % "0.10.0")
    found = probe(environment, lambda name: f"{tmp_path}/system/lib/liboqs.so" if name == "oqs" else None)
    assert "0.10.0" in found.absence


def child(code: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` where every tool that an installer would call leaves a trace, and fails."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("git", "cmake", "ninja", "make"):
        (tools / name).write_text(f"#!/bin/sh\necho {name} >> {folder}/trace\nexit 1\n", encoding="ascii")
        (tools / name).chmod(0o755)
    everything = {**os.environ, **environment, "PATH": str(tools), "HOME": str(folder)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=everything, capture_output=True, text=True, check=False, timeout=30)


ASK = """
import json, os
from ringfence.crypto import kem
from ringfence.crypto.providers.liboqs_probe import installed
share = kem("BIKE-L1")
found = installed()
print(json.dumps([type(share).__name__, found.absence, os.environ.get("PYOQS_VERSION", "unset")]))
"""


@pytest.mark.parametrize("what", ["absent", "version alone"])
def test_a_process_goes_on_with_its_own_bike(what: str, tmp_path: Path) -> None:
    source = None if what == "absent" else VERSION % "0.16.0"
    environment = installed(tmp_path / "at", source) if source else {"OQS_INSTALL_PATH": str(tmp_path / "at")}
    done = child(ASK, environment, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    kind, why, setting = json.loads(done.stdout)  # nothing else was printed
    assert (kind, setting) == ("OwnBike", "unset")
    assert ("no liboqs is installed" in why) if what == "absent" else ("does not load" in why)
    assert not (tmp_path / "trace").exists()


def test_a_library_that_loads_is_used_in_silence(tmp_path: Path) -> None:
    code = ASK + (
        "from ringfence.crypto.providers.liboqs import Liboqs\n"
        "print(json.dumps([Liboqs().absence(name) for name in ('BIKE-L1', 'SLH-DSA-SHA2-128f')]))\n"
    )
    done = child(code, {**installed(tmp_path / "at", WHOLE), "PYOQS_VERSION": "latest"}, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert first == ["OwnBike", "", "latest"]
    assert second == [
        "the installed liboqs was built without BIKE-L1",
        "the installed liboqs was built without SLH_DSA_PURE_SHA2_128F",
    ]
    assert not (tmp_path / "trace").exists()


def test_without_the_guards_the_binding_would_run_its_installer(tmp_path: Path) -> None:
    """What the probe is there for; if this ever fails, liboqs-python has changed and the probe may be simplified."""
    done = child(
        "import time; time.sleep = lambda _: None; import oqs", {"OQS_INSTALL_PATH": str(tmp_path / "at")}, tmp_path
    )
    assert done.returncode != 0
    assert (tmp_path / "trace").read_text(encoding="ascii") == "git\n"
