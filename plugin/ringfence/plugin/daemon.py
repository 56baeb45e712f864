"""The gateway's process: wires the pipelines to their parts, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Final, NoReturn

import uvicorn

from ringfence import attestation, audit
from ringfence.agent.api.remote import RemoteAgent
from ringfence.crypto import COMPOSITE, Signer
from ringfence.errors import BAD_ARGUMENT
from ringfence.plugin import opening, requests
from ringfence.plugin.app import GatewayApp
from ringfence.plugin.config import GatewayConfig, HostSettings
from ringfence.plugin.errors import GateError
from ringfence.plugin.gate import Gate
from ringfence.plugin.link import HostLink, Verifier
from ringfence.plugin.listen import UNIX, open_listener
from ringfence.plugin.replay import ReplayCache
from ringfence.plugin.risk import RiskLedger
from ringfence.plugin.sessions import SessionStore
from ringfence.plugin.stages import Ceiling
from ringfence.policies import Decider
from ringfence.policies.bundle import Bundle
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import load_bundle, open_bundled
from ringfence.trust import load_private
from ringfence.trust.watch import TrustFile

AUDIT_FOLDER: Final = Path("audit", "gateway")
GRACE_S: Final = 5


def run(config: GatewayConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    signer, verifier = load_private(config.key), load_private(config.verifier_key)
    trust = TrustFile(config.trust)
    decider = CedarDecider(_bundle(config.policies))
    with _unwound_by_sigterm(), _listener(config.listen) as listener, _audit_log(config, signer, decider) as log:
        asyncio.run(_serve(config, listener, signer, verifier, trust, decider, log))


@contextmanager
def _unwound_by_sigterm() -> Iterator[None]:
    # The server raises the signal again once it has stopped; the default would end the process there, with the audit
    # log open and the socket left behind.
    def unwind(_number: int, _frame: object) -> NoReturn:
        raise SystemExit(0)

    before = signal.signal(signal.SIGTERM, unwind)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _listener(address: str) -> Iterator[socket.socket]:
    with open_listener(address) as listener:
        try:
            yield listener
        finally:
            if address.startswith(UNIX):
                Path(address.removeprefix(UNIX)).unlink(missing_ok=True)


async def _serve(
    config: GatewayConfig,
    listener: socket.socket,
    signer: Signer,
    verifier: Signer,
    trust: TrustFile,
    decider: Decider,
    log: audit.AuditLog,
) -> None:
    limits = config.limits
    remote = RemoteAgent(config.host.socket)
    link = HostLink(
        remote,
        agent=config.host.agent,
        signer=signer,
        trust=trust,
        verifier=Verifier(verifier, _references(config.host), limits.attestation_lifetime_s),
        log=log,
        clock_ns=time.time_ns,
        random=secrets.token_bytes,
    )
    app = GatewayApp(
        _gate(config, signer, trust, decider, log, link),
        body_bytes=limits.body_bytes,
        body_timeout_s=limits.body_timeout_s,
        concurrent=limits.concurrent_requests,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            ws="none",
        )
    )
    fresh = asyncio.create_task(link.keep_fresh())
    print(f"ringfence gateway: ready on {config.listen}", file=sys.stderr, flush=True)
    try:
        await server.serve(sockets=[listener])
    finally:
        fresh.cancel()
        with suppress(asyncio.CancelledError):
            await fresh
        await remote.close()


def _gate(
    config: GatewayConfig, signer: Signer, trust: TrustFile, decider: Decider, log: audit.AuditLog, link: HostLink
) -> Gate:
    limits = config.limits
    risk, ceiling = RiskLedger(), Ceiling(limits.risk_ceiling)
    sessions = SessionStore(limits.sessions)
    return Gate(
        signer=signer,
        opening=opening.OpeningPipeline(
            signer=signer,
            trust=trust,
            decider=decider,
            replay=ReplayCache(lifetime_s=opening.REPLAY_LIFETIME_S, capacity=limits.remembered_nonces),
            risk=risk,
            ceiling=ceiling,
            lifetime_s=limits.session_lifetime_s,
            ticks_ns=time.monotonic_ns,
            random=secrets.token_bytes,
        ),
        requests=requests.RequestPipeline(
            gateway=signer.key_id,
            trust=trust,
            sessions=sessions,
            decider=decider,
            replay=ReplayCache(lifetime_s=requests.REPLAY_LIFETIME_S, capacity=limits.remembered_nonces),
            risk=risk,
            ceiling=ceiling,
            ticks_ns=time.monotonic_ns,
            random=secrets.token_bytes,
        ),
        sessions=sessions,
        link=link,
        log=log,
        bundle_digest=decider.bundle_digest,
        job_timeout_s=limits.job_timeout_s,
        clock_ns=time.time_ns,
        ticks_ns=time.monotonic_ns,
    )


def _bundle(named: str) -> Bundle:
    return load_bundle(Path(named)) if "/" in named else open_bundled(named)


def _references(host: HostSettings) -> attestation.ReferenceValues:
    try:
        pcrs = {int(index): frozenset(values) for index, values in host.pcrs.items()}
    except ValueError:
        raise GateError(
            BAD_ARGUMENT, "A PCR is named by its number, 0 to 23.", field="host.pcrs", hint="Correct the key."
        ) from None
    return attestation.ReferenceValues({host.agent: frozenset(host.attestation_keys)}, pcrs)


@contextmanager
def _audit_log(config: GatewayConfig, signer: Signer, decider: Decider) -> Iterator[audit.AuditLog]:
    folder = config.state / AUDIT_FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with audit.AuditLog.open(folder, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        version = metadata.version("ringfence")
        log.append(audit.Operator(event="started", component="gateway", version=version))
        log.wait(log.append(audit.Operator(event="policies", component="gateway", digest=decider.bundle_digest)))
        try:
            yield log
        finally:
            log.append(audit.Operator(event="stopped", component="gateway", version=version))
