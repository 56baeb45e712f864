"""The client library's errors."""

from __future__ import annotations

from ringfence.agent.api.jobs import Receipt
from ringfence.errors import Code, Kind, RingfenceError
from ringfence.plugin.api import StageView

CONNECTION_FAILED = Code("client.connection_failed", Kind.UNAVAILABLE)
TIMED_OUT = Code("client.timed_out", Kind.DEADLINE)
ANSWER_MALFORMED = Code("client.answer_malformed", Kind.INTERNAL)
HOST_PROOF_INVALID = Code("client.host_proof_invalid", Kind.UNAUTHENTICATED)
HOST_UNATTESTED = Code("client.host_not_attested", Kind.DENIED)
START_FAILED = Code("client.start_failed", Kind.UNAVAILABLE)
BENCH_BROKEN = Code("bench.broken", Kind.INTERNAL)
RECEIPT_MISMATCH = Code("client.receipt_mismatch", Kind.UNAUTHENTICATED)


class ClientError(RingfenceError):
    """The gateway could not be reached, or what it said does not hold."""


class RefusedError(ClientError):
    """The gateway or the agent refused.

    `trace` holds the stages that decided; `missing` the identity factors that would help (`Session.add_factors`);
    `receipt` is the agent's, checked, where it had admitted the job.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        field: str = "",
        hint: str = "",
        decision_id: str = "",
        trace: tuple[StageView, ...] = (),
        receipt_bytes: bytes = b"",
        receipt_signature: bytes = b"",
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__(code, message, field=field, hint=hint)
        self.decision_id = decision_id
        self.trace = trace
        self.missing = missing
        self.receipt_bytes = receipt_bytes
        self.receipt_signature = receipt_signature
        self.receipt: Receipt | None = None
