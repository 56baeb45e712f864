"""How long a stream in a session may live. Pure."""

from __future__ import annotations

from ringfence.plugin.sessions.port import Session


def stream_deadline(session: Session, host_limit_s: int, now: int) -> int:
    """When a stream that begins now ends at the latest, in seconds since the epoch, however much it is used.

    That is `host_limit_s` from now, the session's expiry, or the end of a factor that the session was opened with,
    whichever is first: a stream was allowed once, with all of them. Where none is ahead, it may not begin: `now`.
    """
    ends = (until for _, until in session.factors if until)
    return max(now, min(now + host_limit_s, session.expires_at, *ends))
