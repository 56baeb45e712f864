"""The caller's library: opens a session with a gateway, submits jobs, and checks what comes back.

from ringfence.client import Client

with Client("unix:/run/ringfence/gateway.sock", keys, gateway=gateway_public, verifiers=[verifier_public]) as client:
    session = client.open_session()
    result = session.submit(module, b"input")
"""

from __future__ import annotations

from ringfence.client.client import Client, JobResult, Session
from ringfence.client.errors import ClientError, RefusedError

__all__ = ["Client", "ClientError", "JobResult", "RefusedError", "Session"]
