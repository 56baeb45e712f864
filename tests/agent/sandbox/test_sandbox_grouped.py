"""A job's processes enter the cgroup made for it before they see the job; a folder stands in for the kernel."""

from __future__ import annotations

from pathlib import Path

import pytest
import wasmtime

from ringfence.agent.confine.groups import Group, Groups
from ringfence.agent.sandbox.port import GuestJob, Limits
from ringfence.agent.sandbox.process import Settings, open_sandbox

PLAIN = '(module (memory (export "memory") 1) (func (export "_start")))'
DEVICES = """(module (import "ringfence" "amd_gpu_sync" (func $sync (param i32) (result i32)))
  (memory (export "memory") 1) (func (export "_start") (drop (call $sync (i32.const 0)))))"""


class FolderGroups(Groups):
    """Groups whose folders hold what the kernel would put there."""

    def make(self, job_id: str, *, memory_bytes: int, processes: int, units: int) -> Group:
        group = super().make(job_id, memory_bytes=memory_bytes, processes=processes, units=units)
        (self._jobs / job_id / "cgroup.procs").touch()
        return group


@pytest.mark.parametrize(("guest", "entered"), [(PLAIN, b"0"), (DEVICES, b"00")])
async def test_each_process_of_a_job_enters_its_group(tmp_path: Path, guest: str, entered: bytes) -> None:
    for folder in (tmp_path, tmp_path / "agent"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.procs").touch()
    groups = FolderGroups.divide(tmp_path)
    limits = Limits(1 << 20, 1 << 20, 20_000, 64, 0, compute_units=32)
    with open_sandbox(settings=lambda _children: Settings(groups=groups)) as sandbox:
        await sandbox.run(GuestJob(bytes(wasmtime.wat2wasm(guest)), b"", limits))
    (job,) = (tmp_path / "jobs").glob("job-*")
    assert (job / "cgroup.procs").read_bytes() == entered
    (compiled,) = (tmp_path / "jobs").glob("compile-*")
    assert (compiled / "cgroup.procs").read_bytes() == b"0"
    assert (compiled / "cpu.weight").read_text() == "3200"
    assert (job / "cpu.weight").read_text() == "3200"
    assert (job / "cgroup.kill").read_text() == "1"
