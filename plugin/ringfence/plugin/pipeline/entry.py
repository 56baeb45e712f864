"""How a request enters: its proof is parsed, its session found, the proof verified, and its nonce spent. No I/O."""

from __future__ import annotations

import hmac

from ringfence import httpsig
from ringfence.plugin.errors import (
    CHANNEL_FOREIGN,
    PRINCIPAL_UNKNOWN,
    REQUEST_REPLAYED,
    SESSION_FOREIGN,
    GateError,
)
from ringfence.plugin.hosts.port import Inbound
from ringfence.plugin.pipeline.cookies import cookie_session, foreign, session_token
from ringfence.plugin.pipeline.docket import Docket
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.pipeline.shown import Shown, signed_body, unsigned_body
from ringfence.plugin.pipeline.stages import COOKIE_FACTOR, SESSION_FACTOR
from ringfence.plugin.sessions.port import Ended, Session
from ringfence.trust.errors import TrustError
from ringfence.trust.pins import Role


class Entry:
    """The first four stages of every request: parse, session, signature, integrity."""

    def __init__(self, means: Means) -> None:
        self._means = means

    def authenticate(self, docket: Docket, inbound: Inbound, now: int) -> tuple[Session, httpsig.Presented | None]:
        """The session whose holder sent the request, and its signature; None where a cookie stands for it."""
        docket.begin("parse")
        fields = httpsig.fields(inbound.headers)
        if not fields:
            token = cookie_session(inbound.headers)
            if token is not None:
                return self._by_cookie(docket, inbound, token, now), None
        presented = httpsig.parse(fields)
        docket.begin("session")
        session = self._find(presented.session, now)
        docket.begin("signature")
        _require(session, SESSION_FACTOR)
        httpsig.verify(presented, session.key, inbound.target, now=now)
        _same_channel(session, inbound)
        return session, presented

    def accept(
        self,
        docket: Docket,
        inbound: Inbound,
        session: Session,
        presented: httpsig.Presented | None,
        *,
        delegated: bool,
        now: int,
    ) -> Shown:
        """The request with its body, as far as it is verified; its nonce is spent. Raises `integrity.*`."""
        docket.begin("integrity")
        if presented is None:
            shown = unsigned_body(inbound)
        else:
            shown = signed_body(inbound, presented, delegated=delegated)
            until = presented.expires_at + httpsig.SKEW_S
            nonce = f"{session.name}:{presented.nonce}"
            self._means.replay.spend(session.principal, nonce, until=until, now=now, code=REQUEST_REPLAYED)
            docket.nonce, docket.nonce_until = nonce, until
        docket.session = session.name
        docket.principal = session.principal
        docket.body_digest = shown.digest.hex()
        return shown

    def _by_cookie(self, docket: Docket, inbound: Inbound, token: tuple[str, str], now: int) -> Session:
        name, value = token
        docket.begin("session")
        session = self._find(name, now)
        docket.begin("signature")
        _require(session, COOKIE_FACTOR)
        if not hmac.compare_digest(value, session_token(session.key)):
            raise foreign()
        _same_channel(session, inbound)
        self._means.protect(inbound.target.method, inbound.headers)
        return session

    def _find(self, name: str, now: int) -> Session:
        session = self._means.sessions.find(name, now=now)
        try:
            self._means.trust().find(Role.CLIENT, session.principal, now)
        except TrustError as error:
            self._means.sessions.retire(name, Ended.PRINCIPAL)
            raise GateError(
                PRINCIPAL_UNKNOWN,
                "The session's client is not pinned here any more.",
                field="keyid",
                hint="Have the operator run `ringfence trust add client`, then open a new session.",
            ) from error
        return session


def _require(session: Session, factor: str) -> None:
    """A session that was opened for one kind of proof takes no other: a cookie never stands for a signature."""
    if (factor, 0) not in session.factors:
        raise GateError(
            SESSION_FOREIGN,
            f"The session does not take the factor {factor}.",
            field="keyid",
            hint="Use the session as it was opened: in a browser, or with signed requests.",
        )


def _same_channel(session: Session, inbound: Inbound) -> None:
    """A session that was opened on a channel with a client certificate is of no use on another."""
    if session.thumbprint and not hmac.compare_digest(session.thumbprint, inbound.channel.thumbprint):
        raise GateError(
            CHANNEL_FOREIGN,
            "The session is bound to the client certificate that it was opened with, and this channel has another.",
            field="channel",
            hint="Use that certificate, or open a new session.",
        )
