"""Decisions on signed requests, openings of sessions, and whole answers with their durable record."""

from __future__ import annotations

import asyncio
import gc
import secrets
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import msgspec

from ringfence import httpsig
from ringfence.client.bench.figures import summary
from ringfence.client.bench.gate_scene import TARGET, Scene, scene
from ringfence.client.errors import BENCH_BROKEN, ClientError
from ringfence.crypto.combiner import Bound
from ringfence.errors import RingfenceError
from ringfence.plugin.host import Host, Unreachable
from ringfence.plugin.hosts.port import Inbound
from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.guarded import Disagreement, Guard, GuardedDecider, GuardSettings
from ringfence.policies.engine import CedarDecider
from ringfence.policies.folder import open_bundled
from ringfence.policies.holder import Engine, guarded_engine

CALLERS: Final = 1000
OPENINGS: Final = 200
ELSEWHERE: Final = "198.51.100.9"
_AT_ONCE: Final = 64
_WARM: Final = 0.2


def measure(*, requests: int, sessions: int) -> dict[str, Any]:
    """The figures of the decision core, composed as the daemon does, with compiled policies and with cedarpy.

    Raises `bench.broken` where a stage lets through what it must refuse: a faster gate that is open is no gate.
    """
    guard = Guard(GuardSettings(), lambda: int(time.time()), secrets.randbelow, _disagreed)
    compiled = asyncio.run(_with(guarded_engine(guard), requests, sessions))
    cedarpy = asyncio.run(_with(_cedarpy_alone, max(1000, requests // 10), sessions))
    return {
        "policies": len(open_bundled("default").policies),
        "sessions": sessions,
        "decision": compiled["decision"],
        "whole_answer": compiled["answer"],
        "opening": compiled["opening"],
        "refused_by": compiled["refused_by"],
        "with_cedarpy": cedarpy["decision"],
    }


def _cedarpy_alone(bundle: Bundle) -> Iterator[GuardedDecider]:
    """The engine that a gateway falls back to."""
    oracle = CedarDecider(bundle)
    guard = Guard(GuardSettings(every=0), lambda: int(time.time()), secrets.randbelow, _disagreed)
    yield GuardedDecider(oracle, oracle, guard)


def _disagreed(found: Disagreement) -> None:
    raise _broken("a sampled decision", f"another answer than cedarpy's ({found.query_digest})")


async def _with(engine: Engine, requests: int, sessions: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="ringfence-bench-") as folder:
        async with scene(Path(folder), engine, callers=min(CALLERS, sessions), sessions=sessions) as made:
            return await _measured(made, requests)


async def _measured(made: Scene, requests: int) -> dict[str, Any]:
    refused = check_stages(made)
    return {
        "decision": _decide(made, requests),
        "answer": await _answers(made, min(requests, 4000)),
        "opening": _openings(made),
        "refused_by": refused,
    }


def _decide(made: Scene, count: int) -> dict[str, Any]:
    warm = int(count * _WARM)
    asked = [made.request(number) for number in range(count + warm)]
    pipeline, host, now = made.house.requests, made.host, made.now
    micros: list[float] = []
    gc.collect()
    gc.freeze()
    ticks = time.perf_counter_ns
    spent = 0
    try:
        for number, inbound in enumerate(asked):
            if number == warm:
                spent = time.thread_time_ns()
            started = ticks()
            decided = pipeline.decide(inbound, host, now=now)
            took = ticks() - started
            if decided.record.verdict != "allow":
                raise _broken("a good request", decided.record.code)
            if number >= warm:
                micros.append(took / 1000)
        spent = time.thread_time_ns() - spent
    finally:
        gc.unfreeze()
    return summary(micros) | {
        "per_second": round(1e6 * len(micros) / sum(micros)),
        # What one core does in a second of its own, whatever else the machine does meanwhile.
        "per_core_second": round(1e9 * count / spent),
        "requests": count,
    }


def _openings(made: Scene) -> dict[str, Any]:
    hellos = [made.hello(number) for number in range(OPENINGS)]
    micros: list[float] = []
    for hello in hellos:
        started = time.perf_counter_ns()
        decided = made.house.opening.decide(hello.message, made.host, source="192.0.2.1", now=made.now)
        opening = decided.ruling
        if isinstance(opening, RingfenceError):
            raise _broken("a good hello", opening.code.name)
        bound = Bound(attestation=made.host.digest, policies=decided.record.bundle_digest)
        reply, established = opening.responder.finish(made.gateway, b"parameters", bound)
        micros.append((time.perf_counter_ns() - started) / 1000)
        if hello.finish(reply, lambda _nonce, _parameters: bound) != established:  # noqa: B023 - called at once
            raise _broken("a handshake", "the keys differ")
    return summary(micros)


async def _answers(made: Scene, count: int) -> dict[str, Any]:
    """Decisions with their record durable, some at once, as callers wait for them."""
    asked = iter([made.request(number) for number in range(count)])
    micros: list[float] = []
    waits: list[float] = []

    async def ask() -> None:
        for inbound in asked:
            started = time.perf_counter_ns()
            decided = made.house.requests.decide(inbound, made.host, now=made.now)
            between = time.perf_counter_ns()
            await made.house.settlement.settle(decided, inbound.source)
            ended = time.perf_counter_ns()
            micros.append((ended - started) / 1000)
            waits.append((ended - between) / 1000)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(ask())
    seconds = time.perf_counter() - began
    return {
        "per_second": round(count / seconds),
        "at_once": _AT_ONCE,
        "answer": summary(micros),
        "wait_for_durability": summary(waits),
    }


def check_stages(made: Scene) -> dict[str, str]:
    """What each stage refuses, by its name. Raises `bench.broken` where one does not."""
    # From elsewhere, so that what is refused here does not count against what is measured.
    good = replace(made.request(0), source=ELSEWHERE)
    spent = replace(made.request(1), source=ELSEWHERE)
    if made.house.requests.decide(spent, made.host, now=made.now).record.verdict != "allow":
        raise _broken("a good request", "refused")
    away: Host = Unreachable(made.host.agent, ClientError(BENCH_BROKEN, "The host is away."))
    too_much = made.jobs[0].replace(
        msgspec.msgpack.encode({"memory_bytes": 1 << 20})[1:], msgspec.msgpack.encode({"memory_bytes": 1 << 31})[1:]
    )
    attempts: dict[str, tuple[Inbound, Host]] = {
        "parse": (replace(good, headers=[]), made.host),
        "session": (_resigned(made, 2, session="0" * 32), made.host),
        "signature": (replace(good, target=httpsig.Target("POST", TARGET.authority, "/v1/other")), made.host),
        "integrity": (spent, made.host),
        "device_trust": (replace(made.request(3), source=ELSEWHERE), away),
        "policy": (_resigned(made, 0, body=too_much), made.host),
    }
    found: dict[str, str] = {}
    for stage, (inbound, host) in attempts.items():
        record = made.house.requests.decide(inbound, host, now=made.now).record
        if record.verdict == "allow" or record.stages[-1].name != stage:
            raise _broken(f"what the stage {stage} must refuse", record.code or record.verdict)
        found[stage] = record.code
    return found


def _resigned(made: Scene, number: int, *, session: str = "", body: bytes = b"") -> Inbound:
    held = made.sessions[number]
    body = body or made.jobs[number]
    headers = httpsig.sign(
        held.key,
        TARGET,
        body,
        session=session or held.name,
        nonce=secrets.token_urlsafe(18),
        now=made.now,
        lifetime_s=60,
    )
    return Inbound(TARGET, list(headers.items()), ELSEWHERE, "", body)


def _broken(what: str, how: str) -> ClientError:
    return ClientError(
        BENCH_BROKEN,
        f"The benchmark measures no working gate: {what} was answered with {how}.",
        hint="Run the tests of the gateway's pipelines.",
    )
