"""The gateway's link to its host: it says in one line when the host's status changes, and is quiet otherwise."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from ringfence import audit
from ringfence.agent.api.errors import AGENT_UNAVAILABLE, ChannelError
from ringfence.agent.api.remote import RemoteAgent
from ringfence.agent.channels import Channels
from ringfence.attestation import NoTpmAttester, ReferenceValues
from ringfence.attestation.evidence import encode
from ringfence.crypto import COMPOSITE
from ringfence.plugin.link import HostLink, Verifier
from ringfence.trust import KeyPair, Pin, Role, TrustList

GATEWAY, AGENT, VERIFIER = (KeyPair(*COMPOSITE.generate()) for _ in range(3))


class Remote:
    """An agent without a TPM, which can be away."""

    def __init__(self) -> None:
        pinned = TrustList((Pin("gateway", Role.GATEWAY, GATEWAY.public, 0),))
        self.channels = Channels(AGENT, lambda: pinned, secrets.token_bytes)
        self.away = False

    async def open_channel(self, hello: bytes) -> bytes:
        if self.away:
            raise ChannelError(AGENT_UNAVAILABLE, "The agent does not answer.", hint="Start it.")
        return self.channels.open(hello, now=int(time.time()))

    async def collect_evidence(self, nonce: bytes) -> bytes:
        return encode(await NoTpmAttester("it has no TPM").collect(nonce, AGENT.public))


class Bench:
    """A link to that agent, and what it has said."""

    def __init__(self, log: audit.AuditLog) -> None:
        self.remote = Remote()
        self.pins = TrustList((Pin("host", Role.AGENT, AGENT.public, 0),))
        self.said: list[str] = []
        self.link = HostLink(
            cast(RemoteAgent, self.remote),
            agent=AGENT.key_id,
            signer=GATEWAY,
            trust=lambda: self.pins,
            verifier=Verifier(VERIFIER, ReferenceValues({AGENT.key_id: frozenset()}), 60),
            log=log,
            tell=self.said.append,
            clock_ns=time.time_ns,
            random=secrets.token_bytes,
        )

    async def renew(self) -> list[str]:
        """What is said during one more renewal."""
        before = len(self.said)
        await self.link.renew(await self.link.host())
        return self.said[before:]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with audit.AuditLog.open(tmp_path, GATEWAY, clock_ns=time.time_ns, verify=COMPOSITE.verify) as log:
        yield Bench(log)


async def test_each_change_of_the_host_is_said_once(bench: Bench) -> None:
    host = f"the host {AGENT.key_id}"
    bench.remote.away = True
    await bench.link.host()
    assert bench.said == [f"{host} is refused: agent.unavailable: The agent does not answer. Start it."]
    assert await bench.renew() == []

    bench.remote.away = False
    assert await bench.renew() == [f"{host} has the status none: The host is not attested: it has no TPM"]
    assert await bench.renew() == []

    bench.pins = TrustList()
    (refused,) = await bench.renew()
    assert refused.startswith(f"{host} is refused: trust.unknown_key (key_id): the agent key ")
    bench.remote.away = True
    assert await bench.renew() == []
