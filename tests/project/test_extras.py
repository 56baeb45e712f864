"""Each extra is enough for its process, and the processes need nothing of each other's extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FOREIGN = {
    "client": ("grpc", "google.protobuf", "wasmtime", "numpy", "cedarpy", "uvicorn", "tpm2_pytss", "hip"),
    "gateway": ("wasmtime", "numpy", "tpm2_pytss", "hip", "z3"),
    "agent": ("cedarpy", "uvicorn", "uvloop", "numpy", "tpm2_pytss", "hip"),
}
_MODULES = {
    "client": (
        "ringfence.client",
        "ringfence.cli",
        "ringfence.trust.cli",
        "ringfence.audit.cli",
        "ringfence.policies.cli",
    ),
    "gateway": (
        "ringfence.plugin.daemon",
        "ringfence.plugin.cli",
        "ringfence.policies.cases",
        "ringfence.policies.replay",
    ),
    "agent": ("ringfence.agent.daemon", "ringfence.agent.sandbox.worker", "ringfence.agent.broker.serve"),
}

_PROGRAM = """
import importlib, sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if any(name == foreign or name.startswith(foreign + ".") for foreign in {foreign!r}):
            raise ModuleNotFoundError("not installed here: " + name, name=name)
        return None
sys.meta_path.insert(0, Absent())
for module in {modules!r}:
    importlib.import_module(module)
"""


@pytest.mark.parametrize("process", sorted(_MODULES))
def test_a_process_imports_without_the_others_extras(process: str) -> None:
    program = _PROGRAM.format(foreign=_FOREIGN[process], modules=_MODULES[process])

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
