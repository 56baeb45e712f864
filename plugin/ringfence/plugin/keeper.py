"""The decision core as host adapters see it: requests to upstreams, decided, recorded, and asserted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from ringfence.errors import INTERNAL, RingfenceError
from ringfence.plugin.answers import DECISION_FIELD, refusal
from ringfence.plugin.errors import UPSTREAM_UNKNOWN, GateError
from ringfence.plugin.hosts.port import ASSERTION, Answer, Inbound
from ringfence.plugin.link import HostLink
from ringfence.plugin.pipeline.demands import Permitted
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.plugin.settling import RefusedError, Settlement


class Asserter(Protocol):
    """Signs what an upstream is told about a request that was allowed."""

    def __call__(self, permitted: Permitted, *, upstream: str, decision_id: str, bundle_digest: str, now: int) -> str:
        """The identity assertion, for one upstream and one request."""
        ...


class Keeper:
    """Decides on requests to the upstreams that it has a pipeline for, by name."""

    def __init__(
        self,
        *,
        link: HostLink,
        pipelines: Mapping[str, RequestPipeline[None, Permitted]],
        settlement: Settlement,
        asserter: Asserter,
        tell: Callable[[str], None],
        clock_ns: Callable[[], int],
    ) -> None:
        self._link = link
        self._pipelines = pipelines
        self._settlement = settlement
        self._asserter = asserter
        self._tell = tell
        self._clock_ns = clock_ns

    async def decide(self, inbound: Inbound) -> Answer:
        """The answer, once its audit record is durable. Never raises, except when it is cancelled."""
        try:
            return await self._decide(inbound)
        except RefusedError as refused:
            return refusal(refused.error, decision_id=refused.decision_id)
        except RingfenceError as error:
            return refusal(error)
        except Exception as bug:  # noqa: BLE001 - whatever goes wrong in here must deny, and not break the host
            self._tell(f"a decision failed and was denied: {type(bug).__name__}")
            return refusal(GateError(INTERNAL, "The decision failed in a way that it should not; it denies."))

    async def _decide(self, inbound: Inbound) -> Answer:
        pipeline = self._pipelines.get(inbound.upstream)
        if pipeline is None:
            raise GateError(
                UPSTREAM_UNKNOWN,
                "The host asks for an upstream that the gateway does not know.",
                field="upstream",
                hint="Name it in the gateway's configuration, under [upstreams].",
            )
        host = await self._link.host()
        now = self._clock_ns() // 1_000_000_000
        decided = pipeline.decide(inbound, host, now=now)
        permitted, _ = await self._settlement.settle(decided, inbound.source)
        record = decided.record
        assertion = self._asserter(
            permitted,
            upstream=inbound.upstream,
            decision_id=record.decision_id,
            bundle_digest=record.bundle_digest,
            now=now,
        )
        forward = ((ASSERTION, assertion), (DECISION_FIELD, record.decision_id))
        return Answer(200, forward=forward, decision_id=record.decision_id)
