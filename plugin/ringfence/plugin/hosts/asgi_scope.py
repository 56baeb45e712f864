"""What ASGI messages say of a request, for middleware on either side of a gateway. Source: ASGI 3.0, HTTP format."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from ringfence import httpsig
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, TARGET_MALFORMED, HostError
from ringfence.plugin.hosts.fields import Fields, check_fields
from ringfence.plugin.hosts.port import Answer
from ringfence.plugin.hosts.targets import read_target

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class DisconnectedError(Exception):
    """The client went away before its request was whole."""


def read_scope(scope: Message) -> tuple[httpsig.Target, Fields]:
    """Target and fields of an HTTP scope, undecoded. Raises `HostError`.

    A server that gives no `raw_path` shows a path that was decoded, which is not what the caller signed.
    """
    raw: bytes | None = scope.get("raw_path")
    if raw is None:
        raise HostError(TARGET_MALFORMED, "The server does not give the path as it was received.", field="raw_path")
    try:
        headers = [(name.decode("ascii"), value.decode("ascii")) for name, value in scope["headers"]]
        path, query = raw.decode("ascii"), scope["query_string"].decode("ascii")
    except UnicodeDecodeError:
        raise HostError(FIELDS_MALFORMED, "Path, query or a header field is not ASCII.", field="headers") from None
    check_fields(headers)
    hosts = [value for name, value in headers if name == "host"]
    if len(hosts) != 1:
        raise HostError(FIELDS_MALFORMED, "There must be exactly one Host field.", field="host")
    if "?" in path:
        raise HostError(TARGET_MALFORMED, "The server's path holds a query.", field="raw_path")
    return read_target(scope["method"], hosts[0], f"{path}?{query}" if query else path), headers


def part_of(message: Message) -> bytes:
    """The bytes of one message of a body. Raises `DisconnectedError` where the client is gone."""
    if message["type"] != "http.request":
        raise DisconnectedError
    body: bytes = message.get("body", b"")
    return body


async def send_refusal(answer: Answer, send: Send) -> None:
    """Sends a refusal; an answer that claims another success than 200 is none."""
    status = answer.status if 400 <= answer.status <= 599 else 500
    headers = [(name.encode("ascii"), value.encode("ascii")) for name, value in answer.headers]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
