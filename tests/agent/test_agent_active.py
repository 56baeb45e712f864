"""`ringfence agent --active`: what an operator is told of the jobs that run, over the agent's own socket."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import cast

import grpc.aio
import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ringfence import audit
from ringfence.agent.api._pb.agent_pb2_grpc import add_AgentServicer_to_server
from ringfence.agent.api.errors import JobError
from ringfence.agent.api.jobs import ActiveJob, JobLimits, Level, Usage, decode_active, encode_active
from ringfence.agent.host import HostAgent
from ringfence.agent.sandbox import port
from ringfence.agent.sandbox.monitor import ActiveKernel
from ringfence.agent.service import AgentService
from ringfence.agent.spent import SpentIds
from ringfence.attestation import NoTpmAttester
from ringfence.cli import main
from ringfence.crypto import COMPOSITE
from ringfence.trust import KeyPair, TrustList

SINCE = 1_800_000_000
KERNEL = ActiveKernel(
    job_id="5f0c",
    since=SINCE,
    limits=port.Limits(2**20, 2**21, 30_000, 4096, 3, 32),
    level=Level.QUANTUM,
    usage=port.Usage(wall_ms=1500.25, cpu_ms=740.0, peak_memory_bytes=65536, checkpoints=7),
)
JOB = ActiveJob(
    job_id="5f0c",
    since=SINCE,
    level=Level.QUANTUM,
    limits=JobLimits(2**20, 2**21, 30_000, 4096, 3, 32),
    usage=Usage(1500.25, 740.0, 65536, 0, 0, 0, 0, 7),
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder short enough for sockets, with the configuration of an agent."""
    with tempfile.TemporaryDirectory(prefix="rf-active-") as made:
        path = Path(made)
        (path / "agent.toml").write_text(
            'component = "agent"\nsocket = "a.sock"\nstate = "."\nkey = "agent.key"\ntrust = "trust.toml"\n'
        )
        yield path


@pytest.fixture
async def kernels(folder: Path) -> AsyncIterator[list[ActiveKernel]]:
    """What an agent runs that serves at the folder's socket."""
    running: list[ActiveKernel] = []
    host = KeyPair(*COMPOSITE.generate())
    with audit.AuditLog.open(folder / "log", host, clock_ns=lambda: SINCE * 10**9, verify=COMPOSITE.verify) as log:
        agent = HostAgent(
            signer=host,
            trust=TrustList,
            attester=NoTpmAttester("a test"),
            sandbox=cast("port.Sandbox", None),
            log=log,
            spent=SpentIds(),
            ceiling=JOB.limits,
            jobs=1,
            clock_ns=lambda: SINCE * 10**9,
            ticks_ns=lambda: 0,
            random=bytes,
            active=lambda: tuple(running),
        )
        server = grpc.aio.server()
        add_AgentServicer_to_server(AgentService(agent, submissions=1, body_bytes=1), server)
        server.add_insecure_port(f"unix:{folder / 'a.sock'}")
        await server.start()
        yield running
        await server.stop(None)


async def asked(folder: Path, *options: str) -> int:
    return await asyncio.to_thread(main, ["agent", "--config", str(folder / "agent.toml"), "--active", *options])


async def test_the_jobs_that_run_are_listed_for_people(
    folder: Path, kernels: list[ActiveKernel], capfd: pytest.CaptureFixture[str]
) -> None:
    kernels.append(KERNEL)
    assert await asked(folder) == 0
    heading, line = capfd.readouterr().out.splitlines()
    assert heading.split() == ["JOB", "SINCE", "LEVEL", "UNITS", "CPU", "WALL", "MEMORY"]
    assert line.split() == (
        "5f0c 2027-01-15T08:00:00Z quantum 32 740 ms 1500 of 30000 ms 65536 of 1048576".split()  # noqa: SIM905
    )


async def test_the_jobs_that_run_are_listed_for_programs(
    folder: Path, kernels: list[ActiveKernel], capfd: pytest.CaptureFixture[str]
) -> None:
    assert await asked(folder, "--json") == 0
    assert json.loads(capfd.readouterr().out) == {"jobs": []}
    kernels.append(KERNEL)
    assert await asked(folder, "--json") == 0
    assert json.loads(capfd.readouterr().out) == {"jobs": [msgspec.to_builtins(JOB)]}


def test_an_agent_that_does_not_run_cannot_be_asked(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--config", str(folder / "agent.toml"), "--active"]) == 1
    said = capfd.readouterr().err
    assert said.startswith(f"ringfence: agent.unavailable: No agent answers on {folder / 'a.sock'}.")
    assert "gateway" not in said


def test_one_question_at_a_time(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["agent", "--config", str(folder / "agent.toml"), "--active", "--show-host"]) == 2
    assert "not allowed with" in capfd.readouterr().err


def test_a_list_survives_the_wire() -> None:
    assert decode_active(encode_active((JOB, JOB))) == (JOB, JOB)
    assert decode_active(encode_active(())) == ()


@given(st.binary(max_size=200))
@example(b"\x91" * 20_000)
@example(msgspec.msgpack.encode([msgspec.to_builtins(JOB) | {"level": "higher"}]))
def test_a_garbage_list_is_an_error_of_ours(encoded: bytes) -> None:
    try:
        jobs = decode_active(encoded)
    except JobError as error:
        assert error.code.name == "job.malformed"  # noqa: PT017 - garbage may also be a list
    else:
        assert jobs == ()
