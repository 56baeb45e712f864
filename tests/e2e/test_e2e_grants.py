"""What somebody with a stolen gateway key can and cannot do at the agent's own socket: deny, never invent or repeat."""

from __future__ import annotations

import secrets
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

from ringfence import audit
from ringfence.agent.api.grants import CHANNEL_PURPOSE, GRANT_KEY, Grant, seal_grant
from ringfence.agent.api.jobs import JobLimits, JobStatement, check_receipt, parse_submission, sign_job
from ringfence.agent.api.remote import Finished, RemoteAgent
from ringfence.client.local import LocalInstallation
from ringfence.crypto import Signer, digest
from ringfence.crypto.handshake import Established, Initiator
from ringfence.errors import RingfenceError
from ringfence.trust import KeyPair, generate

pytestmark = pytest.mark.usefixtures("verified")


@dataclass(frozen=True, slots=True)
class Thief:
    """A holder of the gateway's private key, with a channel to the agent and one captured submission of the client."""

    remote: RemoteAgent
    channel: Established
    local: LocalInstallation
    captured: bytes

    def grant(self, body: bytes | None = None, **changes: Any) -> Grant:
        """A grant as the gateway would make it for the captured submission, for another body, or with `changes`."""
        now = int(time.time())
        content = self.captured if body is None else body
        _, statement = parse_submission(self.captured)
        made = Grant(
            grant_id=secrets.token_hex(16),
            audience=self.local.keys["agent"].key_id,
            gateway=self.local.keys["gateway"].key_id,
            session="0" * 32,
            principal=statement.principal,
            body_digest=digest(content),
            limits=statement.limits,
            bundle_digest="0" * 64,
            attestation_digest="0" * 64,
            issued_at=now,
            expires_at=now + 60,
        )
        return msgspec.structs.replace(made, **changes)

    async def send(self, grant: Grant, body: bytes | None = None, *, key: bytes | None = None) -> Finished:
        encoded, tag = seal_grant(key or self.channel.key(GRANT_KEY), grant)
        return await self.deliver(encoded, tag, body)

    async def deliver(self, encoded: bytes, tag: bytes, body: bytes | None = None) -> Finished:
        content = self.captured if body is None else body
        return await self.remote.submit(self.channel.name, encoded, tag, content, timeout_s=30)


async def _channel(remote: RemoteAgent, local: LocalInstallation, signer: Signer) -> Established:
    now = int(time.time())
    public = local.keys["agent"].public
    initiator = Initiator.start(signer, public, CHANNEL_PURPOSE, now=now, random=secrets.token_bytes)
    return initiator.finish(await remote.open_channel(initiator.message))


def _job(local: LocalInstallation, signer: Signer, module: bytes, limits: JobLimits, **changes: Any) -> bytes:
    now = int(time.time())
    statement = JobStatement(
        host=local.keys["agent"].key_id,
        principal=signer.key_id,
        nonce=secrets.token_bytes(16),
        issued_at=now,
        expires_at=now + 60,
        module_digest=digest(module),
        input_digest=digest(b""),
        limits=limits,
    )
    return sign_job(signer, msgspec.structs.replace(statement, **changes), module, b"")


@pytest.fixture
async def thief(local: LocalInstallation, nothing: bytes, limits: JobLimits) -> AsyncIterator[Thief]:
    remote = RemoteAgent(local.socket("agent"))
    captured = _job(local, local.keys["client"], nothing, limits)
    yield Thief(remote, await _channel(remote, local, local.keys["gateway"]), local, captured)
    await remote.close()


@pytest.fixture
def refused(local: LocalInstallation, records: Callable[..., list[Any]]) -> Callable[..., Any]:
    """Sees that an attempt is refused with a code, that the agent recorded so, and that nothing ran."""

    async def check(attempt: Any, code: str) -> None:
        before = records(local, "agent", audit.Job)
        with pytest.raises(RingfenceError) as caught:
            await attempt
        assert caught.value.code.name == code
        written = records(local, "agent", audit.Job)[len(before) :]
        assert [(record.event, record.code) for record in written] == [("refused", code)]

    return check


@pytest.fixture
def verified(local: LocalInstallation, verify_log: Callable[..., None]) -> Any:
    """Every test of this module leaves a log that holds."""
    yield
    verify_log(local, "agent")


async def test_a_good_grant_runs_once(thief: Thief, refused: Callable[..., Any]) -> None:
    # Without this one, the refusals below would prove nothing.
    grant = thief.grant()
    done = await thief.send(grant)
    assert done.failure is None
    receipt = check_receipt(done.receipt, done.signature, agent=thief.local.keys["agent"].public)
    assert receipt.grant_id == grant.grant_id

    await refused(thief.send(grant), "grant.already_spent")
    await refused(thief.send(thief.grant()), "job.replayed")


async def test_a_forged_grant(thief: Thief, refused: Callable[..., Any]) -> None:
    encoded, tag = seal_grant(thief.channel.key(GRANT_KEY), thief.grant())
    await refused(thief.send(thief.grant(), key=secrets.token_bytes(32)), "grant.forged")
    await refused(thief.deliver(encoded, bytes([tag[0] ^ 1]) + tag[1:]), "grant.forged")
    await refused(thief.deliver(encoded, tag[:16]), "grant.forged")
    await refused(thief.deliver(encoded, b""), "grant.forged")
    await refused(thief.deliver(encoded[:-1] + bytes([encoded[-1] ^ 1]), tag), "grant.forged")
    await refused(thief.deliver(b"", b""), "grant.forged")
    await refused(thief.deliver(encoded * 20, tag), "grant.malformed")


async def test_a_grant_sealed_for_another_channel(thief: Thief, refused: Callable[..., Any]) -> None:
    other = await _channel(thief.remote, thief.local, thief.local.keys["gateway"])
    await refused(thief.send(thief.grant(), key=other.key(GRANT_KEY)), "grant.forged")


@pytest.mark.parametrize(
    ("issued", "expires"), [(-120, -60), (-60, 0), (0, 61), (-1, 3600), (120, 180), (0, 0), (10, -10)]
)
async def test_an_expired_grant(thief: Thief, refused: Callable[..., Any], issued: int, expires: int) -> None:
    now = int(time.time())
    grant = thief.grant(issued_at=now + issued, expires_at=now + expires)
    await refused(thief.send(grant), "grant.expired")


async def test_a_foreign_grant(thief: Thief, refused: Callable[..., Any]) -> None:
    keys = thief.local.keys
    await refused(thief.send(thief.grant(audience=keys["client"].key_id)), "grant.wrong_audience")
    await refused(thief.send(thief.grant(gateway=keys["client"].key_id)), "grant.wrong_audience")


async def test_a_grant_for_another_body(thief: Thief, refused: Callable[..., Any], nothing: bytes) -> None:
    other = _job(thief.local, thief.local.keys["client"], nothing, thief.grant().limits)
    await refused(thief.send(thief.grant(), other), "grant.body_mismatch")
    await refused(thief.send(thief.grant(), thief.captured[:-1]), "grant.body_mismatch")
    await refused(thief.send(thief.grant(), b""), "grant.body_mismatch")


async def test_a_channel_that_nobody_opened(thief: Thief, refused: Callable[..., Any]) -> None:
    await refused(replace(thief, channel=replace(thief.channel, name="0" * 32)).send(thief.grant()), "channel.unknown")


async def test_a_channel_needs_a_pinned_gateway_s_key(thief: Thief, tmp_path: Any) -> None:
    stranger: KeyPair = generate(tmp_path, "stranger")
    for signer in (stranger, thief.local.keys["client"], thief.local.keys["agent"]):
        with pytest.raises(RingfenceError) as caught:
            await _channel(thief.remote, thief.local, signer)
        assert caught.value.code.name == "channel.refused"


async def test_a_captured_hello_opens_nothing_twice(thief: Thief) -> None:
    gateway, agent = thief.local.keys["gateway"], thief.local.keys["agent"]

    def hello(purpose: str, age_s: int) -> bytes:
        now = int(time.time()) - age_s
        return Initiator.start(gateway, agent.public, purpose, now=now, random=secrets.token_bytes).message

    captured = hello(CHANNEL_PURPOSE, 0)
    await thief.remote.open_channel(captured)
    for message, code in (
        (captured, "channel.refused"),
        (hello(CHANNEL_PURPOSE, 120), "handshake.stale"),
        (hello("session", 0), "handshake.misdirected"),
        (captured[:-9], "handshake.malformed"),
    ):
        with pytest.raises(RingfenceError) as caught:
            await thief.remote.open_channel(message)
        assert caught.value.code.name == code


async def test_a_stolen_gateway_key_cannot_invent_a_job(
    thief: Thief, refused: Callable[..., Any], nothing: bytes, endless: bytes, limits: JobLimits
) -> None:
    keys, local = thief.local.keys, thief.local

    async def invented(body: bytes, code: str, **grant: Any) -> None:
        await refused(thief.send(thief.grant(body, **grant), body), code)

    await invented(_job(local, keys["gateway"], nothing, limits), "job.principal_unknown")
    as_client = _job(local, keys["gateway"], nothing, limits, principal=keys["client"].key_id)
    await invented(as_client, "job.signature_invalid")
    # The client's own signature, over something else than what is sent.
    signed = msgspec.msgpack.decode(thief.captured)
    await invented(msgspec.msgpack.encode(signed | {"module": endless}), "job.digest_mismatch")
    await invented(msgspec.msgpack.encode(signed | {"input": b"more"}), "job.digest_mismatch")
    larger = msgspec.structs.replace(limits, memory_bytes=limits.memory_bytes * 2)
    statement = msgspec.structs.replace(parse_submission(thief.captured)[1], limits=larger)
    altered = signed | {"statement": msgspec.msgpack.encode(statement)}
    await invented(msgspec.msgpack.encode(altered), "job.signature_invalid")
    await invented(thief.captured, "job.principal_unknown", principal=keys["gateway"].key_id)


async def test_a_caller_s_job_holds_for_its_host_time_and_limits_only(
    thief: Thief, refused: Callable[..., Any], nothing: bytes, limits: JobLimits
) -> None:
    client, now = thief.local.keys["client"], int(time.time())

    async def sent(code: str, grant: dict[str, Any] | None = None, **statement: Any) -> None:
        body = _job(thief.local, client, nothing, **({"limits": limits} | statement))
        await refused(thief.send(thief.grant(body, **(grant or {})), body), code)

    await sent("job.wrong_host", host=client.key_id)
    await sent("job.expired", issued_at=now - 120, expires_at=now - 60)
    await sent("job.expired", expires_at=now + 86_400)
    await sent("job.malformed", nonce=b"short")
    smaller = msgspec.structs.replace(limits, memory_bytes=limits.memory_bytes - 1)
    await sent("job.limits_exceed_grant", {"limits": smaller})
    await sent("job.malformed", limits=msgspec.structs.replace(limits, memory_bytes=-1))
    longer = msgspec.structs.replace(limits, deadline_ms=86_400_000)
    await sent("job.limits_exceed_grant", limits=longer)
    await sent("job.limits_exceed_grant", {"limits": longer}, limits=longer)  # more than the host itself gives


async def test_a_spent_grant_stays_spent_when_the_agent_is_killed(
    thief: Thief, refused: Callable[..., Any], stop: Callable[..., None]
) -> None:
    grant = thief.grant()
    assert (await thief.send(grant)).failure is None
    stop(thief.local, "agent", signal.SIGKILL)
    thief.local.start("agent")

    await refused(thief.send(grant), "channel.unknown")
    again = replace(thief, channel=await _channel(thief.remote, thief.local, thief.local.keys["gateway"]))
    await refused(again.send(grant), "grant.already_spent")
    await refused(again.send(again.grant()), "job.replayed")
