"""An agent around a fake sandbox, for the tests of what it records, signs and answers."""

from __future__ import annotations

import asyncio
import errno
import itertools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc

from ringfence import audit
from ringfence.agent.admission import Presented
from ringfence.agent.api import failures, grants, jobs
from ringfence.agent.api._pb import agent_pb2 as pb
from ringfence.agent.host import HostAgent
from ringfence.agent.sandbox.port import GuestJob, Outcome, Usage
from ringfence.agent.service import AgentService
from ringfence.agent.spent import SpentIds
from ringfence.attestation import NoTpmAttester
from ringfence.audit.files import OsFiles
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Established, Initiator
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
HOST, GATEWAY, CLIENT = (KeyPair(*COMPOSITE.generate()) for _ in range(3))
LIMITS = jobs.JobLimits(2**20, 2**20, 1000, 4096, 0, 32)
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
            active=tuple,
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
            level=jobs.Level.QUANTUM,
            result=jobs.ResultType.JSON,
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
