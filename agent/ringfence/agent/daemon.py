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

from ringfence import attestation, audit
from ringfence.agent.api._pb.agent_pb2_grpc import add_AgentServicer_to_server
from ringfence.agent.api.jobs import JobLimits
from ringfence.agent.api.remote import MESSAGE_LIMIT
from ringfence.agent.config import AgentConfig, AttestationSettings
from ringfence.agent.host import HostAgent, recover_spent
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.service import AgentService
from ringfence.agent.socket import owned_socket
from ringfence.crypto import COMPOSITE
from ringfence.trust import load_private
from ringfence.trust.watch import TrustFile

GRACE_S: Final = 5.0
AUDIT_FOLDER: Final = Path("audit", "agent")


def run(config: AgentConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    signer = load_private(config.key)
    trust = TrustFile(config.trust)
    with (
        owned_socket(config.socket),
        _audit_log(config, signer) as log,
    ):
        limits = config.limits
        agent = HostAgent(
            signer=signer,
            trust=trust,
            attester=_attester(config.attestation),
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


def _attester(settings: AttestationSettings) -> attestation.Attester:
    if settings.tcti == "none":
        return attestation.NoTpmAttester("its configuration says that it has no TPM")
    tcti = settings.tcti
    if tcti == "auto":
        found = attestation.discover_tcti(os.environ, os.path.exists)
        if found is None:
            return attestation.NoTpmAttester("it has no TPM")
        tcti = found
    return attestation.TpmAttester(tcti, settings.deadline_s)
