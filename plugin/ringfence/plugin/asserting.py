"""The gateway's key for identity assertions, made on first use, and what is asserted of a request that was allowed."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path

from ringfence.plugin.assertion import AssertionIssuer, Subject
from ringfence.plugin.pipeline.demands import Permitted
from ringfence.plugin.sessions.vault import snapshot_key

Random = Callable[[int], bytes]


def open_issuer(path: Path, *, gateway: str, random: Random) -> AssertionIssuer:
    """The issuer with the Ed25519 key in `path` (mode 0600), which is made where it is not there yet.

    Raises `TrustError` where the file cannot be used.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return AssertionIssuer(gateway, snapshot_key(path, sealer=None, random=random))


class SigningAsserter:
    """Asserts what a pipeline permitted, with a fresh id for each request."""

    def __init__(self, issuer: AssertionIssuer, random: Random) -> None:
        self._issuer = issuer
        self._random = random

    def __call__(self, permitted: Permitted, *, upstream: str, decision_id: str, bundle_digest: str, now: int) -> str:
        session, shown = permitted.session, permitted.shown
        digest = base64.b64encode(shown.digest).decode("ascii") if shown.digest else ""
        subject = Subject(
            principal=session.principal,
            session=session.name,
            groups=session.groups,
            factors=permitted.factors,
            content_digest=f"sha-256=:{digest}:" if digest else "",
            decision_id=decision_id,
            attestation=session.attestation_digest,
            bundle=bundle_digest,
        )
        jti = base64.urlsafe_b64encode(self._random(18)).decode("ascii")
        return self._issuer.issue(shown.target, upstream, subject, now=now, jti=jti)
