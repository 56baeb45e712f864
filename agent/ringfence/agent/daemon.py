"""The agent's process: opens what its configuration names, serves until it is told to stop, and cleans up."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Final

import grpc.aio

from ringfence import audit
from ringfence.agent.api._pb.agent_pb2_grpc import add_AgentServicer_to_server
from ringfence.agent.api.jobs import JobLimits
from ringfence.agent.api.remote import MESSAGE_LIMIT
from ringfence.agent.attesting import attester
from ringfence.agent.config import AgentConfig
from ringfence.agent.host import HostAgent, recover_spent
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.service import AgentService
from ringfence.agent.socket import owned_socket
from ringfence.crypto import COMPOSITE
from ringfence.crypto.handshake import Shares

GRACE_S: Final = 5.0
AUDIT_FOLDER: Final = Path("audit", "agent")


def run(config: AgentConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    opened = config.open()
    with (
        owned_socket(config.socket),
        _audit_log(config, opened.signer) as log,
    ):
        limits = config.limits
        agent = HostAgent(
            signer=opened.signer,
            trust=opened.trust,
            attester=attester(config.attestation),
            sandbox=ProcessSandbox(),
            log=log,
            spent=recover_spent(log, now=int(time.time())),
            ceiling=JobLimits(
                limits.memory_bytes,
                limits.gpu_memory_bytes,
                limits.deadline_ms,
                limits.output_bytes,
                limits.qubits,
            ),
            jobs=limits.jobs,
            clock_ns=time.time_ns,
            ticks_ns=time.monotonic_ns,
            random=secrets.token_bytes,
            shares=Shares.named(config.additional_shares, required=config.additional_share_required),
        )
        asyncio.run(_serve(config, AgentService(agent, submissions=2 * limits.jobs, body_bytes=limits.body_bytes)))


async def _serve(config: AgentConfig, service: AgentService) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = grpc.aio.server(
        options=(
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            ("grpc.max_send_message_length", MESSAGE_LIMIT),
        ),
    )
    add_AgentServicer_to_server(service, server)
    # Between bind and chmod the umask keeps others out.
    before = os.umask(0o077)
    try:
        server.add_insecure_port(f"unix:{config.socket.absolute()}")
        await server.start()
    finally:
        os.umask(before)
    config.socket.chmod(0o600)
    print(f"ringfence agent: ready on {config.socket}", file=sys.stderr, flush=True)
    await stop.wait()
    await server.stop(GRACE_S)


@contextmanager
def _audit_log(config: AgentConfig, signer: audit.Signer) -> Iterator[audit.AuditLog]:
    folder = config.state / AUDIT_FOLDER
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with audit.AuditLog.open(folder, signer, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        version = metadata.version("ringfence")
        log.wait(log.append(audit.Operator(event="started", component="agent", version=version)))
        try:
            yield log
        finally:
            log.append(audit.Operator(event="stopped", component="agent", version=version))
