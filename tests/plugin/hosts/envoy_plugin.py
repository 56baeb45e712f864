"""A plugin process for the tests of Envoy: the real adapter, asking a scripted gatekeeper.

    python -m tests.plugin.hosts.envoy_plugin SOCKET USER

It is a process, so that a test can kill, stop or replace it.
"""

from __future__ import annotations

import asyncio
import signal
import sys

import uvloop

from ringfence.config import SocketPath
from ringfence.plugin.hosts.extauthz.adapter import ExtAuthz
from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings
from ringfence.plugin.hosts.http2.limits import Http2Limits
from tests.plugin.hosts.host_gatekeeper import CALLS, ScriptedGatekeeper


async def main(socket: str, user: int) -> None:
    """Serves until SIGTERM, then drains."""
    settings = ExtAuthzSettings(
        SocketPath(socket), (user,), ("upstream",), limits=Http2Limits(concurrent_calls=CALLS, deadline_s=0.8)
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with ExtAuthz(ScriptedGatekeeper(), settings).serve():
        print("ready", flush=True)
        await stop.wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
