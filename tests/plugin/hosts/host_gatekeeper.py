"""A gatekeeper that does what it is told, for the tests of the hosts.

A request's field `x-script` says what it does; what it was shown goes to the upstream in a field of its own.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json

from ringfence.plugin.hosts.port import Answer, Inbound, Unseen

SHOWN = "x-ringfence-shown"
ASSERTED = "x-ringfence-assertion"
SLOW_S = 0.4
CALLS = 8
CHALLENGE = 'Ringfence realm="jobs", error="insufficient_user_authentication", acr_values="webauthn"'


def problem(status: int, code: str, *fields: tuple[str, str]) -> Answer:
    """A refusal as the decision core gives it."""
    body = json.dumps({"code": code, "message": "Why.", "status": status}).encode()
    return Answer(status, headers=(("content-type", "application/problem+json"), *fields), body=body)


class ScriptedGatekeeper:
    """Answers by the script, and checks digests and nonces as a decision core would."""

    def __init__(self) -> None:
        self._nonces: set[str] = set()

    async def decide(self, inbound: Inbound) -> Answer:
        fields = dict(inbound.headers)
        nonce = fields.get("x-nonce")
        if nonce is not None:
            if nonce in self._nonces:
                return problem(409, "integrity.replayed")
            self._nonces.add(nonce)
        digest = fields.get("content-digest")
        if digest is not None and (isinstance(inbound.body, Unseen) or digest != content_digest(inbound.body)):
            return problem(401, "integrity.digest_mismatch")
        match fields.get("x-script", "allow"):
            case "deny":
                return problem(403, "policy.denied")
            case "step-up":
                return problem(401, "identity.step_up", ("www-authenticate", CHALLENGE), ("www-authenticate", "Basic"))
            case "limit":
                return problem(429, "threats.rate", ("retry-after", "7"))
            case "slow":
                await asyncio.sleep(SLOW_S)
            case "stuck":
                await asyncio.sleep(3600)
            case "broken":
                raise RuntimeError("a gatekeeper never raises; if it does, nothing may pass")
            case "allow":
                pass
            case other:
                raise ValueError(other)
        return Answer(200, forward=((SHOWN, shown(inbound)), (ASSERTED, "signed")))


def content_digest(body: bytes) -> str:
    """RFC 9530, section 2."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode()}:"


def shown(inbound: Inbound) -> str:
    """What the gatekeeper saw, in printable form."""
    target, body = inbound.target, inbound.body
    view = {
        "target": [target.method, target.authority, target.path, target.query],
        "headers": list(inbound.headers),
        "source": inbound.source,
        "upstream": inbound.upstream,
        "body": body.value if isinstance(body, Unseen) else body.hex(),
        "thumbprint": inbound.channel.thumbprint,
    }
    return base64.b64encode(json.dumps(view).encode()).decode()
