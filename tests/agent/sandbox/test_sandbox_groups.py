"""A job's cgroup: what is written into it, and, on whatever cgroup v2 this host has, what it does to processes.

A plain folder stands in for the kernel where only names and values matter. Where this account may make groups in a
cgroup v2 of the kernel, entering, killing and removing run there too, and all of it where that one has the controllers.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ringfence.agent.confine.groups import CONTROLLERS, Group, Groups, delegated, enter
from ringfence.agent.errors import SandboxError

MIB = 1024 * 1024


def writable_group() -> Path | None:
    """A new, empty group in the first cgroup v2 of this host where this account may make one."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind == "cgroup2":
            folder = Path(mount, f"ringfence-test-{secrets.token_hex(4)}")
            with suppress(OSError):
                folder.mkdir()
                return folder
    return None


@pytest.fixture(params=["a folder", "the kernel"])
def real(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A group to work in: the kernel's where there is one, else a folder."""
    folder = writable_group() if request.param == "the kernel" else None
    if folder is None:
        yield tmp_path
        return
    yield folder
    for inner in sorted(folder.rglob("*"), reverse=True):
        if inner.is_dir():
            inner.rmdir()
    folder.rmdir()


def is_kernel(folder: Path) -> bool:
    return (folder / "cgroup.events").exists()


def plain(folder: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A folder that looks like a delegated group."""
    folder.mkdir(parents=True)
    (folder / "cgroup.controllers").write_text(controllers)
    for name in ("cgroup.procs", "cgroup.subtree_control"):
        (folder / name).touch()
    return folder


def test_a_delegated_group_is_found_by_its_line(tmp_path: Path) -> None:
    folder = plain(tmp_path / "system.slice" / "ringfence.service")
    assert delegated("4:memory:/else\n0::/system.slice/ringfence.service\n", tmp_path) == folder


@pytest.mark.parametrize("membership", ["", "4:memory:/own\n", "0::/other\n"])
def test_no_group_of_version_2_is_none_that_is_delegated(tmp_path: Path, membership: str) -> None:
    plain(tmp_path / "own")
    assert delegated(membership, tmp_path) is None


@pytest.mark.parametrize("missing", CONTROLLERS)
def test_a_group_without_a_controller_does_not_do(tmp_path: Path, missing: str) -> None:
    plain(tmp_path / "own", " ".join(set(CONTROLLERS) - {missing}))
    assert delegated("0::/own", tmp_path) is None


AS_NOBODY = """
import os, sys
from pathlib import Path
from ringfence.agent.confine.groups import delegated
if os.geteuid() == 0:
    os.setgroups([])
    os.setuid(65534)
print(delegated("0::/", Path(sys.argv[1])))
"""


@pytest.mark.parametrize("shut", ["nothing", "own", "cgroup.procs", "cgroup.subtree_control"])
def test_a_group_that_this_account_may_not_write_does_not_do(shut: str) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders let no other user in
        Path(name).chmod(0o755)
        folder = plain(Path(name, "own"))
        for path in (folder, folder / "cgroup.procs", folder / "cgroup.subtree_control"):
            path.chmod(0o555 if path.name == shut else 0o777)
        asked = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(folder)], check=True, capture_output=True, text=True
        )
        folder.chmod(0o755)
    assert asked.stdout == (f"{folder}\n" if shut == "nothing" else "None\n")


def test_dividing_leaves_the_root_empty_and_hands_the_controllers_on(tmp_path: Path) -> None:
    assert Groups.divide(tmp_path) is not None
    assert (tmp_path / "agent" / "cgroup.procs").read_text() == "0"
    for folder in (tmp_path, tmp_path / "jobs"):
        assert (folder / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert Groups.divide(tmp_path) is not None


def test_what_a_killed_agent_left_is_killed_and_removed(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "empty").mkdir(parents=True)
    running = tmp_path / "jobs" / "running"
    running.mkdir()
    (running / "cgroup.procs").touch()
    assert Groups.divide(tmp_path) is not None
    assert (running / "cgroup.kill").read_text() == "1"


def test_a_root_that_cannot_be_divided_is_none(tmp_path: Path) -> None:
    (tmp_path / "agent").touch()
    assert Groups.divide(tmp_path) is None


def test_a_job_s_group_has_its_limits(tmp_path: Path) -> None:
    groups = Groups.divide(tmp_path)
    assert groups is not None
    groups.make("one", memory_bytes=64 * MIB, processes=2, units=32)
    written = {path.name: path.read_text() for path in (tmp_path / "jobs" / "one").iterdir()}
    assert written == {"cpu.weight": "3200", "memory.max": str(64 * MIB), "memory.oom.group": "1", "pids.max": "2"}


def test_a_group_that_cannot_be_made_runs_no_job(tmp_path: Path) -> None:
    groups = Groups.divide(tmp_path)
    assert groups is not None
    groups.make("one", memory_bytes=MIB, processes=1, units=64)
    with pytest.raises(SandboxError) as caught:
        groups.make("one", memory_bytes=MIB, processes=1, units=64)
    assert caught.value.code.name == "sandbox.lockdown_failed"


SLEEPER = """
import sys, time
from ringfence.agent.confine.groups import enter
enter(int(sys.argv[1]))
print("in", flush=True)
time.sleep(10)
"""


def test_a_process_enters_by_its_door_and_is_killed_with_its_group(real: Path) -> None:
    folder = real / "job"
    folder.mkdir()
    if not is_kernel(real):
        (folder / "cgroup.procs").touch()
    group = Group(folder)
    door = group.door()
    with subprocess.Popen(
        [sys.executable, "-c", SLEEPER, str(door)], stdout=subprocess.PIPE, text=True, pass_fds=(door,)
    ) as process:
        os.close(door)
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        if is_kernel(real):
            assert (folder / "cgroup.procs").read_text().split() == [str(process.pid)]
            assert not group.remove()
        else:
            assert (folder / "cgroup.procs").read_text() == "0"
        group.kill()
        if not is_kernel(real):
            assert (folder / "cgroup.kill").read_text() == "1"
            process.kill()
        assert process.wait() == -9
    if not is_kernel(real):  # the kernel's own files do not stand in its way
        for path in folder.iterdir():
            path.unlink()
    assert group.remove()
    assert not folder.exists()
    assert group.remove()


DIVIDER = """
import os, sys
from pathlib import Path
from ringfence.agent.confine.groups import Groups, enter
root = Path(sys.argv[1])
if (root / "cgroup.events").exists():
    (root / "cgroup.procs").write_text("0")
groups = Groups.divide(root)
if groups is None:
    print("refused")
    raise SystemExit
group = groups.make("job", memory_bytes=64 << 20, processes=1, units=32)
if (root / "cgroup.events").exists():
    door = group.door()
    enter(door)
    try:
        os.fork()
    except BlockingIOError:
        print("one process", flush=True)
    bytearray(b"x") * (128 << 20)
print("made")
"""


def test_the_whole_of_it_on_this_host(real: Path) -> None:
    said = subprocess.run([sys.executable, "-c", DIVIDER, str(real)], check=False, capture_output=True, text=True)
    if not is_kernel(real):
        assert said.stdout == "made\n"
    elif set(CONTROLLERS) <= set((real / "cgroup.controllers").read_text().split()):
        assert (said.returncode, said.stdout) == (-9, "one process\n")
    else:
        assert said.stdout == "refused\n"


def test_a_door_is_no_way_into_anything_else(tmp_path: Path) -> None:
    path = tmp_path / "cgroup.procs"
    path.touch()
    door = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        enter(door)
    os.close(door)
