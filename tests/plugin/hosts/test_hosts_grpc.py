"""The grpc.aio interceptors, on either side of a gateway, with a real server and a real client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest

from ringfence import httpsig
from ringfence.errors import UsageError
from ringfence.plugin.assertion import AssertionIssuer, Subject, published_keys
from ringfence.plugin.hosts.grpc_calls import CHALLENGE_TRAILER, CODE_TRAILER, PROBLEM_TRAILER, framed, peer_address
from ringfence.plugin.hosts.grpc_interceptor import HYBRID, GrpcSettings, RingfenceInterceptor
from ringfence.plugin.hosts.port import ASSERTION, Unseen
from ringfence.plugin.upstream.desk import UpstreamSettings
from ringfence.plugin.upstream.grpc_interceptor import AssertedInterceptor, claims
from tests.plugin.hosts.hosts_scene import CHALLENGE, ScriptedGatekeeper
from tests.plugin.hosts.hosts_tls import make_certificates

SETTINGS = GrpcSettings("h.test", exempt=("/t.S/Health",))


class Service:
    """Handlers of all four kinds, over bytes."""

    def __init__(self) -> None:
        self.served: list[str] = []

    async def unary(self, request: bytes, _context: Any) -> bytes:
        self.served.append("unary")
        return request

    async def pour(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        self.served.append("pour")
        yield request
        yield request

    async def collect(self, requests: AsyncIterator[bytes], _context: Any) -> bytes:
        self.served.append("collect")
        return b"".join([one async for one in requests])

    async def chat(self, requests: AsyncIterator[bytes], context: Any) -> None:
        self.served.append("chat")
        async for one in requests:
            await context.write(one)

    def handlers(self) -> grpc.GenericRpcHandler:
        return grpc.method_handlers_generic_handler(
            "t.S",
            {
                "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
                "Health": grpc.unary_unary_rpc_method_handler(self.unary),
                "Pour": grpc.unary_stream_rpc_method_handler(self.pour),
                "Collect": grpc.stream_unary_rpc_method_handler(self.collect),
                "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            },
        )


@contextlib.asynccontextmanager
async def serving(
    interceptor: grpc.aio.ServerInterceptor, folder: Path, *, tls: bool = False
) -> AsyncIterator[tuple[Service, grpc.aio.Channel]]:
    service = Service()
    server = grpc.aio.server(interceptors=[interceptor])
    server.add_generic_rpc_handlers((service.handlers(),))
    if tls:
        make_certificates(folder)
        pem, key = (folder / "server.pem").read_bytes(), (folder / "server.key").read_bytes()
        port = server.add_secure_port("localhost:0", grpc.ssl_server_credentials([(key, pem)]))
        channel = grpc.aio.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(pem))
    else:
        server.add_insecure_port(f"unix:{folder}/s")
        channel = grpc.aio.insecure_channel(f"unix:{folder}/s")
    await server.start()
    try:
        async with channel:
            yield service, channel
    finally:
        await server.stop(None)


async def ask(channel: Any, method: str, metadata: tuple[tuple[str, str], ...] = ()) -> list[bytes]:
    path = f"/t.S/{method}"
    if method in ("Unary", "Health", "Missing"):
        return [await channel.unary_unary(path)(b"message", metadata=metadata)]
    if method == "Pour":
        return [one async for one in channel.unary_stream(path)(b"message", metadata=metadata)]
    if method == "Collect":
        return [await channel.stream_unary(path)(iter([b"mess", b"age"]), metadata=metadata)]
    return [one async for one in channel.stream_stream(path)(iter([b"message"]), metadata=metadata)]


async def test_allowed_calls_of_every_kind_are_served(tmp_path: Path) -> None:
    gatekeeper = ScriptedGatekeeper()
    async with serving(RingfenceInterceptor(gatekeeper, upstream="service", settings=SETTINGS), tmp_path) as (
        _,
        channel,
    ):
        assert await ask(channel, "Unary") == [b"message"]
        assert await ask(channel, "Pour") == [b"message", b"message"]
        assert await ask(channel, "Collect") == [b"message"]
        assert await ask(channel, "Chat") == [b"message"]
        assert await ask(channel, "Health") == [b"message"]
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Missing")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [inbound.target for inbound in gatekeeper.seen] == [
        httpsig.Target("POST", "h.test", f"/t.S/{method}") for method in ("Unary", "Pour", "Collect", "Chat")
    ]
    whole, hidden = framed(b"message"), Unseen.HIDDEN
    assert [inbound.body for inbound in gatekeeper.seen] == [whole, whole, hidden, hidden]
    assert {(inbound.source, inbound.upstream) for inbound in gatekeeper.seen} == {("unix", "service")}


@pytest.mark.parametrize("method", ["Unary", "Pour", "Collect", "Chat"])
@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("deny", grpc.StatusCode.PERMISSION_DENIED),
        ("step-up", grpc.StatusCode.UNAUTHENTICATED),
        ("replayed", grpc.StatusCode.ALREADY_EXISTS),
        ("full", grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
async def test_refused_calls_end_with_the_status_of_their_kind(
    tmp_path: Path, method: str, script: str, status: grpc.StatusCode
) -> None:
    interceptor = RingfenceInterceptor(ScriptedGatekeeper(), upstream="service", settings=SETTINGS)
    async with serving(interceptor, tmp_path) as (service, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, method, (("x-test", script),))
    trailers = dict(error.value.trailing_metadata() or ())
    assert (error.value.code(), service.served) == (status, [])
    assert msgspec.json.decode(trailers[PROBLEM_TRAILER])["code"] == trailers[CODE_TRAILER] == error.value.details()
    assert trailers.get(CHALLENGE_TRAILER) == (CHALLENGE if script == "step-up" else None)


@pytest.mark.parametrize("metadata", [((ASSERTION, "forged"),), (("x_ringfence_assertion", "forged"),)])
async def test_metadata_that_only_ringfence_sets_is_refused(
    tmp_path: Path, metadata: tuple[tuple[str, str], ...]
) -> None:
    gatekeeper = ScriptedGatekeeper()
    async with serving(RingfenceInterceptor(gatekeeper, upstream="s", settings=SETTINGS), tmp_path) as (
        service,
        channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Unary", metadata)
    assert (error.value.code(), service.served, gatekeeper.seen) == (grpc.StatusCode.INVALID_ARGUMENT, [], [])


async def test_the_group_of_the_key_exchange_is_enforced(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, group=HYBRID)
    interceptor = RingfenceInterceptor(ScriptedGatekeeper(), upstream="service", settings=settings)
    async with serving(interceptor, tmp_path, tls=True) as (_, channel):
        assert await ask(channel, "Unary") == [b"message"]
    async with serving(interceptor, tmp_path) as (service, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Unary")
    assert (error.value.details(), service.served) == ("hosts.group_refused", [])


async def test_a_late_decision_denies(tmp_path: Path) -> None:
    settings = msgspec.structs.replace(SETTINGS, timeout_s=0.05)
    interceptor = RingfenceInterceptor(ScriptedGatekeeper(delay_s=5), upstream="service", settings=settings)
    async with serving(interceptor, tmp_path) as (service, channel):
        with pytest.raises(grpc.aio.AioRpcError) as error:
            await ask(channel, "Unary")
    assert (error.value.code(), service.served) == (grpc.StatusCode.DEADLINE_EXCEEDED, [])


async def test_a_handler_that_would_block_is_a_mistake() -> None:
    interceptor = RingfenceInterceptor(ScriptedGatekeeper(), upstream="service", settings=SETTINGS)

    async def continuation(_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)

    class Details:
        method = "/t.S/Unary"
        invocation_metadata = ()

    with pytest.raises(UsageError):
        await interceptor.intercept_service(continuation, Details())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:127.0.0.1:80", "127.0.0.1"),
        ("ipv6:%5B::1%5D:80", "::1"),
        ("ipv6:[::1]:80", "::1"),
        ("unix:", "unix"),
        ("vsock:1:2", ""),
    ],
)
def test_a_peer_is_named_by_its_address(peer: str, address: str) -> None:
    assert peer_address(peer) == address


ISSUER = AssertionIssuer("rf1gateway", bytes(32))
NOW = 1_790_000_000


def asserted(method: str, body: bytes | None, number: int = 0) -> tuple[tuple[str, str], ...]:
    digest = "" if body is None else httpsig.content_digest(framed(body))
    target = httpsig.Target("POST", "h.test", f"/t.S/{method}")
    token = ISSUER.issue(target, "service", Subject("rf1caller", content_digest=digest), now=NOW, jti=f"{number:022}")
    return ((ASSERTION, token),)


@pytest.fixture
def upstream(tmp_path: Path) -> AssertedInterceptor:
    (tmp_path / "jwks.json").write_bytes(published_keys([ISSUER.public]))
    settings = UpstreamSettings("service", "rf1gateway", str(tmp_path / "jwks.json"))
    return AssertedInterceptor(settings, authority="h.test", streams={"/t.S/Chat"}, clock=lambda: float(NOW))


async def test_an_upstream_serves_what_was_asserted(tmp_path: Path, upstream: AssertedInterceptor) -> None:
    async with serving(upstream, tmp_path) as (service, channel):
        assert await ask(channel, "Unary", asserted("Unary", b"message")) == [b"message"]
        assert await ask(channel, "Pour", asserted("Pour", b"message", 1)) == [b"message"] * 2
        assert await ask(channel, "Chat", asserted("Chat", None, 2)) == [b"message"]
        for method, metadata, code in (
            ("Unary", (), "assertion.missing"),
            ("Unary", asserted("Unary", b"message"), "assertion.replayed"),
            ("Unary", asserted("Unary", b"massage", 3), "assertion.body_mismatch"),
            ("Unary", asserted("Unary", None, 4), "assertion.body_mismatch"),
            ("Unary", asserted("Pour", b"message", 5), "assertion.wrong_target"),
            ("Collect", asserted("Collect", None, 6), "assertion.body_mismatch"),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ask(channel, method, metadata)
            assert error.value.details() == code
    assert service.served == ["unary", "pour", "chat"]


async def test_a_handler_reads_the_claims_of_its_call(tmp_path: Path, upstream: AssertedInterceptor) -> None:
    class Reading(Service):
        async def unary(self, request: bytes, context: Any) -> bytes:  # noqa: ARG002
            return claims.get().sub.encode()

    server = grpc.aio.server(interceptors=[upstream])
    server.add_generic_rpc_handlers((Reading().handlers(),))
    server.add_insecure_port(f"unix:{tmp_path}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{tmp_path}/s") as channel:
        assert await ask(channel, "Unary", asserted("Unary", b"message")) == [b"rf1caller"]
    await server.stop(None)
