"""The agent's gRPC edge: turns calls into what `HostAgent` takes, and its errors into statuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import suppress
from typing import Any, Final, TypeVar

import grpc
import grpc.aio

from ringfence.agent.admission import Presented
from ringfence.agent.api import failures
from ringfence.agent.api._pb import agent_pb2 as pb
from ringfence.agent.api._pb.agent_pb2_grpc import AgentServicer
from ringfence.agent.api.errors import AGENT_BUSY, BODY_LATE, BODY_TOO_LARGE, GRANT_MALFORMED, GrantError, JobError
from ringfence.agent.api.jobs import encode_active
from ringfence.agent.host import HostAgent
from ringfence.errors import RingfenceError

Reply = TypeVar("Reply")
ARRIVAL_S: Final = 30.0
DISCARD_S: Final = 5.0
_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class AgentService(AgentServicer):
    """Serves one `HostAgent`: `submissions` at a time, each of at most `body_bytes`, arriving within `arrival_s`."""

    def __init__(self, agent: HostAgent, *, submissions: int, body_bytes: int, arrival_s: float = ARRIVAL_S) -> None:
        self._agent = agent
        self._free = submissions
        self._body_bytes = body_bytes
        self._arrival_s = arrival_s

    async def OpenChannel(self, request: pb.ChannelRequest, context: Any) -> pb.ChannelReply:  # noqa: N802
        return await _guard(context, self._open_channel(request))

    async def CollectEvidence(self, request: pb.EvidenceRequest, context: Any) -> pb.EvidenceReply:  # noqa: N802
        return await _guard(context, self._collect_evidence(request))

    async def ProveHost(self, request: pb.ProofRequest, context: Any) -> pb.ProofReply:  # noqa: N802
        return await _guard(context, self._prove_host(request))

    async def Submit(self, request_iterator: Any, context: Any) -> pb.SubmitReply:  # noqa: N802
        return await _guard(context, self._submit(request_iterator))

    async def ListActive(self, request: pb.ActiveRequest, context: Any) -> pb.ActiveReply:  # noqa: N802, ARG002
        return pb.ActiveReply(jobs=encode_active(self._agent.active()))

    async def _open_channel(self, request: pb.ChannelRequest) -> pb.ChannelReply:
        return pb.ChannelReply(reply=self._agent.channels.open(request.hello, now=self._agent.now()))

    async def _collect_evidence(self, request: pb.EvidenceRequest) -> pb.EvidenceReply:
        return pb.EvidenceReply(evidence=await self._agent.collect_evidence(request.nonce))

    async def _prove_host(self, request: pb.ProofRequest) -> pb.ProofReply:
        return pb.ProofReply(signature=self._agent.prove_host(request.channel, request.nonce, request.tag))

    async def _submit(self, chunks: AsyncIterator[pb.SubmitChunk]) -> pb.SubmitReply:
        # A submission is held whole before it is admitted: this bounds how many are.
        place = min(1, self._free)
        self._free -= place
        try:
            try:
                grant, body = await self._receive(chunks, free=place > 0)
            except RingfenceError as error:
                await self._agent.refused(error)
                await self._discard(chunks)
                raise
            return await self._run(grant, body)
        finally:
            self._free += place

    async def _discard(self, chunks: AsyncIterator[pb.SubmitChunk]) -> None:
        # gRPC breaks a call off that is answered while its sender still sends, and the refusal would be lost.
        with suppress(TimeoutError):
            async with asyncio.timeout(min(DISCARD_S, self._arrival_s)):
                async for _ in chunks:
                    pass

    async def _receive(self, chunks: AsyncIterator[pb.SubmitChunk], *, free: bool) -> tuple[pb.Grant, bytes]:
        if not free:
            raise GrantError(AGENT_BUSY, "As many submissions as this host takes are here.", hint="Try again later.")
        grant: pb.Grant | None = None
        body = bytearray()
        try:
            async with asyncio.timeout(self._arrival_s):
                async for chunk in chunks:
                    if chunk.WhichOneof("part") == "grant":
                        if grant is not None:
                            raise GrantError(GRANT_MALFORMED, "A grant comes first, and once.", field="grant")
                        grant = chunk.grant
                        self._agent.authenticate(grant.channel, grant.grant, grant.tag)
                        continue
                    if grant is None:
                        break
                    body += chunk.body
                    if len(body) > self._body_bytes:
                        raise self._too_large()
        except TimeoutError:
            raise JobError(
                BODY_LATE,
                f"The submission did not arrive within {self._arrival_s:g} s.",
                field="body",
                hint="Send it again.",
            ) from None
        if grant is None:
            raise GrantError(GRANT_MALFORMED, "The submission carries no grant.", field="grant")
        return grant, bytes(body)

    def _too_large(self) -> JobError:
        return JobError(
            BODY_TOO_LARGE,
            f"The submission has more than {self._body_bytes} bytes.",
            field="body",
            hint="Send less input, or have the operator raise limits.body_bytes of the agent.",
        )

    async def _run(self, grant: pb.Grant, body: bytes) -> pb.SubmitReply:
        done = await self._agent.submit(grant.channel, Presented(grant.grant, grant.tag, body))
        reply = pb.SubmitReply(output=done.output, receipt=done.receipt, signature=done.signature)
        if done.failure is not None:
            reply.code = done.failure.code.name
            reply.message = done.failure.message
            reply.hint = done.failure.hint
            reply.kind = done.failure.code.kind.name
        return reply


async def _guard(context: Any, work: Awaitable[Reply]) -> Reply:
    try:
        return await work
    except RingfenceError as error:
        await context.abort(_STATUSES[error.code.kind.grpc], error.message, trailing_metadata=failures.encode(error))
        raise
