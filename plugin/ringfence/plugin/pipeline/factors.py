"""The pipeline that adds identity factors to a session: parse, session, signature, integrity, identity. No I/O.

The factors are verified between `begin` and `finish`, by whoever may wait for it. Evidence is bound to the session and
to the nonce of the very request that carries it, so that it proves nothing in another session or a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec
from msgspec import structs

from ringfence.errors import RingfenceError
from ringfence.plugin.api import step_up_challenge
from ringfence.plugin.errors import EVIDENCE_MALFORMED, REQUEST_REPLAYED, GateError
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.pipeline.docket import Decided, Docket
from ringfence.plugin.pipeline.entry import Entry
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.stages import sight
from ringfence.plugin.replay import MESSAGE_LIFETIME_S
from ringfence.plugin.sessions.port import Session

ACTION: Final = "AddFactors"
MAX_PIECES: Final = 9
NONCE: Final = "nonce"
"""Beside the evidence of a browser's page: what it is bound to, in place of a signature's nonce."""
MAX_FACTORS: Final = 16


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a request brings: pieces of evidence by factor, and what they must be bound to."""

    session: Session
    pieces: dict[str, bytes]
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
        """The session with what was proven, or the denial."""
        if isinstance(proven, RingfenceError):
            return self._closed(begun.docket, _raising(proven), now)
        return self._closed(begun.docket, lambda: self._add(begun, proven, now), now)

    def _read(self, docket: Docket, inbound: Inbound, now: int) -> Evidence:
        session, presented = self._entry.authenticate(docket, inbound, now)
        shown = self._entry.accept(docket, inbound, session, presented, delegated=False, now=now)
        pieces = read_evidence(shown.body if isinstance(shown.body, bytes) else b"")
        nonce = self._browser_nonce(session, pieces, now) if presented is None else presented.nonce
        binding = Binding(step_up_challenge(session.name, nonce), inbound.channel.thumbprint, session.principal)
        return Evidence(session, pieces, binding)

    def _browser_nonce(self, session: Session, pieces: dict[str, bytes], now: int) -> str:
        """A browser signs no request, so its page sends the nonce that its evidence is bound to; it counts once."""
        nonce = pieces.pop(NONCE, b"").hex()
        if not 16 <= len(nonce) <= 64 or not pieces:
            raise GateError(
                EVIDENCE_MALFORMED, "The evidence has no nonce of 8 to 32 bytes.", field=NONCE, hint="Draw a new one."
            )
        until = now + MESSAGE_LIFETIME_S
        self._means.replay.spend(
            session.principal, f"{session.name}:{nonce}", until=until, now=now, code=REQUEST_REPLAYED
        )
        return nonce

    def _add(self, begun: Begun, proven: tuple[Proven, ...], now: int) -> Session:
        # The session may have ended while the evidence was verified.
        session = self._means.sessions.find(begun.evidence.session.name, now=now)
        factors = dict(session.factors)
        for proof in proven:
            factors[proof.factor] = proof.proven_until
        if len(factors) > MAX_FACTORS:
            raise GateError(EVIDENCE_MALFORMED, f"A session has at most {MAX_FACTORS} factors.", field="evidence")
        changed = structs.replace(session, factors=tuple(sorted(factors.items())))
        begun.docket.reasons = tuple(oddity for proof in proven for oddity in proof.oddities)
        for _ in begun.docket.reasons:
            # What is odd about a proof that holds, such as a counter that went back, raises the risk as a refusal does.
            self._means.risk.refused(session.principal, authenticated=True, now=now)
        self._means.sessions.change(changed)
        return changed

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
