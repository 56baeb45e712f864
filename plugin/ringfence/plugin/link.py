"""The gateway's link to its host: keeps a channel to the agent and a fresh attestation result.

The verifier runs here, apart from the decision: it asks the agent for evidence, appraises it, and issues the result
that sessions carry. Quotes are never made on the request path.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from ringfence import attestation, audit
from ringfence.agent.api.errors import AGENT_TIMEOUT, AGENT_UNAVAILABLE, CHANNEL_UNKNOWN
from ringfence.agent.api.grants import CHANNEL_PURPOSE, GRANT_KEY, PROOF_KEY
from ringfence.agent.api.jobs import HOST_PROOF_CONTEXT, host_proof_message
from ringfence.agent.api.remote import RemoteAgent
from ringfence.attestation import evidence, result
from ringfence.crypto import COMPOSITE, Signer, mac
from ringfence.crypto.handshake import NO_SHARES, Established, Initiator, Random, Shares
from ringfence.errors import RingfenceError
from ringfence.plugin.host import Attested, DeviceTrust, Host, Unreachable, plain_trust
from ringfence.trust import Role, TrustList

RETRY_S: Final = 1.0
# The agent has restarted or is away: after a renewal the next request meets a new channel, or is denied at once.
LINK_LOST: Final = frozenset({CHANNEL_UNKNOWN.name, AGENT_UNAVAILABLE.name})
AWAY: Final = LINK_LOST | {AGENT_TIMEOUT.name}
"""Nobody answers for the host, so nothing new is known of it."""
_NONCE = 32


@dataclass(frozen=True, slots=True)
class Verifier:
    """The verifier of this gateway: its key, what it expects, and how long its results live."""

    signer: Signer
    references: attestation.ReferenceValues
    lifetime_s: int


class HostLink:
    """Talks to one agent. `host` is the state that decisions use; `keep_fresh` renews it until cancelled.

    `tell` hears one sentence whenever the host's status changes.
    """

    def __init__(
        self,
        remote: RemoteAgent,
        *,
        agent: str,
        signer: Signer,
        trust: Callable[[], TrustList],
        verifier: Verifier,
        log: audit.AuditLog,
        tell: Callable[[str], None],
        clock_ns: Callable[[], int],
        random: Random,
        shares: Shares = NO_SHARES,
        rate: Callable[[result.AttestationResult, int], DeviceTrust] = plain_trust,
    ) -> None:
        self.remote = remote
        self._agent = agent
        self._signer = signer
        self._trust = trust
        self._verifier = verifier
        self._log = log
        self._tell = tell
        self._clock_ns = clock_ns
        self._random = random
        self._shares = shares
        self._rate = rate
        self._renewing = asyncio.Lock()
        self._host: Host | None = None
        self._replaced = asyncio.Event()

    @property
    def latest(self) -> Host | None:
        """The host's state as it was last seen, without asking anybody."""
        return self._host

    def _now(self) -> int:
        return self._clock_ns() // 1_000_000_000

    async def host(self) -> Host:
        """The host's state. Attests it first only where none is known yet or the result has run out.

        An agent that is away is not asked here: `keep_fresh` does, so that callers cannot make the gateway dial.
        """
        held = self._host
        if held is None or (isinstance(held, Attested) and not self._valid(held)):
            return await self.renew(held)
        return held

    def _valid(self, host: Attested) -> bool:
        # Also after the clock has gone back: the result would count as one from the future until it caught up.
        return host.result.issued_at <= self._now() < host.result.expires_at

    async def renew(self, stale: Host | None) -> Host:
        """Opens a channel and attests the host anew, unless somebody else has replaced `stale` meanwhile."""
        async with self._renewing:
            if self._host is not None and self._host is not stale:
                return self._host
            try:
                renewed: Host = await self._attest()
            except RingfenceError as error:
                renewed = Unreachable(self._agent, error)
            if not _same_fault(self._host, renewed):
                await self._record(renewed)
            if self._host is None or _standing(self._host) != _standing(renewed):
                self._tell(_sentence(renewed))
            self._host = renewed
            self._replaced.set()
            return renewed

    async def keep_fresh(self) -> None:
        """Renews the state at half the result's life, and every second while the agent is away."""
        while True:
            held = await self.host()
            self._replaced.clear()
            pause = max(1, (held.result.expires_at - self._now()) / 2) if isinstance(held, Attested) else RETRY_S
            # Woken early when a request finds the agent gone; otherwise it would stay unknown until the result is old.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._replaced.wait()
            await self.renew(held)

    async def prove_host(self, host: Attested, nonce: bytes) -> bytes:
        """The agent's proof that it takes part in the session with this nonce, checked before it is passed on."""
        try:
            proof = await self._ask_for_proof(host, nonce)
        except RingfenceError as error:
            if error.code.name not in LINK_LOST:
                raise
            renewed = await self.renew(host)
            if not isinstance(renewed, Attested):
                raise renewed.fault from error
            proof = await self._ask_for_proof(renewed, nonce)
        message = host_proof_message(nonce, self._signer.key_id)
        COMPOSITE.verify(host.result.agent_key, message, proof, HOST_PROOF_CONTEXT)
        return proof

    async def _ask_for_proof(self, host: Attested, nonce: bytes) -> bytes:
        return await self.remote.prove_host(host.channel, nonce, mac(host.proof_key, nonce))

    async def _attest(self) -> Attested:
        public = self._trust().find(Role.AGENT, self._agent, self._now()).public
        channel = await self._open_channel(public)
        nonce = self._random(_NONCE)
        collected = evidence.decode(await self.remote.collect_evidence(nonce))
        now = self._now()
        appraisal = attestation.appraise(
            collected, nonce=nonce, agent_key=public, references=self._verifier.references, now=now
        )
        concluded = attestation.conclude(
            appraisal, issuer=self._verifier.signer.key_id, lifetime_s=self._verifier.lifetime_s
        )
        token = result.issue(concluded, self._verifier.signer)
        return Attested(
            agent=self._agent,
            result=concluded,
            token=token,
            digest=result.digest(token),
            channel=channel.name,
            trust=self._rate(concluded, now),
            grant_key=channel.key(GRANT_KEY),
            proof_key=channel.key(PROOF_KEY),
        )

    async def _open_channel(self, public: bytes) -> Established:
        initiator = Initiator.start(
            self._signer, public, CHANNEL_PURPOSE, now=self._now(), random=self._random, shares=self._shares
        )
        return initiator.finish(await self.remote.open_channel(initiator.message))

    async def _record(self, host: Host) -> None:
        verifier = self._verifier.signer.key_id
        if isinstance(host, Attested):
            record = audit.Attestation(
                event="issued",
                host_key_id=host.agent,
                status=host.result.status.value,
                verifier_key_id=verifier,
                result_digest=host.digest,
                expires_at=host.result.expires_at,
            )
        else:
            record = audit.Attestation(
                event="refused",
                host_key_id=host.agent,
                status="none",
                code=host.fault.code.name,
                verifier_key_id=verifier,
            )
        # Decisions have their own record; without this one the log is full or broken, and they will say so.
        with contextlib.suppress(audit.AuditError):
            await self._log.durable(self._log.append(record))


def _same_fault(before: Host | None, after: Host) -> bool:
    # An agent that stays away is one event, not one a second.
    return (
        isinstance(before, Unreachable)
        and isinstance(after, Unreachable)
        and before.fault.code.name == after.fault.code.name
    )


def _standing(host: Host) -> str:
    return host.result.status.value if isinstance(host, Attested) else host.fault.code.name


def _sentence(host: Host) -> str:
    if isinstance(host, Unreachable):
        return f"the host {host.agent} is refused: {host.fault}"
    if host.result.status is attestation.Status.AFFIRMING:
        return f"the host {host.agent} is attested"
    return f"the host {host.agent} has the status {host.result.status.value}: {' '.join(host.result.reasons)}"
