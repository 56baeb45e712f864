"""The gateway's HTTP API: the bodies that a client and a gateway exchange, as msgpack. Pure.

    POST /v1/sessions   a handshake hello       -> a handshake reply, `SessionParameters` sealed inside
    POST /v1/jobs       a signed submission     -> `JobAnswer`
    POST /v1/factors    evidence by factor      -> the factors that the session has then
    GET  /v1/health                             -> 204

Every refusal is a `Problem` in JSON (RFC 9457), with its code, and the decision's trace where a stage denied.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ringfence.agent.api.jobs import JobLimits
from ringfence.crypto import digest

SESSIONS_PATH: Final = "/v1/sessions"
JOBS_PATH: Final = "/v1/jobs"
FACTORS_PATH: Final = "/v1/factors"
HEALTH_PATH: Final = "/v1/health"
SESSION_PURPOSE: Final = "session"
REQUEST_KEY: Final = "request"
MSGPACK: Final = "application/msgpack"
PROBLEM: Final = "application/problem+json"


def step_up_challenge(session: str, nonce: str) -> bytes:
    """What evidence for a further factor is bound to: the session and the nonce of the request that carries it.

    SHA-256, 32 bytes. So evidence proves nothing in another session, and nothing a second time.
    """
    return digest(b"ringfence step-up 1\0" + session.encode() + b"\0" + nonce.encode())


class StageView(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of a decision: `verdict` is `allow` or `deny`, `micros` how long it took."""

    name: str
    verdict: str
    code: str
    micros: int


class SessionParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gateway tells inside the handshake: `attestation` is the host's EAR, `host_proof` the agent's signature
    over the session's nonce."""

    attestation: str
    host_proof: bytes
    bundle_digest: str
    decision_id: str
    trace: tuple[StageView, ...]


class JobAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finished job. `receipt` is signed by the agent."""

    output: bytes
    receipt: bytes
    signature: bytes
    decision_id: str
    grant_id: str
    limits: JobLimits
    trace: tuple[StageView, ...]


class Problem(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A refusal. An admitted job that failed has its receipt here; `missing` names the factors that would help."""

    code: str
    message: str
    status: int
    field: str = ""
    hint: str = ""
    decision_id: str = ""
    trace: tuple[StageView, ...] = ()
    receipt: bytes = b""
    signature: bytes = b""
    missing: tuple[str, ...] = ()
