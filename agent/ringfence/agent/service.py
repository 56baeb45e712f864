"""The agent's gRPC edge: turns calls into what `HostAgent` takes, and its errors into statuses."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio

from ringfence.agent.admission import Presented
from ringfence.agent.api import failures
from ringfence.agent.api._pb import agent_pb2 as pb
from ringfence.agent.api._pb.agent_pb2_grpc import AgentServicer
from ringfence.agent.api.errors import BODY_TOO_LARGE, GRANT_MALFORMED, GrantError, JobError
from ringfence.agent.host import HostAgent
from ringfence.errors import RingfenceError

Reply = TypeVar("Reply")
_STATUSES = {status.value[0]: status for status in grpc.StatusCode}


class AgentService(AgentServicer):
    """Serves one `HostAgent`; a submission may have at most `body_bytes`."""

    def __init__(self, agent: HostAgent, *, body_bytes: int) -> None:
        self._agent = agent
        self._body_bytes = body_bytes

    async def OpenChannel(self, request: pb.ChannelRequest, context: Any) -> pb.ChannelReply:  # noqa: N802
        return await _guard(context, self._open_channel(request))

    async def CollectEvidence(self, request: pb.EvidenceRequest, context: Any) -> pb.EvidenceReply:  # noqa: N802
        return await _guard(context, self._collect_evidence(request))

    async def ProveHost(self, request: pb.ProofRequest, context: Any) -> pb.ProofReply:  # noqa: N802
        return await _guard(context, self._prove_host(request))

    async def Submit(self, request_iterator: Any, context: Any) -> pb.SubmitReply:  # noqa: N802
        return await _guard(context, self._submit(request_iterator))

    async def _open_channel(self, request: pb.ChannelRequest) -> pb.ChannelReply:
        return pb.ChannelReply(reply=self._agent.channels.open(request.hello, now=self._agent.now()))

    async def _collect_evidence(self, request: pb.EvidenceRequest) -> pb.EvidenceReply:
        return pb.EvidenceReply(evidence=await self._agent.collect_evidence(request.nonce))

    async def _prove_host(self, request: pb.ProofRequest) -> pb.ProofReply:
        return pb.ProofReply(signature=self._agent.prove_host(request.channel, request.nonce, request.tag))

    async def _submit(self, chunks: AsyncIterator[pb.SubmitChunk]) -> pb.SubmitReply:
        grant: pb.Grant | None = None
        body = bytearray()
        async for chunk in chunks:
            if chunk.WhichOneof("part") == "grant":
                if grant is not None or body:
                    raise GrantError(GRANT_MALFORMED, "A grant comes first, and once.", field="grant")
                grant = chunk.grant
                continue
            if grant is None:
                break
            body += chunk.body
            if len(body) > self._body_bytes:
                raise JobError(
                    BODY_TOO_LARGE,
                    f"The submission has more than {self._body_bytes} bytes.",
                    field="body",
                    hint="Send less input, or have the operator raise limits.body_bytes of the agent.",
                )
        if grant is None:
            raise GrantError(GRANT_MALFORMED, "The submission carries no grant.", field="grant")
        done = await self._agent.submit(grant.channel, Presented(grant.grant, grant.tag, bytes(body)))
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
