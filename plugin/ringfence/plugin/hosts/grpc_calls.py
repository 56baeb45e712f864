"""What a grpc.aio server says of a call, for interceptors on either side of a gateway.

A call is the HTTP/2 request `POST /package.Service/Method` (gRPC over HTTP/2, "Requests"). Its authority is not shown
to Python, so it is configured. The body of a unary call is its one message behind five bytes, a flag and the length; in
that form its digest is the one that a signer of the HTTP request computes, as long as nobody compresses.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Protocol

import grpc
import grpc.aio

from ringfence.errors import BAD_ARGUMENT, Kind, UsageError
from ringfence.plugin.hosts.hops import UNIX

CODE_TRAILER: Final = "ringfence-code"
PROBLEM_TRAILER: Final = "ringfence-problem-bin"
CHALLENGE_TRAILER: Final = "www-authenticate"

_STATUSES: Final = {status.value[0]: status for status in grpc.StatusCode}
_KINDS: Final = {kind.http: kind for kind in Kind}

Headers = list[tuple[str, str]]


class Check(Protocol):
    """Decides on one call before its handler sees it; `body` is that of a unary request, None where it streams."""

    async def __call__(self, method: str, headers: Headers, body: bytes | None, context: Any) -> None:
        """Returns for a call that may go on, and aborts `context` otherwise."""
        ...


def guarded(
    handler: grpc.RpcMethodHandler[Any, Any], method: str, metadata: Any, check: Check
) -> grpc.RpcMethodHandler[Any, Any]:
    """`handler` behind `check`. Raises `usage.bad_argument` for a handler that is not asynchronous."""
    behaviour: Any = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if not (inspect.iscoroutinefunction(behaviour) or inspect.isasyncgenfunction(behaviour)):
        raise UsageError(BAD_ARGUMENT, f"The handler of {method} is not asynchronous.", hint="Use async def.")
    headers = fields_of(metadata)
    decode = handler.request_deserializer or _as_it_is

    async def allow(raw: bytes | None, context: Any) -> None:
        await check(method, headers, None if raw is None else framed(raw), context)

    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(
            _streaming(behaviour, allow), handler.request_deserializer, handler.response_serializer
        )
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(
            _unary(behaviour, allow), handler.request_deserializer, handler.response_serializer
        )
    # The message is read as bytes, decided on, and only then decoded.
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(
            _streaming(behaviour, allow, decode), _as_it_is, handler.response_serializer
        )
    return grpc.unary_unary_rpc_method_handler(_unary(behaviour, allow, decode), _as_it_is, handler.response_serializer)


Allow = Callable[[bytes | None, Any], Awaitable[None]]


def _unary(behaviour: Callable[..., Any], allow: Allow, decode: Callable[[bytes], Any] | None = None) -> Any:
    async def call(request: Any, context: Any) -> Any:
        await allow(None if decode is None else request, context)
        return await behaviour(request if decode is None else decode(request), context)

    return call


def _streaming(behaviour: Callable[..., Any], allow: Allow, decode: Callable[[bytes], Any] | None = None) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        await allow(None if decode is None else request, context)
        answers = behaviour(request if decode is None else decode(request), context)
        if inspect.isawaitable(answers):
            # A handler that writes to its context yields nothing.
            await answers
            return
        async for answer in answers:
            yield answer

    return call


def framed(message: bytes) -> bytes:
    """A message as the body of its request has it: not compressed, its length, itself."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def fields_of(metadata: Any) -> Headers:
    """The metadata as header fields; binary ones (`-bin`), which HTTP carries in base64, are left out."""
    return [
        (name, value if isinstance(value, str) else value.decode("latin-1"))
        for name, value in (metadata or ())
        if not name.endswith("-bin")
    ]


def peer_address(peer: str) -> str:
    """The address in `context.peer()`, such as "ipv4:127.0.0.1:1234" or "ipv6:%5B::1%5D:1234"; "unix" for a socket."""
    scheme, _, rest = peer.partition(":")
    if scheme == "ipv4":
        return rest.rpartition(":")[0]
    if scheme == "ipv6":
        return rest.rpartition(":")[0].removeprefix("%5B").removesuffix("%5D").strip("[]")
    return UNIX if scheme == "unix" else ""


async def refuse(context: Any, status: int, code: str, body: bytes, challenge: str = "", retry_after: str = "") -> None:
    """Ends the call with the gRPC status of the kind that `status` (HTTP) stands for, the problem in the trailers."""
    kind = _KINDS.get(status, Kind.INTERNAL)
    trailers: list[tuple[str, str | bytes]] = [(CODE_TRAILER, code), (PROBLEM_TRAILER, body)]
    if challenge:
        trailers.append((CHALLENGE_TRAILER, challenge))
    if retry_after:
        trailers.append(("retry-after", retry_after))
    await context.abort(_STATUSES[kind.grpc], code, tuple(trailers))


def _as_it_is(raw: bytes) -> bytes:
    return raw
