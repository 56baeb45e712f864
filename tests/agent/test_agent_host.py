"""The agent around a fake sandbox: what it records, signs and answers, whatever guest, clock and caller do."""

from __future__ import annotations

import asyncio
import errno
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from ringfence import audit
from ringfence.agent.admission import Presented
from ringfence.agent.api import failures, grants, jobs
from ringfence.agent.api._pb import agent_pb2 as pb
from ringfence.agent.api.errors import GrantError
from ringfence.agent.errors import GUEST_TRAP
from ringfence.agent.host import HostAgent
from ringfence.agent.sandbox.port import GuestError, GuestJob, Outcome, Usage
from ringfence.agent.service import AgentService
from ringfence.agent.spent import SpentIds
from ringfence.attestation import NoTpmAttester
from ringfence.audit.files import OsFiles
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Established, Initiator
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
HOST, GATEWAY, CLIENT = (KeyPair(*COMPOSITE.generate()) for _ in range(3))
LIMITS = jobs.JobLimits(2**20, 2**20, 1000, 4096, 0)
TRUST = TrustList((Pin("gateway", Role.GATEWAY, GATEWAY.public, NOW), Pin("client", Role.CLIENT, CLIENT.public, NOW)))
USAGE = Usage(wall_ms=1.0, cpu_ms=1.0, peak_memory_bytes=1)
Behaviour = Callable[[GuestJob], Awaitable[Outcome]]


async def finishes(job: GuestJob) -> Outcome:
    return Outcome(job.input.upper(), USAGE)


class ShortDisk(OsFiles):
    """Real files of a disk that is full for one write of records, where a test says so, and then has room again."""

    def __init__(self) -> None:
        self.full = False
        self._records: set[int] = set()

    def open(self, path: Path) -> int:
        descriptor = super().open(path)
        if path.name.startswith("records"):
            self._records.add(descriptor)
        return descriptor

    def append(self, descriptor: int, data: bytes) -> None:
        if self.full and descriptor in self._records:
            self.full = False
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(descriptor, data)


class FakeSandbox:
    """Does with a job what the test says."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = finishes

    async def run(self, job: GuestJob) -> Outcome:
        return await self.behaviour(job)


class Bench:
    """An agent, a channel to it, and the clock both see."""

    def __init__(self, log: audit.AuditLog, disk: ShortDisk) -> None:
        self.now = NOW
        self.log = log
        self.disk = disk
        self.sandbox = FakeSandbox()
        self.agent = HostAgent(
            signer=HOST,
            trust=lambda: TRUST,
            attester=NoTpmAttester("a test"),
            sandbox=self.sandbox,
            log=log,
            spent=SpentIds(),
            ceiling=LIMITS,
            jobs=1,
            clock_ns=lambda: self.now * 10**9,
            ticks_ns=itertools.count(0, 1000).__next__,
            random=secrets.token_bytes,
        )
        self.service = AgentService(self.agent, submissions=2, body_bytes=10_000, arrival_s=0.2)
        initiator = Initiator.start(GATEWAY, HOST.public, grants.CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes)
        self.channel: Established = initiator.finish(self.agent.channels.open(initiator.message, now=NOW))

    def body(self) -> bytes:
        statement = jobs.JobStatement(
            host=HOST.key_id,
            principal=CLIENT.key_id,
            nonce=secrets.token_bytes(16),
            issued_at=NOW,
            expires_at=NOW + 60,
            module_digest=digest(b"module"),
            input_digest=digest(b"input"),
            limits=LIMITS,
        )
        return jobs.sign_job(CLIENT, statement, b"module", b"input")

    def presented(self) -> Presented:
        body = self.body()
        grant = grants.Grant(
            grant_id=secrets.token_hex(16),
            audience=HOST.key_id,
            gateway=GATEWAY.key_id,
            session="session",
            principal=CLIENT.key_id,
            body_digest=digest(body),
            limits=LIMITS,
            bundle_digest="",
            attestation_digest="",
            issued_at=NOW,
            expires_at=NOW + 60,
        )
        encoded, tag = grants.seal_grant(self.channel.key(grants.GRANT_KEY), grant)
        return Presented(encoded, tag, body)

    def jobs(self) -> list[audit.Job]:
        return [entry.record for entry in self.log.records() if isinstance(entry.record, audit.Job)]

    def events(self) -> list[tuple[str, str]]:
        return [(record.event, record.code) for record in self.jobs()]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    disk = ShortDisk()
    with audit.AuditLog.open(tmp_path, HOST, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify, files=disk) as log:
        yield Bench(log, disk)


async def test_a_job_that_finishes_is_recorded_and_signed(bench: Bench) -> None:
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert (done.output, done.failure) == (b"INPUT", None)
    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert (receipt.code, receipt.result_digest) == ("", digest(b"INPUT"))
    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_a_guest_that_fails_has_a_receipt_too(bench: Bench) -> None:
    async def traps(_: GuestJob) -> Outcome:
        raise GuestError(GUEST_TRAP, "It trapped.", USAGE)

    bench.sandbox.behaviour = traps

    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is not None
    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert (receipt.code, done.failure.code.name) == ("sandbox.trap", "sandbox.trap")
    assert bench.events() == [("admitted", ""), ("finished", "sandbox.trap")]


async def test_a_clock_that_goes_back_costs_no_answer(bench: Bench) -> None:
    async def turns_back(job: GuestJob) -> Outcome:
        bench.now -= 3600
        return await finishes(job)

    bench.sandbox.behaviour = turns_back

    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is None
    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_a_cancelled_job_is_recorded_as_killed_and_frees_its_place(bench: Bench) -> None:
    started = asyncio.Event()

    async def hangs(_: GuestJob) -> Outcome:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench.sandbox.behaviour = hangs
    running = asyncio.create_task(bench.agent.submit(bench.channel.name, bench.presented()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    bench.sandbox.behaviour = finishes
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is None
    assert ("killed", "sandbox.cancelled") in bench.events()


async def test_a_job_whose_end_cannot_be_recorded_is_no_refusal(bench: Bench) -> None:
    async def fills_the_disk(job: GuestJob) -> Outcome:
        bench.disk.full = True
        return await finishes(job)

    bench.sandbox.behaviour = fills_the_disk
    with pytest.raises(audit.AuditError, match=r"audit\.unavailable"):
        await bench.agent.submit(bench.channel.name, bench.presented())
    bench.sandbox.behaviour = finishes
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [("admitted", ""), ("admitted", ""), ("finished", "")]


async def test_a_job_whose_admission_cannot_be_recorded_does_not_run_and_keeps_no_place(bench: Bench) -> None:
    async def must_not_run(_: GuestJob) -> Outcome:
        raise AssertionError

    bench.sandbox.behaviour = must_not_run
    bench.disk.full = True
    with pytest.raises(audit.AuditError, match=r"audit\.unavailable"):
        await bench.agent.submit(bench.channel.name, bench.presented())
    bench.sandbox.behaviour = finishes
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_a_busy_host_refuses_on_record_and_spends_no_grant(bench: Bench) -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def waits(job: GuestJob) -> Outcome:
        started.set()
        await proceed.wait()
        return await finishes(job)

    bench.sandbox.behaviour = waits
    running = asyncio.create_task(bench.agent.submit(bench.channel.name, bench.presented()))
    await started.wait()
    second = bench.presented()
    with pytest.raises(GrantError, match=r"agent\.busy"):
        await bench.agent.submit(bench.channel.name, second)
    proceed.set()
    await running
    await bench.agent.submit(bench.channel.name, second)

    assert bench.events() == [
        *(("admitted", ""), ("refused", "agent.busy"), ("finished", "")),
        *(("admitted", ""), ("finished", "")),
    ]


async def test_a_submission_is_refused_on_record_once_wherever_it_fails(bench: Bench) -> None:
    unread = bench.presented()
    forged = Presented(unread.grant, bytes(32), unread.body)
    assert await code_of(bench, chunks(bench, forged)) == "grant.forged"
    assert await code_of(bench, chunks(bench, bench.presented(), cut=1)) == "grant.body_mismatch"

    assert bench.events() == [("refused", "grant.forged"), ("refused", "grant.body_mismatch")]
    assert len({job.job_id for job in bench.jobs()}) == 2


async def test_every_record_of_an_admitted_job_holds_its_limits_and_a_refusal_none(bench: Bench) -> None:
    async def hangs(_: GuestJob) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    presented = bench.presented()
    await bench.agent.submit(bench.channel.name, presented)
    with pytest.raises(GrantError):
        await bench.agent.submit(bench.channel.name, presented)
    bench.sandbox.behaviour = hangs
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.agent.submit(bench.channel.name, bench.presented()), 0.1)
    bench.sandbox.behaviour = finishes  # whose record is durable, and so is the one before it
    await bench.agent.submit(bench.channel.name, bench.presented())

    limits = audit.JobLimits(memory_bytes=2**20, gpu_memory_bytes=2**20, deadline_ms=1000, output_bytes=4096, qubits=0)
    assert [(job.event, job.limits) for job in bench.jobs()] == [
        *(("admitted", limits), ("finished", limits), ("refused", None)),
        *(("admitted", limits), ("killed", limits), ("admitted", limits), ("finished", limits)),
    ]


class Context:
    """As much of a gRPC context as a refusal needs."""

    def __init__(self) -> None:
        self.refused = ""

    async def abort(self, _status: grpc.StatusCode, _details: str, trailing_metadata: Any) -> None:
        error = failures.decode(trailing_metadata)
        assert error is not None
        self.refused = error.code.name
        raise grpc.aio.AbortError


async def code_of(bench: Bench, chunks: AsyncIterator[pb.SubmitChunk]) -> str:
    context = Context()
    try:
        await bench.service.Submit(chunks, context)
    except grpc.aio.AbortError:
        return context.refused
    return ""


async def chunks(bench: Bench, presented: Presented, *, cut: int = 0, then_hang: bool = False) -> Any:
    grant = pb.Grant(channel=bench.channel.name, grant=presented.grant, tag=presented.tag)
    yield pb.SubmitChunk(grant=grant)
    yield pb.SubmitChunk(body=presented.body[: len(presented.body) - cut])
    if then_hang:
        await asyncio.Event().wait()


async def test_a_whole_submission_runs(bench: Bench) -> None:
    assert await code_of(bench, chunks(bench, bench.presented())) == ""


async def test_a_submission_cut_short(bench: Bench) -> None:
    assert await code_of(bench, chunks(bench, bench.presented(), cut=1)) == "grant.body_mismatch"


async def test_a_submission_that_never_ends_does_not_stay(bench: Bench) -> None:
    late = [code_of(bench, chunks(bench, bench.presented(), then_hang=True)) for _ in range(3)]

    assert sorted(await asyncio.gather(*late)) == ["agent.busy", "job.body_late", "job.body_late"]
    assert await code_of(bench, chunks(bench, bench.presented())) == ""


async def test_nothing_is_read_for_a_grant_that_is_not_the_gateway_s(bench: Bench) -> None:
    presented = bench.presented()
    forged = Presented(presented.grant, bytes(32), presented.body)

    assert await code_of(bench, chunks(bench, forged, then_hang=True)) == "grant.forged"


async def test_a_submission_that_is_too_long(bench: Bench) -> None:
    presented = bench.presented()
    long = Presented(presented.grant, presented.tag, bytes(10_001))

    assert await code_of(bench, chunks(bench, long)) == "job.body_too_large"


async def test_a_body_without_a_grant(bench: Bench) -> None:
    async def bare() -> AsyncIterator[pb.SubmitChunk]:
        yield pb.SubmitChunk(body=b"body")

    assert await code_of(bench, bare()) == "grant.malformed"
