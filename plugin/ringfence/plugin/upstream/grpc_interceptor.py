"""A grpc.aio server interceptor of an upstream: no call is served that a gateway has not asserted.

The message of a unary call is compared with the digest that was signed before it is decoded. A streamed request cannot
be held whole, so it is served only where its method is named in `streams`: the operator accepts that its body is not
verified.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final

import grpc
import grpc.aio

from ringfence.errors import RingfenceError
from ringfence.plugin.assertion import Claims
from ringfence.plugin.hosts.fields import check_fields
from ringfence.plugin.hosts.grpc_calls import Headers, guarded, refuse
from ringfence.plugin.hosts.refusals import refusal
from ringfence.plugin.hosts.targets import read_target
from ringfence.plugin.upstream.bodies import HeldBody
from ringfence.plugin.upstream.desk import AssertionDesk, UpstreamSettings
from ringfence.plugin.upstream.errors import BODY_MISMATCH, UpstreamError

claims: Final[contextvars.ContextVar[Claims]] = contextvars.ContextVar("ringfence.claims")
"""The verified claims of the call that a handler serves."""


class AssertedInterceptor(grpc.aio.ServerInterceptor):
    """Serves calls that carry the gateway's assertion in their metadata; `authority` is the one that callers sign."""

    def __init__(
        self,
        settings: UpstreamSettings,
        *,
        authority: str,
        streams: Collection[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Raises `UpstreamError` where the gateway's keys cannot be read."""
        self._desk = AssertionDesk(settings, clock)
        self._body_bytes = settings.body_bytes
        self._authority = authority
        self._streams = frozenset(streams)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Called by grpc.aio for each call."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return guarded(handler, str(handler_call_details.method), handler_call_details.invocation_metadata, self._check)

    async def _check(self, method: str, headers: Headers, body: bytes | None, context: Any) -> None:
        try:
            check_fields(headers)
            verified = self._desk.verify(read_target("POST", self._authority, method), headers)
            if body is not None:
                held = HeldBody(memory_bytes=self._body_bytes, body_bytes=self._body_bytes)
                await held.add(body)
                held.verify(verified.content_digest)
            elif method not in self._streams:
                raise UpstreamError(BODY_MISMATCH, "The body of a stream cannot be verified.", field="body")
            claims.set(verified)
        except RingfenceError as error:
            answer = refusal(error)
            await refuse(context, answer.status, error.code.name, answer.body)
