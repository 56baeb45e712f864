"""Channels: only a gateway that is pinned now has one, and what authenticates it is shown nowhere."""

from __future__ import annotations

import secrets

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ringfence.agent.api.grants import CHANNEL_PURPOSE, GRANT_KEY, PROOF_KEY
from ringfence.agent.channels import CAPACITY, LIFETIME_S, Channels
from ringfence.crypto import COMPOSITE, CryptoError
from ringfence.crypto.handshake import HELLO_LIFETIME_S, Established, Initiator
from ringfence.errors import RingfenceError
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
GATEWAY, OTHER, HOST, STRANGER = (KeyPair(*COMPOSITE.generate()) for _ in range(4))
PINNED = TrustList(
    (Pin("gateway", Role.GATEWAY, GATEWAY.public, NOW), Pin("stranger", Role.CLIENT, STRANGER.public, NOW))
)


class Agent:
    """Channels of an agent whose trust list can change."""

    def __init__(self, trust: TrustList = PINNED) -> None:
        self.trust = trust
        self.channels = Channels(HOST, lambda: self.trust, secrets.token_bytes)

    def connect(self, gateway: KeyPair = GATEWAY, *, purpose: str = CHANNEL_PURPOSE, now: int = NOW) -> Established:
        initiator = Initiator.start(gateway, HOST.public, purpose, now=NOW, random=secrets.token_bytes)
        return initiator.finish(self.channels.open(initiator.message, now=now))

    def refuse_to_connect(self, gateway: KeyPair, *, purpose: str = CHANNEL_PURPOSE, now: int = NOW) -> str:
        with pytest.raises(RingfenceError) as caught:
            self.connect(gateway, purpose=purpose, now=now)
        return caught.value.code.name

    def refuse_to_find(self, name: str, *, now: int = NOW) -> str:
        with pytest.raises(RingfenceError) as caught:
            self.channels.find(name, now=now)
        return caught.value.code.name


def test_both_ends_of_a_channel_hold_its_keys() -> None:
    agent = Agent()
    established = agent.connect()
    channel = agent.channels.find(established.name, now=NOW)
    assert channel.gateway == GATEWAY.key_id
    assert (channel.grant_key, channel.proof_key) == (established.key(GRANT_KEY), established.key(PROOF_KEY))
    assert channel.grant_key != channel.proof_key
    for secret in (channel.grant_key, channel.proof_key):
        assert secret.hex() not in repr(channel)
        assert repr(secret) not in repr(channel)


@pytest.mark.parametrize("key", [OTHER, STRANGER])
def test_a_key_that_is_not_pinned_as_a_gateways_has_no_channel(key: KeyPair) -> None:
    assert Agent().refuse_to_connect(key) == "channel.refused"


def test_a_pin_that_has_expired_opens_no_channel() -> None:
    expired = TrustList((Pin("gateway", Role.GATEWAY, GATEWAY.public, NOW, expires_at=NOW),))
    assert Agent(expired).refuse_to_connect(GATEWAY) == "channel.refused"


def test_a_gateway_that_is_no_longer_pinned_loses_its_channel() -> None:
    agent = Agent()
    name = agent.connect().name
    agent.trust = TrustList()
    assert agent.refuse_to_find(name) == "channel.refused"
    agent.trust = PINNED
    agent.channels.find(name, now=NOW)


def test_a_hello_for_a_session_or_of_another_time_opens_no_channel() -> None:
    assert Agent().refuse_to_connect(GATEWAY, purpose="session") == "handshake.misdirected"
    assert Agent().refuse_to_connect(GATEWAY, now=NOW + HELLO_LIFETIME_S + 1) == "handshake.stale"


def test_a_hello_for_another_host_opens_no_channel() -> None:
    relayed = Initiator.start(GATEWAY, OTHER.public, CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes)
    with pytest.raises(CryptoError, match="misdirected"):
        Agent().channels.open(relayed.message, now=NOW)


@pytest.mark.parametrize("later", [0, 1, HELLO_LIFETIME_S])
def test_a_hello_opens_one_channel(later: int) -> None:
    agent = Agent()
    hello = Initiator.start(GATEWAY, HOST.public, CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes).message
    agent.channels.open(hello, now=NOW)
    with pytest.raises(RingfenceError) as caught:
        agent.channels.open(hello, now=NOW + later)
    assert caught.value.code.name == "channel.refused"


@given(message=st.binary(max_size=100))
@example(message=b"")
@settings(max_examples=50, deadline=None)
def test_garbage_opens_no_channel(message: bytes) -> None:
    with pytest.raises(CryptoError):
        Agent().channels.open(message, now=NOW)


def test_a_channel_ends_and_an_unknown_one_was_never_there() -> None:
    agent = Agent()
    name = agent.connect().name
    agent.channels.find(name, now=NOW + LIFETIME_S - 1)
    assert agent.refuse_to_find(name, now=NOW + LIFETIME_S) == "channel.unknown"
    assert agent.refuse_to_find("") == "channel.unknown"
    assert Agent().refuse_to_find(name) == "channel.unknown"
    # It reaches callers, who have no channel themselves.
    with pytest.raises(RingfenceError, match=r"Send the request again in a moment\.$"):
        agent.channels.find("", now=NOW)


def test_the_oldest_channel_goes_when_there_are_too_many() -> None:
    agent = Agent()
    names = [agent.connect().name for _ in range(CAPACITY)]
    agent.channels.find(names[0], now=NOW)
    names.append(agent.connect().name)
    assert agent.refuse_to_find(names[0]) == "channel.unknown"
    for name in names[1:]:
        agent.channels.find(name, now=NOW)
