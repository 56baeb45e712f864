"""A worker whose runtime is broken can still do nothing: native code stands in for an escaped guest."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable

import pytest

from ringfence.agent.errors import LOCKDOWN_FAILED, SYSCALL_DENIED, WORKER_LOST, SandboxError
from ringfence.agent.sandbox.lockdown import HostFeatures, Lockdown, probe
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits
from ringfence.agent.sandbox.process import ProcessSandbox

Command = Callable[[str, str], tuple[str, ...]]

ALWAYS_DENIED = [
    "open",
    "create",
    "unlink",
    "socket",
    "fork",
    "clone3",
    "execve",
    "kill the agent",
    "tgkill the agent",
    "ptrace",
    "read the agent's memory",
    "io_uring",
    "memfd",
]
# System calls that a compiler needs, with arguments that it does not.
DENIED_BY_ARGUMENT = [
    "prctl",
    "outlive the agent",
    "raise a limit",
    "the agent's limits",
    "shared memory",
    "a stack of its own",
    "a flag in the upper half",
]
DENIED_WHILE_RUNNING = ["executable mmap", "executable mprotect", "no limit of memory"]


async def _act(command: tuple[str, ...], broker: tuple[str, ...], limits: Limits) -> bytes:
    outcome = await ProcessSandbox(worker=command, broker=broker).run(GuestJob(b"", b"", limits))
    return outcome.output


async def test_a_harmless_worker_survives(hostile: Command, idle_broker: tuple[str, ...], limits: Limits) -> None:
    assert await _act(hostile("run", "nothing"), idle_broker, limits) == b"survived"


@pytest.mark.parametrize("action", ALWAYS_DENIED + DENIED_BY_ARGUMENT + DENIED_WHILE_RUNNING)
async def test_a_running_worker_dies_of_it(
    action: str, hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    with pytest.raises(GuestError) as caught:
        await _act(hostile("run", action), idle_broker, limits)
    assert caught.value.code == SYSCALL_DENIED


@pytest.mark.parametrize("action", ["open", "socket", "fork", "execve", "kill the agent", *DENIED_BY_ARGUMENT])
async def test_a_compiling_worker_dies_of_it(
    action: str, hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    with pytest.raises(GuestError) as caught:
        await _act(hostile("compile", action), idle_broker, limits)
    assert caught.value.code == SYSCALL_DENIED


async def test_the_compiler_may_make_code(hostile: Command, idle_broker: tuple[str, ...], limits: Limits) -> None:
    assert await _act(hostile("compile", "executable mmap"), idle_broker, limits) == b"survived"


async def test_the_kernel_refuses_memory_beyond_the_limit(
    hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    assert await _act(hostile("run", "a gibibyte"), idle_broker, limits) == b"MemoryError"


@pytest.mark.parametrize("stage", ["compile", "run"])
async def test_the_kernel_refuses_an_address_space_beyond_the_limit(
    stage: str, hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    """Memory that is only read costs no page, but page tables: 2 GiB of them for a tebibyte."""
    assert await _act(hostile(stage, "page tables"), idle_broker, limits) == b"OSError"


@pytest.mark.parametrize(
    ("action", "refusal"), [("no limit of memory", b"ValueError"), ("all that its ceiling allows", b"OSError")]
)
async def test_a_compiling_worker_cannot_lift_its_own_limit(
    action: str, refusal: bytes, hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    assert await _act(hostile("compile", action), idle_broker, limits) == refusal


async def test_an_abort_of_the_runtime_is_not_taken_for_an_attack(
    hostile: Command, idle_broker: tuple[str, ...], limits: Limits
) -> None:
    with pytest.raises(GuestError) as caught:
        await _act(hostile("run", "abort"), idle_broker, limits)
    assert caught.value.code == WORKER_LOST


async def test_a_worker_inherits_nothing_of_the_agent(
    hostile: Command, idle_broker: tuple[str, ...], limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGFENCE_SECRET", "only-the-agent-knows")
    with tempfile.TemporaryFile() as open_in_agent:
        os.set_inheritable(open_in_agent.fileno(), True)
        seen = (await _act(hostile("run", "look around"), idle_broker, limits)).decode()
        descriptors = seen[1 : seen.index("]")].split(", ")
        # The standard three, and the job, the result and the ring.
        assert len(descriptors) == 6
        assert str(open_in_agent.fileno()) not in descriptors
    assert "only-the-agent-knows" not in seen
    assert seen.endswith(" /")


def test_a_worker_whose_agent_has_gone_does_not_start() -> None:
    pid = os.fork()
    if pid == 0:
        try:
            Lockdown(parent_pid=1).before_compile(deadline_ms=1000, memory_bytes=1, output_bytes=1)
        except SandboxError as error:
            os._exit(17 if error.code == LOCKDOWN_FAILED else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17


def test_probe_says_what_the_host_has() -> None:
    features = probe()
    assert isinstance(features, HostFeatures)
    assert features.seccomp
    assert features.pidfd
    assert features.landlock_abi >= 0
