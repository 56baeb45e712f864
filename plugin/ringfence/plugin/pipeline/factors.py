"""The pipeline that adds identity factors to a session: parse, session, signature, integrity, identity. No I/O.

The factors are verified between `begin` and `finish`, by whoever may wait for it. Evidence is bound to the session and
to the nonce of the very request that carries it, so that it proves nothing in another session or a second time. What is
proven counts once the decision is on record: `keep` is for whoever has seen to that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import structs

from ringfence import httpsig
from ringfence.errors import RingfenceError
from ringfence.plugin.api import step_up_challenge
from ringfence.plugin.errors import REQUEST_REPLAYED, GateError
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.identity.errors import EVIDENCE_MALFORMED
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.entry import Entry
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.stages import sight
from ringfence.plugin.sessions.port import Session

ACTION: Final = "AddFactors"
MAX_PIECES: Final = 9
NONCE: Final = "nonce"
"""Beside the evidence of a browser's page: what it is bound to, in place of a signature's nonce.

8 bytes say when it was drawn, in seconds since the epoch (big-endian); 8 to 24 random ones follow.
"""
MAX_FACTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a request brings: pieces of evidence by factor, and what they must be bound to."""

    session: Session
    pieces: dict[str, bytes] = field(repr=False)
    binding: Binding


@dataclass(frozen=True, slots=True)
class Begun:
    """A request whose sender is authenticated, while its evidence is verified."""

    docket: Docket
    evidence: Evidence


class FactorPipeline:
    """Decides whether evidence adds factors to a session."""

    def __init__(self, means: Means) -> None:
        self._means = means
        self._entry = Entry(means)

    def begin(self, inbound: Inbound, *, now: int) -> Begun | Decided[Session]:
        """What is to be verified, or the denial of a request that does not get that far."""
        means = self._means
        docket = Docket(
            means.random(16).hex(),
            "factor",
            means.ticks_ns,
            action=ACTION,
            resource="",
            source=inbound.source,
            bundle_digest=means.decider.bundle_digest,
        )
        try:
            evidence = self._read(docket, inbound, now)
        except RingfenceError as error:
            return self._closed(docket, _raising(error), now)
        docket.begin("identity")
        return Begun(docket, evidence)

    def finish(self, begun: Begun, proven: tuple[Proven, ...] | RingfenceError, *, now: int) -> Decided[Session]:
        """The session as it will be with what was proven, or the denial."""
        if isinstance(proven, RingfenceError):
            return self._closed(begun.docket, _raising(proven), now)
        return self._closed(begun.docket, lambda: self._add(begun, proven, now), now)

    def keep(self, name: str, proven: tuple[Proven, ...], *, now: int) -> Session:
        """Adds what was proven to the session. Raises `session.*` where it has ended, `identity.evidence_malformed`."""
        changed = self._with(name, proven, now)
        self._means.sessions.change(changed)
        return changed

    def _read(self, docket: Docket, inbound: Inbound, now: int) -> Evidence:
        session, presented = self._entry.authenticate(docket, inbound, now)
        shown = self._entry.accept(docket, inbound, session, presented, delegated=False, now=now)
        pieces = read_evidence(shown.body if isinstance(shown.body, bytes) else b"")
        nonce = self._browser_nonce(docket, session, pieces, now) if presented is None else presented.nonce
        binding = Binding(step_up_challenge(session.name, nonce), inbound.channel.thumbprint, session.principal)
        return Evidence(session, pieces, binding)

    def _browser_nonce(self, docket: Docket, session: Session, pieces: dict[str, bytes], now: int) -> str:
        """A browser signs no request, so its page sends the nonce that its evidence is bound to; it counts once.

        The time in it stops whoever has seen evidence from showing it again once the nonce is forgotten.
        """
        drawn = pieces.pop(NONCE, b"")
        at = int.from_bytes(drawn[:8])
        until = at + httpsig.MAX_LIFETIME_S + httpsig.SKEW_S
        if not 16 <= len(drawn) <= 32 or not pieces or not at - httpsig.SKEW_S <= now < until:
            raise GateError(
                EVIDENCE_MALFORMED,
                "The evidence has no nonce of 16 to 32 bytes that begins with the time it was drawn at, lately.",
                field=NONCE,
                hint="Draw a new one, and check the clocks.",
            )
        nonce = f"{session.name}:{drawn.hex()}"
        self._means.replay.spend(session.principal, nonce, until=until, now=now, code=REQUEST_REPLAYED)
        docket.nonce, docket.nonce_until = nonce, until
        return drawn.hex()

    def _add(self, begun: Begun, proven: tuple[Proven, ...], now: int) -> Session:
        changed = self._with(begun.evidence.session.name, proven, now)
        begun.docket.reasons = tuple(oddity for proof in proven for oddity in proof.oddities)
        for _ in begun.docket.reasons:
            # What is odd about a proof that holds, such as a counter that went back, raises the risk as a refusal does.
            self._means.risk.refused(changed.principal, authenticated=True, now=now)
        return changed

    def _with(self, name: str, proven: tuple[Proven, ...], now: int) -> Session:
        # As it is now: it may have ended, or have another factor, since the evidence began to be verified.
        session = self._means.sessions.find(name, now=now)
        factors = dict(session.factors)
        for proof in proven:
            factors[proof.factor] = proof.proven_until
        if len(factors) > MAX_FACTORS:
            raise GateError(EVIDENCE_MALFORMED, f"A session has at most {MAX_FACTORS} factors.", field="evidence")
        return structs.replace(session, factors=tuple(sorted(factors.items())))

    def _closed(self, docket: Docket, stages: Callable[[], Session], now: int) -> Decided[Session]:
        decided = docket.decide(stages)
        if decided.blames_caller:
            self._means.risk.refused(docket.principal or docket.source, authenticated=bool(docket.principal), now=now)
        sight(self._means, decided, now)
        return decided


def read_evidence(body: bytes) -> dict[str, bytes]:
    """Evidence by factor out of a request's body (msgpack). Raises `identity.evidence_malformed`."""
    try:
        pieces = msgspec.msgpack.decode(body, type=dict[str, bytes])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GateError(EVIDENCE_MALFORMED, f"The evidence does not parse: {error}.", field="body") from None
    if not 0 < len(pieces) <= MAX_PIECES:
        raise GateError(
            EVIDENCE_MALFORMED, f"There are {len(pieces)} pieces of evidence, not 1 to {MAX_PIECES}.", field="body"
        )
    return pieces


def _raising(error: RingfenceError) -> Callable[[], Session]:
    def stages() -> Session:
        raise error

    return stages
