"""The agent's process: opens what its configuration names, serves until it is told to stop, and cleans up."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from typing import Final

import grpc.aio

from ringfence.agent.api._pb.agent_pb2_grpc import add_AgentServicer_to_server
from ringfence.agent.api.jobs import JobLimits
from ringfence.agent.api.remote import MESSAGE_LIMIT
from ringfence.agent.attesting import attester
from ringfence.agent.config import AgentConfig
from ringfence.agent.host import HostAgent, recover_spent
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.service import AgentService
from ringfence.agent.socket import owned_socket
from ringfence.attestation.anchoring import configured_anchor
from ringfence.crypto.handshake import Shares
from ringfence.keystore.daemon_log import open_daemon_log

GRACE_S: Final = 5.0


def run(config: AgentConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    opened = config.open()
    with (
        owned_socket(config.socket),
        open_daemon_log(
            config.state,
            "agent",
            opened.signer,
            config.audit,
            clock_ns=time.time_ns,
            anchor=configured_anchor(config.audit.anchor.path, opened.signer.key_id),
        ) as log,
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
