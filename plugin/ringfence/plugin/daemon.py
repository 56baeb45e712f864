"""The gateway's process: wires the pipelines to their parts, and serves until it is told to stop."""

from __future__ import annotations

import asyncio
import gc
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import uvicorn

from ringfence import audit
from ringfence.attestation.anchoring import configured_anchor
from ringfence.keystore.daemon_log import open_daemon_log
from ringfence.plugin.assertion import KEYS_PATH
from ringfence.plugin.builtin.address import UNIX
from ringfence.plugin.builtin.app import Capacity, GatewayApp
from ringfence.plugin.builtin.capacity import Slots
from ringfence.plugin.builtin.front.errors import FRONT_NO_SIGN_IN, FrontError
from ringfence.plugin.builtin.front.keeping import Fronts, Plan
from ringfence.plugin.builtin.front.service import Shared
from ringfence.plugin.builtin.listen import open_listener
from ringfence.plugin.builtin.server import server_config
from ringfence.plugin.composition import Gatehouse, compose
from ringfence.plugin.config import GatewayConfig, Opened
from ringfence.plugin.doors import open_doors
from ringfence.plugin.duties import Duties, kept_up
from ringfence.plugin.past import Past, policies_record, read_past
from ringfence.plugin.sessions.archive import Archive
from ringfence.terminal import printable


def run(config: GatewayConfig) -> None:
    """Serves until SIGTERM or SIGINT. Raises `RingfenceError` where it cannot start."""
    folder = config.state / "audit" / "gateway"
    opened = config.open(read_past(folder, now=_now()).policies)
    policies = policies_record(opened.decider, config.policies)
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
        # Read again, now that the log is this process's alone: the one before may have gone on until a moment ago.
        asyncio.run(_serve(config, listener, opened, log, read_past(folder, now=_now())))


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
    config: GatewayConfig, listener: socket.socket, opened: Opened, log: audit.AuditLog, past: Past
) -> None:
    limits = config.limits
    house = compose(config, opened, log, past, _tell)
    # What is there now stays; a full collection that walks all of it would be a pause for every request.
    gc.collect()
    gc.freeze()
    duties = Duties(house, clock=_now, tell=_tell)
    tasks = duties.all()
    archive: Archive | None = None
    if config.sessions.snapshot_s:
        archive = Archive(
            config.state / "gateway",
            house.sessions,
            past.history,
            gateway=opened.signer.key_id,
            random=secrets.token_bytes,
            tell=_tell,
        )
        archive.revive(now=_now())
        tend = partial(archive.tend, house.settlement.record, config.sessions.snapshot_s)
        tasks.append(kept_up("keeping sessions for a restart", tend, _tell))
    capacity = Capacity(
        jobs=limits.concurrent_requests,
        openings=limits.concurrent_openings,
        body_bytes=limits.body_bytes,
        bodies_bytes=limits.bodies_bytes,
        body_timeout_s=limits.body_timeout_s,
    )
    running = [asyncio.create_task(task) for task in tasks]
    try:
        async with AsyncExitStack() as doors:
            await open_doors(doors, config, house, duties)
            await _serve_http(config, listener, house, capacity)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        with suppress(audit.AuditError):
            await house.settlement.report_suppressed()
        if archive is not None:
            await archive.save(house.settlement.record)
        await house.tending.save()
        await house.link.remote.close()


async def _serve_http(config: GatewayConfig, listener: socket.socket, house: Gatehouse, capacity: Capacity) -> None:
    """Speaks HTTP until SIGTERM or SIGINT: here, or in `limits.workers` processes that ask this one."""
    limits = config.limits
    if not limits.workers:
        app = GatewayApp(house.gate, capacity, published={KEYS_PATH: house.published_keys}, sign_in=house.sign_in)
        http = server_config(app, connections=limits.connections, header_timeout_s=limits.header_timeout_s)
        _tell(f"ready on {config.listen}")
        await uvicorn.Server(http).serve(sockets=[listener])
        return
    if house.sign_in is not None:
        raise FrontError(
            FRONT_NO_SIGN_IN,
            "Browsers cannot sign in at a gateway with several workers.",
            field="limits.workers",
            hint="Set limits.workers to 0, or have browsers sign in at a gateway of their own.",
        )
    plan = Plan(limits.workers, capacity, limits.connections, limits.header_timeout_s, limits.job_timeout_s)
    shared = Shared(house.gate, Slots(capacity.jobs), Slots(capacity.openings), _tell)
    told, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    async with Fronts(plan, listener, shared, {KEYS_PATH: house.published_keys()}).running():
        _tell(f"ready on {config.listen}, with {limits.workers} fronts")
        await told.wait()


def _now() -> int:
    return time.time_ns() // 1_000_000_000


def _tell(sentence: str) -> None:
    print(f"ringfence gateway: {printable(sentence)}", file=sys.stderr, flush=True)
