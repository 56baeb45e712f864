"""An ASGI application over the real pipelines, a real log and an agent that accepts everything."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from ringfence import audit, httpsig
from ringfence.agent.api.jobs import JobLimits, JobStatement, sign_job
from ringfence.agent.api.remote import Finished
from ringfence.attestation import AttestationResult, Status
from ringfence.attestation.result import digest as result_digest
from ringfence.attestation.result import issue
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Initiator
from ringfence.plugin.api import JOBS_PATH, PROBLEM, SESSION_PURPOSE, Problem
from ringfence.plugin.builtin.app import Capacity, GatewayApp
from ringfence.plugin.gate import Gate
from ringfence.plugin.host import Attested, Host, plain_trust
from ringfence.plugin.identity.assembly import Identified
from ringfence.plugin.identity.errors import FACTOR_UNKNOWN, IdentityError
from ringfence.plugin.identity.port import Binding
from ringfence.plugin.link import HostLink
from ringfence.plugin.pipeline.demands import JobDemand
from ringfence.plugin.pipeline.factors import FactorPipeline
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.opening import OpeningPipeline, SessionLimits
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.running import Running
from ringfence.plugin.sessions.port import Session
from ringfence.plugin.sessions.revocations import Revocations
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.strangers import StrangerLimit
from ringfence.plugin.threats.calm import Calm
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.trust import KeyPair, Pin, Role, TrustList

CLIENT, GATEWAY, AGENT, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(4))
GROUPS = ("clients", "job-submitters")
LIMITS = JobLimits(memory_bytes=2**20, gpu_memory_bytes=0, deadline_ms=1000, output_bytes=100, qubits=0)
BODY_LIMIT = 100_000
KEY = bytes(range(32))
DECIDER = CedarDecider(open_bundled("default"))
Headers = list[tuple[bytes, bytes]]


def _attested() -> Attested:
    now = int(time.time())
    result = AttestationResult(
        issuer=VERIFIER.key_id,
        subject=AGENT.key_id,
        agent_key=AGENT.public,
        status=Status.AFFIRMING,
        score=Status.AFFIRMING.score,
        reasons=(),
        issued_at=now,
        expires_at=now + 600,
        evidence_digest="e" * 64,
    )
    token = issue(result, VERIFIER)
    return Attested(
        AGENT.key_id, result, token, result_digest(token), "channel", plain_trust(result, now), KEY, bytes(32)
    )


def _job() -> bytes:
    now = int(time.time())
    statement = JobStatement(
        host=AGENT.key_id,
        principal=CLIENT.key_id,
        nonce=secrets.token_bytes(16),
        issued_at=now,
        expires_at=now + 60,
        module_digest=digest(b"module"),
        input_digest=digest(b"input"),
        limits=LIMITS,
    )
    return sign_job(CLIENT, statement, b"module", b"input")


JOB = _job()


async def no_proof(pieces: Mapping[str, bytes], binding: Binding, now: int) -> Identified:
    raise IdentityError(
        FACTOR_UNKNOWN, f"There is no factor for {len(pieces)} pieces at {now}.", field=binding.principal
    )


class FakeAgent:
    """An agent that accepts everything: whatever reaches it was allowed."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.busy = asyncio.Event()
        self.hold: asyncio.Event | None = None

    async def submit(self, channel: str, grant: bytes, tag: bytes, body: bytes, *, timeout_s: float) -> Finished:
        assert (channel, bool(grant), len(tag), timeout_s) == ("channel", True, 32, 5.0)
        self.bodies.append(body)
        if self.hold is not None:
            self.busy.set()
            await self.hold.wait()
        return Finished(b"output", b"receipt", b"signature", None)


class FakeLink:
    """A link to a host that was just attested; `proofs` counts the sessions that were allowed."""

    def __init__(self) -> None:
        self.attested = _attested()
        self.remote = FakeAgent()
        self.proofs = 0

    async def host(self) -> Host:
        return self.attested

    async def prove_host(self, host: Attested, nonce: bytes) -> bytes:
        assert (host, len(nonce)) == (self.attested, 32)
        self.proofs += 1
        return b"proof"


@dataclass(slots=True)
class Answer:
    """What an application sent; `problem` where it refused."""

    status: int = 0
    media: str = ""
    body: bytes = b""
    messages: list[MutableMapping[str, Any]] = field(default_factory=list)

    @property
    def problem(self) -> str:
        assert self.media == PROBLEM
        problem = msgspec.json.decode(self.body, type=Problem)
        assert problem.status == self.status
        return problem.code


@dataclass(slots=True)
class World:
    """An application whose pipelines are the real ones, with one session open."""

    app: GatewayApp
    link: FakeLink
    gate: Gate
    settlement: Settlement
    log: audit.AuditLog
    job: bytes = JOB

    @property
    def allowed(self) -> int:
        """How many requests were let through to the host."""
        return len(self.link.remote.bodies) + self.link.proofs

    def signed(self, body: bytes = JOB, *, path: str = JOBS_PATH, query: str = "?", host: str = "localhost") -> Headers:
        """The header fields of a request that the open session signs."""
        target = httpsig.Target("POST", host, path, query)
        nonce, now = secrets.token_urlsafe(18), int(time.time())
        made = httpsig.sign(KEY, target, body, session="session", nonce=nonce, now=now, lifetime_s=60)
        return [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in made.items())]

    def hello(self) -> bytes:
        """A client's hello."""
        now = int(time.time())
        return Initiator.start(CLIENT, GATEWAY.public, SESSION_PURPOSE, now=now, random=secrets.token_bytes).message

    async def ask(
        self,
        path: str | None = JOBS_PATH,
        *,
        method: str = "POST",
        headers: Headers | None = None,
        chunks: tuple[bytes, ...] = (b"",),
        ends: bool = True,
        **scope: Any,
    ) -> Answer:
        """One request; the connection then stays open, or breaks off where it does not end."""
        messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
        ]
        if ends:
            messages[-1]["more_body"] = False
        else:
            messages.append({"type": "http.disconnect"})
        waiting = iter(messages)

        async def receive() -> MutableMapping[str, Any]:
            for message in waiting:
                return message
            return await asyncio.Future()

        answer = Answer()

        async def send(message: MutableMapping[str, Any]) -> None:
            answer.messages.append(message)

        wanted: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": None if path is None else path.encode(),
            "query_string": b"",
            "headers": [(b"host", b"localhost")] if headers is None else headers,
            "client": None,
        }
        async with asyncio.timeout(5):
            await self.app(wanted | scope, receive, send)
        if answer.messages:
            start, body = answer.messages
            named = dict(start["headers"])
            answer.status, answer.body = start["status"], body["body"]
            answer.media = named.get(b"content-type", b"").decode()
            assert named[b"content-length"] == str(len(answer.body)).encode()
            assert named[b"cache-control"] == b"no-store"
        return answer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with _world(tmp_path_factory.mktemp("log")) as made:
        yield made


@contextmanager
def _world(
    folder: Path, *, jobs: int = 8, bodies_bytes: int = 10 * BODY_LIMIT, refusals: int = 10**9
) -> Iterator[World]:
    now = int(time.time())
    pin = Pin("client", Role.CLIENT, CLIENT.public, now, GROUPS)
    sessions = MemorySessions(1000)
    link = FakeLink()
    session = Session(
        name="session",
        principal=CLIENT.key_id,
        groups=GROUPS,
        host=AGENT.key_id,
        status="affirming",
        attestation_digest=link.attested.digest,
        bundle_digest=DECIDER.bundle_digest,
        opened_at=now,
        expires_at=now + 600,
        idle_s=600,
        key=KEY,
        factors=(("session-mac", 0),),
    )
    sessions.add(session, now=now)
    means = Means(
        trust=lambda: TrustList((pin,)),
        sessions=sessions,
        decider=DECIDER,
        replay=NonceLedger(lifetime_s=MESSAGE_LIFETIME_S, capacity=10_000, quota=10_000),
        risk=Assessor(RiskSettings()),
        threats=Calm(),
        ceiling=101,
        ticks_ns=time.monotonic_ns,
        random=secrets.token_bytes,
    )
    with audit.AuditLog.open(folder, GATEWAY, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        settlement = Settlement(log, StrangerLimit(refusals), ticks_ns=time.monotonic_ns, tell=lambda _record: None)
        gate = Gate(
            signer=GATEWAY,
            opening=OpeningPipeline(means, signer=GATEWAY, limits=SessionLimits(600, 600)),
            requests=RequestPipeline(means, JobDemand(gateway=GATEWAY.key_id, random=secrets.token_bytes)),
            factors=FactorPipeline(means),
            prove=no_proof,
            sessions=sessions,
            revocations=Revocations(600),
            link=cast(HostLink, link),
            settlement=settlement,
            running=Running(),
            job_timeout_s=5.0,
            clock_ns=time.time_ns,
        )
        capacity = Capacity(
            jobs=jobs, openings=jobs, body_bytes=BODY_LIMIT, bodies_bytes=bodies_bytes, body_timeout_s=0.2
        )
        yield World(GatewayApp(gate, capacity), link, gate, settlement, log)


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[World]:
    """One that takes one request at a time."""
    with _world(tmp_path, jobs=1) as made:
        yield made


@pytest.fixture
def scarce(tmp_path: Path) -> Iterator[World]:
    """One with room for the bodies of one and a half jobs, and for five refusals of strangers in its log."""
    with _world(tmp_path, bodies_bytes=len(JOB) * 3 // 2, refusals=5) as made:
        yield made
