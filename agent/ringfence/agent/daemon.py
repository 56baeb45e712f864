"""The agent's process: opens what its configuration names, serves until it is told to stop, and cleans up."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import grpc.aio

from ringfence.agent.api._pb.agent_pb2_grpc import add_AgentServicer_to_server
from ringfence.agent.api.remote import MESSAGE_LIMIT
from ringfence.agent.attesting import attester
from ringfence.agent.config import AgentConfig
from ringfence.agent.confine.groups import Groups, own_groups
from ringfence.agent.host import HostAgent, recover_spent
from ringfence.agent.sandbox.children import Children
from ringfence.agent.sandbox.modules import open_store
from ringfence.agent.sandbox.monitor import Event
from ringfence.agent.sandbox.process import ProcessSandbox, Settings, strict
from ringfence.agent.service import AgentService
from ringfence.agent.socket import owned_socket
from ringfence.attestation.anchoring import configured_anchor
from ringfence.crypto.handshake import Shares
from ringfence.errors import UNREADABLE_FILE, UsageError
from ringfence.keystore.daemon_log import open_daemon_log

GRACE_S: Final = 5.0
MODULES_FOLDER: Final = Path("modules")


def run(config: AgentConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    groups = own_groups()
    with ExitStack() as stack:
        # Before a key, a socket or a log is opened: every process of a job is forked from what is executed here.
        children = stack.enter_context(closing(Children()))
        opened = config.open()
        stack.enter_context(owned_socket(config.socket))
        log = stack.enter_context(
            open_daemon_log(
                config.state,
                "agent",
                opened.signer,
                config.audit,
                clock_ns=time.time_ns,
                anchor=configured_anchor(config.audit.anchor.path, opened.signer.key_id),
            )
        )
        sandbox = _sandbox(config, children, groups, lambda job_id, event: agent.alert(job_id, event))
        stack.enter_context(closing(sandbox))
        agent = HostAgent(
            signer=opened.signer,
            trust=opened.trust,
            attester=attester(config.attestation),
            sandbox=sandbox,
            log=log,
            spent=recover_spent(log, now=int(time.time())),
            ceiling=config.limits.ceiling(),
            jobs=config.limits.jobs,
            clock_ns=time.time_ns,
            ticks_ns=time.monotonic_ns,
            random=secrets.token_bytes,
            shares=Shares.named(config.additional_shares, required=config.additional_share_required),
            active=sandbox.active_kernels,
        )
        service = AgentService(agent, submissions=2 * config.limits.jobs, body_bytes=config.limits.body_bytes)
        asyncio.run(_serve(config, service))


def _sandbox(
    config: AgentConfig, children: Children, groups: Groups | None, on_event: Callable[[str, Event], None]
) -> ProcessSandbox:
    try:
        store = open_store(config.state / MODULES_FOLDER, config.sandbox.module_cache_bytes)
    except OSError as error:
        raise UsageError(
            UNREADABLE_FILE,
            f"The cache of compiled modules in {config.state / MODULES_FOLDER} cannot be opened ({error.strerror}).",
            field="state",
            hint="Give the folder to the agent's user, or set [sandbox] module_cache_bytes = 0.",
        ) from error
    settings = Settings(
        refuse=strict(children, frozenset(config.sandbox.accept_missing)),
        thresholds=config.sandbox.monitor,
        on_event=on_event,
        groups=groups,
    )
    return ProcessSandbox(children, store=store, settings=settings)


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
