"""The channels that gateways have opened to this agent; they live in memory and die with the process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ringfence.agent.api.errors import CHANNEL_REFUSED, CHANNEL_UNKNOWN, ChannelError
from ringfence.agent.api.grants import CHANNEL_PURPOSE, GRANT_KEY, PROOF_KEY
from ringfence.agent.spent import SpentIds
from ringfence.crypto import Signer
from ringfence.crypto.handshake import HELLO_LIFETIME_S, NO_SHARES, Random, Received, Shares
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Pin, Role, TrustList

LIFETIME_S: Final = 3600
CAPACITY: Final = 16


@dataclass(frozen=True, slots=True)
class Channel:
    """A gateway's channel and the keys that authenticate what comes over it."""

    name: str
    gateway: str
    expires_at: int
    grant_key: bytes = field(repr=False)
    proof_key: bytes = field(repr=False)


class Channels:
    """Opens and finds channels. A gateway that opens more than its share drops its own oldest."""

    def __init__(
        self, signer: Signer, trust: Callable[[], TrustList], random: Random, shares: Shares = NO_SHARES
    ) -> None:
        self._signer = signer
        self._trust = trust
        self._random = random
        self._shares = shares
        self._channels: dict[str, Channel] = {}
        self._hellos = SpentIds()

    def open(self, hello: bytes, *, now: int) -> bytes:
        """The reply to a pinned gateway's hello. Raises `ChannelError` or `CryptoError`."""
        received = Received.parse(hello)
        pin = self._pin(received.hello.initiator, now)
        greeted = received.authenticate(pin.public, self._signer, CHANNEL_PURPOSE, now=now)
        nonce = f"{pin.key_id}:{received.hello.nonce.hex()}"
        if not self._hellos.spend(nonce, expires_at=received.hello.created_at + HELLO_LIFETIME_S, now=now):
            raise ChannelError(CHANNEL_REFUSED, "The hello was answered before.", field="nonce")
        responder = greeted.answer(
            self._signer,
            name=self._random(16).hex(),
            expires_at=now + LIFETIME_S,
            random=self._random,
            shares=self._shares,
        )
        message, established = responder.finish(self._signer, b"")
        mine = [channel.name for channel in self._channels.values() if channel.gateway == pin.key_id]
        for name in mine[: max(0, len(mine) + 1 - CAPACITY)]:
            del self._channels[name]
        self._channels[established.name] = Channel(
            established.name, pin.key_id, established.expires_at, established.key(GRANT_KEY), established.key(PROOF_KEY)
        )
        return message

    def find(self, name: str, *, now: int) -> Channel:
        """The live channel called `name`; raises `channel.unknown`, or `channel.refused` without its gateway's pin."""
        channel = self._channels.get(name)
        if channel is None or channel.expires_at <= now:
            raise ChannelError(
                CHANNEL_UNKNOWN,
                "There is no such channel; the agent may have restarted.",
                hint="Send the request again in a moment.",
            )
        self._pin(channel.gateway, now)
        return channel

    def _pin(self, gateway: str, now: int) -> Pin:
        try:
            return self._trust().find(Role.GATEWAY, gateway, now)
        except TrustError as error:
            raise ChannelError(
                CHANNEL_REFUSED,
                "The key is not pinned here as a gateway's.",
                field="gateway",
                hint="Have the host's operator run `ringfence trust add gateway`.",
            ) from error
