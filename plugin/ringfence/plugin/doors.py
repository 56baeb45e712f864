"""The doors of a running gateway beside its own HTTP: the hosts that ask it, and the sockets of the operator."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ringfence.plugin.assertion import KEYS_PATH
from ringfence.plugin.composition import Gatehouse
from ringfence.plugin.config import GatewayConfig
from ringfence.plugin.duties import Duties
from ringfence.plugin.evaluating import KnownEntities, PolicyEvaluator
from ringfence.plugin.hosts.authzen.api import METADATA, PREFIX, AuthZen, AuthZenSettings
from ringfence.plugin.hosts.extauthz.adapter import ExtAuthz
from ringfence.plugin.hosts.forwardauth import service as forward_auth
from ringfence.plugin.hosts.forwardauth.service import ForwardAuth, document
from ringfence.plugin.hosts.spoe import agent as spoe
from ringfence.plugin.sessions.desk_server import AdminServer
from ringfence.plugin.sessions.revoking import Revoker
from ringfence.plugin.threats.feed import serve_feed


async def open_doors(doors: AsyncExitStack, config: GatewayConfig, house: Gatehouse, duties: Duties) -> None:
    """Opens every door that `config` has; `doors` closes them. Raises `RingfenceError` where one cannot be opened."""
    hosts, sockets = config.hosts, config.sockets
    if hosts.forward_auth is not None:
        further = {KEYS_PATH: document("application/json", house.published_keys)}
        if hosts.authzen is not None:
            api = _authzen(hosts.authzen, config.host.agent, house)
            further |= {PREFIX: api.handle, METADATA: api.handle}
        handler = ForwardAuth(house.keeper, hosts.forward_auth, further=further)
        server = await forward_auth.serve(hosts.forward_auth, handler.handle)
        await doors.enter_async_context(_closing(server, hosts.forward_auth.socket.path))
    if hosts.spoe is not None:
        server = await spoe.serve(hosts.spoe, house.keeper)
        await doors.enter_async_context(_closing(server, hosts.spoe.socket.path))
    if hosts.ext_authz is not None:
        await doors.enter_async_context(ExtAuthz(house.keeper, hosts.ext_authz).serve())
    if sockets.feed is not None:
        await doors.enter_async_context(serve_feed(house.broadcast, sockets.feed))
    if sockets.admin is not None:
        revoker = Revoker(
            house.sessions,
            house.revocations,
            journal=house.settlement.record,
            ended=duties.tell_ended,
            now=_now,
        )
        admin = AdminServer(
            house.sessions,
            revoker.revoke,
            principals=lambda written: house.identification.keys(written, _now()),
            now=_now,
        )
        await doors.enter_async_context(admin.serve(sockets.admin))


def _authzen(settings: AuthZenSettings, agent: str, house: Gatehouse) -> AuthZen:
    evaluator = PolicyEvaluator(
        house.means,
        house.settlement,
        house.upstreams,
        keys=lambda written: house.identification.keys(written, _now()),
        host=house.link.host,
        clock=_now,
    )
    return AuthZen(evaluator, KnownEntities(house.means, house.upstreams, agent=agent, clock=_now), settings)


@asynccontextmanager
async def _closing(server: asyncio.Server, socket: Path) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # While we still listen on it, the file is no successor's.
        await asyncio.to_thread(socket.unlink, missing_ok=True)
        server.close()


def _now() -> int:
    return time.time_ns() // 1_000_000_000
