"""Error codes that gateways and clients meet when they speak to an agent."""

from __future__ import annotations

from ringfence.errors import Code, Kind, RingfenceError


class JobError(RingfenceError):
    """A job, or the receipt of one, is not what it claims to be."""


class GrantError(RingfenceError):
    """A grant does not entitle its bearer to run this job here, now."""


class ChannelError(RingfenceError):
    """The channel between a gateway and an agent is not there."""


JOB_MALFORMED = Code("job.malformed", Kind.INVALID)
JOB_SIGNATURE = Code("job.signature_invalid", Kind.UNAUTHENTICATED)
JOB_PRINCIPAL = Code("job.principal_unknown", Kind.DENIED)
JOB_MISDIRECTED = Code("job.wrong_host", Kind.DENIED)
JOB_EXPIRED = Code("job.expired", Kind.UNAUTHENTICATED)
JOB_REPLAYED = Code("job.replayed", Kind.CONFLICT)
JOB_DIGEST = Code("job.digest_mismatch", Kind.UNAUTHENTICATED)
JOB_LIMITS = Code("job.limits_exceed_grant", Kind.DENIED)
RECEIPT_INVALID = Code("receipt.invalid", Kind.UNAUTHENTICATED)
GRANT_MALFORMED = Code("grant.malformed", Kind.INVALID)
GRANT_FORGED = Code("grant.forged", Kind.DENIED)
GRANT_FOREIGN = Code("grant.wrong_audience", Kind.DENIED)
GRANT_EXPIRED = Code("grant.expired", Kind.DENIED)
GRANT_SPENT = Code("grant.already_spent", Kind.CONFLICT)
GRANT_BODY = Code("grant.body_mismatch", Kind.DENIED)
CHANNEL_UNKNOWN = Code("channel.unknown", Kind.UNAVAILABLE)
CHANNEL_REFUSED = Code("channel.refused", Kind.DENIED)
AGENT_UNAVAILABLE = Code("agent.unavailable", Kind.UNAVAILABLE)
AGENT_TIMEOUT = Code("agent.timeout", Kind.DEADLINE)
AGENT_BUSY = Code("agent.busy", Kind.EXHAUSTED)
AGENT_RUNNING = Code("agent.already_running", Kind.CONFLICT)
BODY_LATE = Code("job.body_late", Kind.DEADLINE)
BODY_TOO_LARGE = Code("job.body_too_large", Kind.TOO_LARGE)
