"""The worker's end of the command ring: two mapped files and a socket."""

from __future__ import annotations

import os

from ringfence.agent import ring
from ringfence.agent.errors import BROKER_PROTOCOL, SandboxError
from ringfence.agent.mapping import Mapper
from ringfence.agent.sandbox import exchange


class RingChannel:
    """A `Channel` over inherited descriptors: `socket` (SOCK_SEQPACKET), `request` to write, `reply` to read.

    Both files are mapped here, before a lock-down; afterwards it only reads and writes the socket.
    """

    def __init__(self, socket: int, request: int, reply: int) -> None:
        self._socket = socket
        mapper = Mapper()
        self._outlet = ring.Outlet(mapper.file(request, ring.REQUEST_BYTES, writable=True))
        self._reply = mapper.file(reply, ring.REPLY_BYTES, writable=False)

    def send(self, slots: memoryview) -> None:
        """See `Channel.send`."""
        while self._outlet.free * ring.SLOT_BYTES < len(slots):
            self._settle_one()
        try:
            os.write(self._socket, self._outlet.put(slots))
        except OSError as error:
            raise _lost() from error

    def settle(self) -> memoryview:
        """See `Channel.settle`."""
        payload = self._reply[:0]
        while self._outlet.unanswered:
            payload = self._settle_one()
        return payload

    def _settle_one(self) -> memoryview:
        """Wait for one answer; its payload."""
        try:
            answer = os.read(self._socket, ring.ANSWER_BYTES)
        except OSError as error:
            raise _lost() from error
        if not answer:
            raise _lost()
        result = self._outlet.settle(answer, self._reply)
        if isinstance(result, ring.Refusal):
            raise SandboxError(exchange.CODES.get(result.code, BROKER_PROTOCOL), result.message)
        return result


def _lost() -> SandboxError:
    return SandboxError(BROKER_PROTOCOL, "The device broker ended before the guest did.")
