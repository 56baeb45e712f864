"""A device broker that was taken over cannot make a job more than its worker did, nor hold its answer."""

from __future__ import annotations

import runpy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
import wasmtime

from ringfence.agent import errors
from ringfence.agent.errors import SandboxError
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome
from ringfence.agent.sandbox.process import ProcessSandbox

Beside = Callable[[ProcessSandbox, GuestJob], Awaitable[Outcome | SandboxError]]

BROKERS = list(runpy.run_path(str(Path(__file__).parent / "hostile_broker.py"))["BROKERS"])


@pytest.fixture
def served(
    hostile: ProcessSandbox, limits: Limits, imported: Callable[..., str], beside: Beside
) -> Callable[..., Awaitable[Outcome | SandboxError]]:
    """How a guest ends whose broker is that one; the guest allocates once."""
    text = f"""(module {imported("amd_gpu_alloc")} (memory (export "memory") 1)
      (func (export "_start") (drop (call $amd_gpu_alloc (i64.const 8) (i32.const 0)))))"""
    module = bytes(wasmtime.wat2wasm(text))

    async def run(broker: str, *, deadline_ms: int = 20_000) -> Outcome | SandboxError:
        within = replace(limits, gpu_memory_bytes=BROKERS.index(broker), deadline_ms=deadline_ms)
        return await beside(hostile, GuestJob(module, b"", within))

    return run


async def test_what_an_honest_broker_says_is_believed(served: Callable[..., Awaitable[Outcome]]) -> None:
    usage = (await served("honest")).usage
    assert (usage.commands, usage.launches, usage.gates, usage.measurements, usage.peak_gpu_bytes) == (9, 4, 3, 2, 1)


async def test_no_pool_beyond_the_limit_is_believed(served: Callable[..., Awaitable[Outcome]]) -> None:
    usage = (await served("more memory than its pool")).usage
    assert usage.peak_gpu_bytes == BROKERS.index("more memory than its pool")
    assert usage.commands == 9


@pytest.mark.parametrize(
    "broker",
    [
        "reports nothing",
        "reports nonsense",
        "more launches than commands",
        "fewer launches than none",
        "more commands than can be counted",
        "less memory than none",
        "never ends",
        "reports for ever",
    ],
)
async def test_there_is_no_answer_without_an_account_that_can_be_true(
    broker: str, served: Callable[..., Awaitable[SandboxError]]
) -> None:
    error = await served(broker)
    assert isinstance(error, GuestError)
    assert error.code == errors.WORKER_LOST
    assert "device broker" in error.message


async def test_what_cannot_be_true_is_not_in_the_usage(served: Callable[..., Awaitable[SandboxError]]) -> None:
    error = await served("more launches than commands")
    assert isinstance(error, GuestError)
    assert (error.usage.commands, error.usage.peak_gpu_bytes) == (0, 0)


@pytest.mark.parametrize(
    "broker",
    [
        "dies",
        "dies at once",
        "out of turn",
        "an unknown status",
        "beyond its file",
        "too long",
        "too short",
        "cut short",
        "a refusal without a code",
        "a refusal that is no text",
        "a refusal of somebody else's",
    ],
)
async def test_a_worker_takes_no_answer_that_is_none(
    broker: str, served: Callable[..., Awaitable[SandboxError]]
) -> None:
    assert (await served(broker)).code == errors.BROKER_PROTOCOL


async def test_a_broker_that_never_answers_holds_nobody_beyond_the_deadline(
    served: Callable[..., Awaitable[SandboxError]],
) -> None:
    assert (await served("never answers", deadline_ms=300)).code == errors.DEADLINE
