"""The benchmark of the gate measures a gate that is shut: with any one stage open it fails."""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence.client.bench import gate, gate_decisions
from ringfence.client.bench.gate_decisions import check_stages
from ringfence.client.bench.gate_scene import Scene, scene
from ringfence.client.errors import ClientError
from ringfence.errors import UsageError
from ringfence.plugin.pipeline.demands import JobDemand
from ringfence.plugin.pipeline.requests import RequestPipeline
from ringfence.policies import Query, Verdict
from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.guarded import Guard, GuardSettings
from ringfence.policies.holder import Watched, guarded_engine


def engine(bundle: Bundle) -> Iterator[Watched | None]:
    yield from guarded_engine(Guard(GuardSettings(), lambda: 0, secrets.randbelow, print))(bundle)


class Open:
    """Policies that permit everything."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle_digest = bundle.digest

    def decide(self, query: Query) -> Verdict:
        return Verdict(bool(query.principal), ("all",), ())

    def check_sampled(self, most: int = 64) -> int:
        return 0 * most


def open_engine(bundle: Bundle) -> Iterator[Watched | None]:
    yield Open(bundle)


async def test_every_stage_of_the_composed_gateway_refuses_what_it_must(tmp_path: Path) -> None:
    async with scene(tmp_path, engine, callers=4, sessions=8) as made:
        found = check_stages(made)
    assert list(found) == ["parse", "session", "signature", "integrity", "device_trust", "policy"]


async def test_policies_that_permit_everything_break_the_benchmark(tmp_path: Path) -> None:
    async with scene(tmp_path, open_engine, callers=4, sessions=8) as made:
        with pytest.raises(ClientError, match="the stage policy must refuse"):
            check_stages(made)


def never(_made: Scene) -> dict[str, Any]:
    """A ledger that forgets at once."""

    class Forgetful:
        def spend(self, *_: object, **__: object) -> None: ...

    return {"replay": Forgetful()}


def anybody(made: Scene) -> dict[str, Any]:
    """A store in which every name is a live session."""

    class Anybody:
        def find(self, name: str, *, now: int) -> object:
            return made.sessions[2] if name == "0" * 32 else made.house.sessions.find(name, now=now)

        def touch(self, name: str, *, now: int) -> None: ...

    return {"sessions": Anybody()}


@pytest.mark.parametrize(("weaken", "stage"), [(never, "integrity"), (anybody, "session")])
async def test_a_stage_that_lets_something_through_breaks_the_benchmark(
    tmp_path: Path, weaken: Callable[[Scene], dict[str, Any]], stage: str
) -> None:
    async with scene(tmp_path, engine, callers=4, sessions=8) as made:
        means = replace(made.house.means, **weaken(made))
        demand = JobDemand(gateway=made.gateway.key_id, random=secrets.token_bytes)
        weak = replace(made, house=replace(made.house, means=means, requests=RequestPipeline(means, demand)))
        with pytest.raises(ClientError, match=f"the stage {stage} must refuse"):
            check_stages(weak)


def test_the_figures_are_there(capsys: pytest.CaptureFixture[str]) -> None:
    figures = gate_decisions.measure(requests=300, sessions=20)
    assert figures["decision"]["per_second"] > 0
    assert figures["decision"]["p99_us"] >= figures["decision"]["p50_us"]
    assert figures["refused_by"]["integrity"] == "integrity.replayed"
    gate.show(figures | {"store": {"sessions": {"live": 1}}, "risk": {"assess": {"p50_us": 1}}})
    shown = capsys.readouterr().out
    assert "decision, policies compiled" in shown
    assert "integrity.replayed" in shown


def test_too_few_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="say nothing"):
        gate.measure(argparse.Namespace(requests=10, sessions=1000, json=True))
