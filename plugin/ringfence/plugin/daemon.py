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
from pathlib import Path
from typing import Final, NoReturn

import uvicorn

from ringfence import audit
from ringfence.agent.api.remote import RemoteAgent
from ringfence.attestation.anchoring import configured_anchor
from ringfence.crypto.handshake import Shares
from ringfence.keystore.daemon_log import open_daemon_log
from ringfence.plugin.builtin.address import UNIX
from ringfence.plugin.builtin.app import Capacity, GatewayApp
from ringfence.plugin.builtin.connections import HEADER_BYTES, guarded_protocol
from ringfence.plugin.builtin.listen import open_listener
from ringfence.plugin.config import GatewayConfig, Opened
from ringfence.plugin.gate import Gate
from ringfence.plugin.link import HostLink, Verifier
from ringfence.plugin.pipeline.demands import JobDemand
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.opening import OpeningPipeline, SessionLimits
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.replay import MESSAGE_LIFETIME_S, NonceLedger
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.running import Running
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.settling import Settlement
from ringfence.plugin.strangers import WINDOW_S, StrangerLimit
from ringfence.plugin.threats.calm import Calm
from ringfence.terminal import printable

GRACE_S: Final = 5


def run(config: GatewayConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    opened = config.open()
    policies = audit.Operator(event="policies", component="gateway", digest=opened.decider.bundle_digest)
    with (
        _unwound_by_sigterm(),
        _listener(config.listen) as listener,
        open_daemon_log(
            config.state,
            "gateway",
            opened.signer,
            config.audit,
            clock_ns=time.time_ns,
            further=[policies],
            anchor=configured_anchor(config.audit.anchor.path, opened.signer.key_id),
        ) as log,
    ):
        asyncio.run(_serve(config, listener, opened, log))


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
    opened: Opened,
    log: audit.AuditLog,
) -> None:
    limits = config.limits
    remote = RemoteAgent(config.host.socket)
    link = HostLink(
        remote,
        agent=config.host.agent,
        signer=opened.signer,
        trust=opened.trust,
        verifier=Verifier(opened.verifier, config.host.references(), limits.attestation_lifetime_s),
        log=log,
        tell=_tell,
        clock_ns=time.time_ns,
        random=secrets.token_bytes,
        shares=Shares.named(config.additional_shares, required=config.additional_share_required),
    )
    settlement = Settlement(
        log, StrangerLimit(limits.refusals_per_minute), ticks_ns=time.monotonic_ns, tell=lambda _record: None
    )
    gate = _gate(config, opened, settlement, link)
    capacity = Capacity(
        jobs=limits.concurrent_requests,
        openings=limits.concurrent_openings,
        body_bytes=limits.body_bytes,
        bodies_bytes=limits.bodies_bytes,
        body_timeout_s=limits.body_timeout_s,
    )
    server = uvicorn.Server(
        uvicorn.Config(
            GatewayApp(gate, capacity),
            http=guarded_protocol(limit=limits.connections, header_timeout_s=limits.header_timeout_s),
            h11_max_incomplete_event_size=HEADER_BYTES,
            lifespan="off",
            log_config=None,
            # Its warnings are about requests that do not parse: a stranger could write as many lines as it likes.
            log_level="error",
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=GRACE_S,
            ws="none",
        )
    )
    tasks = [asyncio.create_task(link.keep_fresh()), asyncio.create_task(_report_suppressed(settlement))]
    _tell(f"ready on {config.listen}")
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        with suppress(audit.AuditError):
            await settlement.report_suppressed()
        await remote.close()


def _tell(sentence: str) -> None:
    print(f"ringfence gateway: {printable(sentence)}", file=sys.stderr, flush=True)


async def _report_suppressed(settlement: Settlement) -> None:
    while True:
        await asyncio.sleep(WINDOW_S)
        # A log that fails keeps the count for the next time; meanwhile every decision is denied.
        with suppress(audit.AuditError):
            await settlement.report_suppressed()


def _gate(config: GatewayConfig, opened: Opened, settlement: Settlement, link: HostLink) -> Gate:
    limits, signer, decider = config.limits, opened.signer, opened.decider
    running = Running()
    means = Means(
        trust=opened.trust,
        sessions=MemorySessions(limits.sessions),
        decider=decider,
        replay=NonceLedger(
            lifetime_s=MESSAGE_LIFETIME_S, capacity=limits.remembered_nonces, quota=limits.remembered_nonces
        ),
        risk=Assessor(RiskSettings()),
        threats=Calm(),
        ceiling=limits.risk_ceiling,
        ticks_ns=time.monotonic_ns,
        random=secrets.token_bytes,
        running=running,
    )
    return Gate(
        signer=signer,
        opening=OpeningPipeline(
            means,
            signer=signer,
            limits=SessionLimits(limits.session_lifetime_s, limits.session_lifetime_s),
            shares=Shares.named(config.additional_shares, required=config.additional_share_required),
        ),
        requests=RequestPipeline(means, JobDemand(gateway=signer.key_id, random=secrets.token_bytes)),
        sessions=means.sessions,
        link=link,
        settlement=settlement,
        running=running,
        job_timeout_s=limits.job_timeout_s,
        clock_ns=time.time_ns,
    )
