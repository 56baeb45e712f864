"""One front worker.

    python -m ringfence.plugin.builtin.front --channel N --listener N --parent PID

It inherits two sockets: the channel to the decision process, which tells it its limits first, and the listener. It ends
when the channel does, and with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import socket
import sys
from functools import partial
from typing import Final

import uvicorn

from ringfence.keystore.signing_child import harden
from ringfence.plugin.builtin.app import HELLO_LIMIT, Capacity, GatewayApp
from ringfence.plugin.builtin.front.errors import FrontError
from ringfence.plugin.builtin.front.frames import Assembler, Bounds, Message, frames
from ringfence.plugin.builtin.front.messages import Setup, decode_setup
from ringfence.plugin.builtin.front.remote import READ_BYTES, RemoteGate
from ringfence.plugin.builtin.server import server_config

READY: Final = b"".join(frames(0, b""))
"""What a front sends once it accepts connections."""

OWN_FILES: Final = 64
"""Descriptors that a front may have beside its connections."""

_SETUP: Final = Bounds(calls=1, total=1024 * 1024, body=1024 * 1024)


class _Server(uvicorn.Server):
    """Says when it accepts connections."""

    def __init__(self, config: uvicorn.Config, writer: asyncio.StreamWriter) -> None:
        super().__init__(config)
        self._writer = writer

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._writer.write(READY)


async def serve(channel: socket.socket, listener: socket.socket) -> int:
    """Serves until it is told to stop or the decision process is gone; gives the exit status."""
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=READ_BYTES)
    setup = await _setup(reader)
    if setup is None:
        return 1
    files = setup.connections + OWN_FILES
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    gate = RemoteGate(
        reader,
        writer,
        Bounds(setup.calls, setup.calls_bytes, max(setup.body_bytes, HELLO_LIMIT)),
        timeout_s=setup.answer_timeout_s,
    )
    capacity = Capacity(setup.jobs, setup.openings, setup.body_bytes, setup.bodies_bytes, setup.body_timeout_s)
    published = {path: partial(bytes, document) for path, document in setup.documents.items()}
    app = GatewayApp(gate, capacity, published)
    config = server_config(app, connections=setup.connections, header_timeout_s=setup.header_timeout_s)
    server = _Server(config, writer)
    listening, serving = asyncio.create_task(gate.run()), asyncio.create_task(server.serve(sockets=[listener]))
    await asyncio.wait({listening, serving}, return_when=asyncio.FIRST_COMPLETED)
    # Without a decision nothing can be answered, so then nothing under way is waited for.
    stopped = serving.done()
    for task in (listening, serving):
        task.cancel()
    await asyncio.wait({listening, serving})
    writer.close()
    return 0 if stopped else 1


async def _setup(reader: asyncio.StreamReader) -> Setup | None:
    assembler = Assembler(_SETUP, lambda call: call == 0)
    while data := await reader.read(READ_BYTES):
        for event in assembler.feed(data):
            return decode_setup(event.head) if isinstance(event, Message) else None
    return None


def main() -> int:
    """Parses the command line, hardens the process and serves."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.plugin.builtin.front", description=__doc__)
    parser.add_argument("--channel", type=int, required=True, help="the socket to the decision process")
    parser.add_argument("--listener", type=int, required=True, help="the socket that connections come to")
    parser.add_argument("--parent", type=int, required=True, help="the process that it dies with")
    arguments = parser.parse_args()
    harden(arguments.parent)
    with socket.socket(fileno=arguments.channel) as channel, socket.socket(fileno=arguments.listener) as listener:
        try:
            return asyncio.run(serve(channel, listener))
        except (ConnectionError, FrontError):
            return 1


if __name__ == "__main__":
    sys.exit(main())
