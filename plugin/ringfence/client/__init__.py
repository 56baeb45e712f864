"""The caller's library: opens a session with a gateway, submits jobs, and checks what comes back.

client = Client("unix:/run/ringfence/gateway.sock", keys, gateway=gateway_public, verifiers=[verifier_public])
session = client.open_session()
result = session.submit(module, b"input")
"""

from __future__ import annotations

from ringfence.client.client import Client, JobLimits, JobResult, Level, ResultType, Session
from ringfence.client.errors import ClientError, RefusedError

__all__ = ["Client", "ClientError", "JobLimits", "JobResult", "Level", "RefusedError", "ResultType", "Session"]
