"""`ringfence doctor`: each check against hosts that have, lack or break something, and the whole on this host."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from ringfence.agent import diagnosis
from ringfence.agent.confine.protections import PROTECTIONS
from ringfence.agent.diagnosis import Finding, Library, Status
from ringfence.agent.sandbox.lockdown import HostFeatures
from ringfence.cli import main

ALL = HostFeatures(landlock_abi=7, seccomp=True, userns=True, memfd_secret=True, pidfd=True, cgroup2_delegated=True)
NONE = HostFeatures(
    landlock_abi=0, seccomp=False, userns=False, memfd_secret=False, pidfd=False, cgroup2_delegated=False
)


def finding(status: Status, required: bool) -> Finding:
    return Finding("area", "name", status, required, "found", "meaning", "mend")


@pytest.mark.parametrize(
    ("status", "required", "well"),
    [
        (Status.OK, True, True),
        (Status.LACKING, True, False),
        (Status.BROKEN, True, False),
        (Status.LACKING, False, True),
        (Status.BROKEN, False, True),
    ],
)
def test_only_what_the_main_job_needs_decides(status: Status, required: bool, well: bool) -> None:
    assert diagnosis.healthy([finding(Status.OK, True), finding(status, required)]) is well


@pytest.mark.parametrize(("version", "status"), [((3, 11, 0), Status.OK), ((3, 10, 14), Status.LACKING)])
def test_an_old_python_is_lacking(version: tuple[int, int, int], status: Status) -> None:
    assert diagnosis.interpreter(version).status is status


def test_a_library_is_named_with_its_version() -> None:
    found = diagnosis.library(Library("msgspec", "msgspec", "", True, "meaning"))
    assert (found.status, found.mend) == (Status.OK, "")
    assert found.found[0].isdigit()


def test_a_library_that_is_not_installed_names_its_extra() -> None:
    found = diagnosis.library(Library("no_such", "ringfence-no-such", "amd", False, "meaning"))
    assert (found.status, found.mend) == (Status.LACKING, "In the folder of the clone, run: pip install '.[amd]'")


def test_a_library_that_is_installed_and_does_not_load_is_broken() -> None:
    found = diagnosis.library(Library("msgspec.no_such_module", "msgspec", "", True, "meaning"))
    assert found.status is Status.BROKEN
    assert "does not load" in found.found


def test_every_optional_dependency_of_the_command_is_checked() -> None:
    from ringfence.frame import OPTIONAL

    checked = {wanted.module.split(".")[0]: wanted for wanted in diagnosis.LIBRARIES if wanted.extra}
    assert set(checked) == set(OPTIONAL)
    for module, wanted in checked.items():
        assert wanted.extra in OPTIONAL[module]


def test_post_quantum_keys_work_here() -> None:
    assert diagnosis.post_quantum().status is Status.OK


def test_a_host_with_every_protection_and_one_with_none() -> None:
    names = {protection.name for protection in PROTECTIONS}
    assert all(found.status is Status.OK and not found.mend for found in diagnosis.protections(names, ALL))
    lacking = list(diagnosis.protections(set(), NONE))
    assert all(found.status is Status.LACKING and found.mend for found in lacking)
    assert [found.name for found in lacking if found.required] == ["seccomp", "no_new_privs", "pidfd", "memfd"]
    assert [found.name for found in lacking if "accept_missing" in found.meaning] == ["landlock", "namespaces"]


def test_namespaces_that_the_kernel_allows_and_a_container_does_not_are_broken() -> None:
    (found,) = (found for found in diagnosis.protections(set(), ALL) if found.name == "namespaces")
    assert (found.status, found.found) == (Status.BROKEN, "the kernel allows them, but making them fails")


def test_secret_memory() -> None:
    assert diagnosis.secret_memory(ALL).status is Status.OK
    assert diagnosis.secret_memory(NONE).status is Status.LACKING


@pytest.mark.parametrize(
    ("limit", "status"), [(-1, Status.OK), (8 << 20, Status.OK), (64 << 10, Status.OK), (0, Status.LACKING)]
)
def test_locked_memory(limit: int, status: Status) -> None:
    assert diagnosis.locked_memory(limit).status is status


def test_a_host_without_a_tpm(tmp_path: Path) -> None:
    assert diagnosis.tpm(tmp_path).status is Status.LACKING


def test_the_resource_managed_tpm_is_preferred(tmp_path: Path) -> None:
    for name in ("tpm0", "tpmrm0"):
        (tmp_path / name).touch()
    found = diagnosis.tpm(tmp_path)
    assert (found.status, found.found) == (Status.OK, str(tmp_path / "tpmrm0"))


AS_NOBODY = """
import os, sys
from pathlib import Path
from ringfence.agent import diagnosis
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
check = diagnosis.tpm if sys.argv[1] == "tpm" else lambda dev: next(diagnosis.gpu(dev, dev))
found = check(Path(sys.argv[2]))
print(found.status.value, found.mend)
"""


@pytest.mark.parametrize(
    ("kind", "node", "mend"),
    [("tpm", "tpmrm0", "usermod -aG tss USER"), ("gpu", "kfd", "usermod -aG render,video USER")],
)
def test_a_device_that_this_account_may_not_use_is_broken(kind: str, node: str, mend: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let no other user in
        dev = Path(name)
        dev.chmod(0o755)
        (dev / node).touch(mode=0o000)
        asked = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, kind, name], check=True, capture_output=True, text=True
        )
    assert asked.stdout.startswith("broken ")
    assert mend in asked.stdout


def test_swtpm_is_looked_for_on_the_path(tmp_path: Path) -> None:
    assert diagnosis.software_tpm(str(tmp_path)).status is Status.LACKING
    program = tmp_path / "swtpm"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert diagnosis.software_tpm(str(tmp_path)).found == str(program)


def topology(sys_: Path, *nodes: str) -> None:
    for number, text in enumerate(nodes):
        folder = sys_ / "class/kfd/kfd/topology/nodes" / str(number)
        folder.mkdir(parents=True)
        (folder / "properties").write_text(text)


CPU_NODE = "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0\n"
GPU_NODE = "cpu_cores_count 0\nsimd_count 304\ngfx_target_version 90402\n"


def test_a_host_without_the_gpu_driver(tmp_path: Path) -> None:
    assert [(found.name, found.status) for found in diagnosis.gpu(tmp_path, tmp_path)] == [("driver", Status.LACKING)]


def test_a_driver_that_drives_no_gpu(tmp_path: Path) -> None:
    (tmp_path / "kfd").touch()
    topology(tmp_path, CPU_NODE)
    assert [(found.name, found.status) for found in diagnosis.gpu(tmp_path, tmp_path)] == [
        ("driver", Status.OK),
        ("devices", Status.LACKING),
    ]


def test_gpus_are_named_and_hip_is_asked_for_them(tmp_path: Path) -> None:
    (tmp_path / "kfd").touch()
    topology(tmp_path, CPU_NODE, GPU_NODE, GPU_NODE)
    driver, devices, hip = diagnosis.gpu(tmp_path, tmp_path)
    assert (driver.status, devices.status) == (Status.OK, Status.OK)
    assert devices.found == "gfx942, gfx942"
    # Only a host that really has the driver can answer; everywhere else the check must not pass.
    if not Path("/dev/kfd").exists():
        assert hip.status is Status.BROKEN
        assert "pip install '.[amd]'" in hip.mend


def test_the_disk_is_measured(tmp_path: Path) -> None:
    found = diagnosis.disk(tmp_path)
    assert found.status is Status.OK
    assert "ms (worst" in found.found
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["missing", "file"])
def test_a_folder_that_cannot_be_written_is_broken(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    found = diagnosis.disk(tmp_path / name)
    assert (found.status, found.required) == (Status.BROKEN, True)


def test_the_command_says_it_all_for_programs_and_its_status_follows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status = main(["doctor", "--json", "--state", str(tmp_path)])
    document = json.loads(capfd.readouterr().out)
    assert status == (0 if document["ok"] else 1)
    assert document["ok"] == all(check["status"] == "ok" for check in document["checks"] if check["required"])
    assert {check["area"] for check in document["checks"]} == {
        "python", "libraries", "sandbox", "kernel", "permissions", "disk", "tpm", "gpu",
    }  # fmt: skip
    for check in document["checks"]:
        assert check["meaning"]
        assert bool(check["mend"]) == (check["status"] != "ok")


def test_the_command_ends_with_1_where_something_needed_is_broken(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--state", str(tmp_path / "missing")]) == 1
    printed = capfd.readouterr().out
    assert "broken   required  disk" in printed
    assert "Give --state a folder on a local disk" in printed
    assert printed.endswith("`ringfence demo` needs is missing; see the lines marked broken or lacking.\n")
