"""A gateway as its daemon composes it, with callers that hold sessions: what the benchmark of the gate decides on."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from ringfence import attestation, audit, httpsig
from ringfence.agent.api.jobs import JobLimits, JobStatement, sign_job
from ringfence.attestation import result
from ringfence.config import load
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Initiator
from ringfence.plugin.api import JOBS_PATH, SESSION_PURPOSE
from ringfence.plugin.composition import Gatehouse, compose
from ringfence.plugin.config import GatewayConfig, Opened
from ringfence.plugin.host import Attested, plain_trust
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.past import read_past
from ringfence.plugin.policing import PolicyNews
from ringfence.plugin.sessions.port import Session
from ringfence.policies import Decider
from ringfence.policies.folder import open_bundled
from ringfence.policies.holder import BundleHolder, Engine
from ringfence.trust import KeyPair, Pin, Role, TrustList, save
from ringfence.trust.watch import TrustFile

BODY_BYTES: Final = 4096
TARGET: Final = httpsig.Target("POST", "gateway.example", JOBS_PATH)
_GROUPS: Final = ("clients", "job-submitters")
_LIMITS: Final = JobLimits(memory_bytes=1 << 20, gpu_memory_bytes=0, deadline_ms=1000, output_bytes=4096, qubits=0)


@dataclass(frozen=True, slots=True)
class Scene:
    """A gateway, its attested host, its callers with a signed job of 4 KiB each, and their sessions."""

    house: Gatehouse
    host: Attested
    log: audit.AuditLog
    gateway: KeyPair
    callers: tuple[KeyPair, ...]
    jobs: tuple[bytes, ...]
    sessions: tuple[Session, ...]
    now: int

    def request(self, number: int, *, nonce: str = "") -> Inbound:
        """A signed request in the session with this number, with a nonce of its own."""
        session = self.sessions[number % len(self.sessions)]
        body = self.jobs[number % len(self.jobs)]
        nonce = nonce or secrets.token_urlsafe(18)
        made = httpsig.sign(session.key, TARGET, body, session=session.name, nonce=nonce, now=self.now, lifetime_s=60)
        headers = [("host", TARGET.authority), ("content-type", "application/msgpack"), *made.items()]
        return Inbound(TARGET, headers, "192.0.2.1", "", body)

    def hello(self, number: int) -> Initiator:
        """A hello of a caller."""
        caller = self.callers[number % len(self.callers)]
        return Initiator.start(caller, self.gateway.public, SESSION_PURPOSE, now=self.now, random=secrets.token_bytes)


@asynccontextmanager
async def scene(folder: Path, engine: Engine, *, callers: int, sessions: int) -> AsyncIterator[Scene]:
    """The scene in `folder`, decided by the shipped policies as `engine` makes them.

    Sessions are put into the store as opening them would.
    """
    now = int(time.time())
    pairs = tuple(KeyPair(*COMPOSITE.generate()) for _ in range(callers))
    gateway, agent, verifier = (KeyPair(*COMPOSITE.generate()) for _ in range(3))
    pins = [Pin(f"caller-{number}", Role.CLIENT, pair.public, now, _GROUPS) for number, pair in enumerate(pairs)]
    save(folder / "trust.toml", TrustList((*pins, Pin("agent", Role.AGENT, agent.public, now))))
    config = _config(folder, agent.key_id, max(sessions, 1000))
    news = PolicyNews()
    decider = BundleHolder(partial(open_bundled, "default"), engine, lambda: None, news.shadow)
    opened = Opened(gateway, verifier, TrustFile(folder / "trust.toml", patience_s=0.2), decider, news)
    host = _attested(agent, verifier, now)
    with audit.AuditLog.open(
        folder / "audit" / "gateway", gateway, clock_ns=time.time_ns, verify=COMPOSITE.verify
    ) as log:
        house = compose(config, opened, log, read_past(folder / "none", now=now), lambda _sentence: None)
        held = tuple(_session(pairs[number % callers], host, decider, now) for number in range(sessions))
        for session in held:
            house.sessions.add(session, now=now)
        jobs = tuple(_job(pair, agent.key_id, now) for pair in pairs)
        try:
            yield Scene(house, host, log, gateway, pairs, jobs, held, now)
        finally:
            await house.link.remote.close()


def _config(folder: Path, agent: str, sessions: int) -> GatewayConfig:
    file = folder / "gateway.toml"
    file.write_text(
        'component = "gateway"\nlisten = "unix:gateway.sock"\nstate = "."\nkey = "gateway.key"\n'
        'verifier_key = "verifier.key"\ntrust = "trust.toml"\n'
        f'[host]\nsocket = "agent.sock"\nagent = "{agent}"\n'
        f"[limits]\nsessions = {sessions}\nrisk_ceiling = 101\n"
        # Every caller sends far more here than people do in a minute.
        "[threats]\nprincipal_per_s = 0.0\nsource_per_s = 0.0\n[risk]\nrate_free = 1000000\nrate_limit = 10000000\n"
    )
    return load(file, GatewayConfig)


def _attested(agent: KeyPair, verifier: KeyPair, now: int) -> Attested:
    made = attestation.AttestationResult(
        issuer=verifier.key_id,
        subject=agent.key_id,
        agent_key=agent.public,
        status=attestation.Status.AFFIRMING,
        score=attestation.Status.AFFIRMING.score,
        reasons=(),
        issued_at=now,
        expires_at=now + 600,
        evidence_digest="e" * 64,
    )
    token = result.issue(made, verifier)
    trust = plain_trust(made, now)
    key, proof = secrets.token_bytes(32), secrets.token_bytes(32)
    return Attested(agent.key_id, made, token, result.digest(token), "channel", trust, key, proof)


def _session(caller: KeyPair, host: Attested, decider: Decider, now: int) -> Session:
    return Session(
        name=secrets.token_hex(16),
        principal=caller.key_id,
        groups=_GROUPS,
        host=host.agent,
        status=host.trust.status.value,
        attestation_digest=host.digest,
        bundle_digest=decider.bundle_digest,
        opened_at=now,
        expires_at=now + 600,
        idle_s=600,
        key=secrets.token_bytes(32),
        factors=(("session-mac", 0),),
    )


def _job(caller: KeyPair, host: str, now: int) -> bytes:
    """A signed job whose submission has `BODY_BYTES` bytes."""
    statement = JobStatement(
        host=host,
        principal=caller.key_id,
        nonce=secrets.token_bytes(16),
        issued_at=now,
        expires_at=now + 60,
        module_digest=digest(b""),
        input_digest=digest(b""),
        limits=_LIMITS,
    )
    bare = sign_job(caller, statement, b"", bytes(256))
    return msgspec.msgpack.encode(msgspec.msgpack.decode(bare) | {"input": bytes(256 + BODY_BYTES - len(bare))})
