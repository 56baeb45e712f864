"""The gateway's side of the agent's API: typed calls over the agent's Unix socket, each with a deadline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc
import grpc.aio

from ringfence.agent.api import failures
from ringfence.agent.api._pb import agent_pb2 as pb
from ringfence.agent.api._pb.agent_pb2_grpc import AgentStub
from ringfence.agent.api.errors import AGENT_TIMEOUT, AGENT_UNAVAILABLE, ChannelError
from ringfence.agent.api.jobs import ActiveJob, decode_active
from ringfence.errors import RingfenceError

if TYPE_CHECKING:
    from ringfence.agent.api._pb.agent_pb2_grpc import AgentAsyncStub

CHUNK: Final = 1024 * 1024
MESSAGE_LIMIT: Final = 128 * 1024 * 1024
SHORT_CALL_S: Final = 10.0
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_LIMIT),
    ("grpc.max_send_message_length", MESSAGE_LIMIT),
    # A restarted agent is found again at once: shorter than the time between two attempts of the gateway.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.enable_http_proxy", 0),
)


@dataclass(frozen=True, slots=True)
class Finished:
    """What the agent says of an admitted job; `failure` says how a guest ended that did not finish."""

    output: bytes = field(repr=False)
    receipt: bytes
    signature: bytes
    failure: RingfenceError | None


class RemoteAgent:
    """The agent at the other end of a Unix socket."""

    def __init__(self, socket: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{socket.absolute()}", options=_OPTIONS)
        self._stub: AgentAsyncStub = AgentStub(self._channel)

    async def close(self) -> None:
        """Drops the connection; calls under way are cancelled."""
        await self._channel.close()

    async def open_channel(self, hello: bytes) -> bytes:
        """The agent's reply to a handshake hello."""
        try:
            return (await self._stub.OpenChannel(pb.ChannelRequest(hello=hello), timeout=SHORT_CALL_S)).reply
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def collect_evidence(self, nonce: bytes) -> bytes:
        """The host's encoded evidence for `nonce`."""
        try:
            request = pb.EvidenceRequest(nonce=nonce)
            return (await self._stub.CollectEvidence(request, timeout=SHORT_CALL_S)).evidence
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def prove_host(self, channel: str, nonce: bytes, tag: bytes) -> bytes:
        """The agent's signature over a session's nonce; `tag` shows that the channel's gateway asks."""
        try:
            request = pb.ProofRequest(channel=channel, nonce=nonce, tag=tag)
            return (await self._stub.ProveHost(request, timeout=SHORT_CALL_S)).signature
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def active(self) -> tuple[ActiveJob, ...]:
        """The jobs that run on the host now, the oldest first."""
        try:
            return decode_active((await self._stub.ListActive(pb.ActiveRequest(), timeout=SHORT_CALL_S)).jobs)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None

    async def submit(self, channel: str, grant: bytes, tag: bytes, body: bytes, *, timeout_s: float) -> Finished:
        """Runs a job. Cancelling the call cancels the job."""
        try:
            reply = await self._stub.Submit(_chunks(channel, grant, tag, body), timeout=timeout_s)
        except grpc.aio.AioRpcError as error:
            raise self._failure(error) from None
        failure = failures.rebuild(reply.code, reply.kind, reply.message, hint=reply.hint) if reply.code else None
        return Finished(reply.output, reply.receipt, reply.signature, failure)

    def _failure(self, error: grpc.aio.AioRpcError) -> RingfenceError:
        failure = failures.decode(error.trailing_metadata())
        if failure is not None:
            return failure
        if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ChannelError(
                AGENT_TIMEOUT, "The agent did not answer in time.", hint="Ask for a shorter job, or try again."
            )
        return ChannelError(
            AGENT_UNAVAILABLE,
            f"The agent does not answer on its socket ({error.code().name}).",
            hint="See that `ringfence agent` runs on this host and that the gateway may open its socket.",
        )


async def _chunks(channel: str, grant: bytes, tag: bytes, body: bytes) -> AsyncIterator[pb.SubmitChunk]:
    yield pb.SubmitChunk(grant=pb.Grant(channel=channel, grant=grant, tag=tag))
    for start in range(0, len(body), CHUNK):
        yield pb.SubmitChunk(body=body[start : start + CHUNK])
