"""A grpc.aio server interceptor: the decision in the process of a Python gRPC service."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final

import grpc
import grpc.aio
import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.certificates import read_certificate
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, GROUP_REFUSED, HostError
from ringfence.plugin.hosts.fields import check_fields, refuse_own
from ringfence.plugin.hosts.grpc_calls import Headers, guarded, peer_address, refuse
from ringfence.plugin.hosts.hops import Hops, client_address
from ringfence.plugin.hosts.port import NO_CHANNEL, Answer, Channel, Gatekeeper, Inbound, Unseen
from ringfence.plugin.hosts.refusals import CODE_FIELD, Desk, refusal
from ringfence.plugin.hosts.targets import read_target

HYBRID: Final = "X25519MLKEM768"
_GROUP: Final = "ssl_negotiated_key_exchange_group"
_CERTIFICATE: Final = "x509_pem_cert"


class GrpcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`authority` is the one that callers address and sign. With `group` set, such as "X25519MLKEM768", a connection
    that agreed its keys in another group, or without TLS, is refused. `exempt` are methods: "/pkg.Service/Method"."""

    authority: str
    group: str = ""
    exempt: tuple[str, ...] = ()
    hops: tuple[str, ...] = ()
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 256
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 2.0


class RingfenceInterceptor(grpc.aio.ServerInterceptor):
    """Asks `gatekeeper` about every call for `upstream`.

    The body of a unary request is shown, framed as HTTP/2 carries it; that of a stream is hidden. A refused call ends
    with the status of its kind, the code as its message, and `ringfence-code`, `ringfence-problem-bin` and, for a
    step-up, `www-authenticate` in its trailing metadata.
    """

    def __init__(self, gatekeeper: Gatekeeper, *, upstream: str, settings: GrpcSettings) -> None:
        self._desk = Desk(gatekeeper, concurrent=settings.concurrent, timeout_s=settings.timeout_s)
        self._upstream = upstream
        self._settings = settings
        self._hops = Hops.of(settings.hops)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Called by grpc.aio for each call."""
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or method in self._settings.exempt:
            return handler
        return guarded(handler, method, handler_call_details.invocation_metadata, self._check)

    async def _check(self, method: str, headers: Headers, body: bytes | None, context: Any) -> None:
        try:
            answer = await self._desk.decide(self._read(method, headers, body, context))
        except RingfenceError as error:
            answer = refusal(error)
        if not answer.allowed:
            await _refuse(answer, context)

    def _read(self, method: str, headers: Headers, body: bytes | None, context: Any) -> Inbound:
        tls: Mapping[str, list[bytes]] = context.auth_context()
        if self._settings.group and tls.get(_GROUP) != [self._settings.group.encode("ascii")]:
            raise HostError(
                GROUP_REFUSED,
                f"The connection did not agree its keys by {self._settings.group}.",
                field="tls",
                hint="Use a client whose TLS offers this group, such as grpcio 1.84 or later.",
            )
        check_fields(headers)
        refuse_own(headers)
        source = client_address(
            peer_address(context.peer()), [value for name, value in headers if name == "x-forwarded-for"], self._hops
        )
        return Inbound(
            target=read_target("POST", self._settings.authority, method),
            headers=headers,
            source=source,
            upstream=self._upstream,
            body=Unseen.HIDDEN if body is None else body,
            channel=_channel(tls),
        )


def _channel(tls: Mapping[str, list[bytes]]) -> Channel:
    found = tls.get(_CERTIFICATE)
    if not found:
        return NO_CHANNEL
    try:
        return read_certificate(found[0].decode("ascii"))
    except UnicodeDecodeError:
        raise HostError(FIELDS_MALFORMED, "The client's certificate is not PEM.", field="tls") from None


async def _refuse(answer: Answer, context: Any) -> None:
    fields = {name.lower(): value for name, value in answer.headers}
    await refuse(
        context,
        answer.status,
        fields.get(CODE_FIELD, "") or _code(answer.body),
        answer.body,
        fields.get("www-authenticate", ""),
        fields.get("retry-after", ""),
    )


class _Coded(msgspec.Struct, frozen=True):
    code: str = ""


def _code(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Coded).code
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError):
        return ""
