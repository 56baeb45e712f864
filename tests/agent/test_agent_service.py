"""What the agent's gRPC service makes of submissions that come whole, cut short, too long, or never."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from ringfence.agent.admission import Presented
from ringfence.agent.api._pb import agent_pb2 as pb
from tests.agent.agent_bench import Bench, chunks, code_of


async def test_a_whole_submission_runs(bench: Bench) -> None:
    assert await code_of(bench, chunks(bench, bench.presented())) == ""


async def test_a_submission_cut_short(bench: Bench) -> None:
    assert await code_of(bench, chunks(bench, bench.presented(), cut=1)) == "grant.body_mismatch"


async def test_a_submission_that_never_ends_does_not_stay(bench: Bench) -> None:
    late = [code_of(bench, chunks(bench, bench.presented(), then_hang=True)) for _ in range(3)]

    assert sorted(await asyncio.gather(*late)) == ["agent.busy", "job.body_late", "job.body_late"]
    assert await code_of(bench, chunks(bench, bench.presented())) == ""


async def test_nothing_is_read_for_a_grant_that_is_not_the_gateway_s(bench: Bench) -> None:
    presented = bench.presented()
    forged = Presented(presented.grant, bytes(32), presented.body)

    assert await code_of(bench, chunks(bench, forged, then_hang=True)) == "grant.forged"


async def test_a_submission_that_is_too_long(bench: Bench) -> None:
    presented = bench.presented()
    long = Presented(presented.grant, presented.tag, bytes(10_001))

    assert await code_of(bench, chunks(bench, long)) == "job.body_too_large"


async def test_a_body_without_a_grant(bench: Bench) -> None:
    async def bare() -> AsyncIterator[pb.SubmitChunk]:
        yield pb.SubmitChunk(body=b"body")

    assert await code_of(bench, bare()) == "grant.malformed"
