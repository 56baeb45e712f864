"""The benchmark's sections on replay and diff measure what they say, in small."""

from __future__ import annotations

from ringfence.client.bench import policy_diff, policy_replay
from ringfence.policies.engine import CedarDecider


def test_replay_is_measured_and_its_counts_are_right() -> None:
    figures = policy_replay.measure(CedarDecider, decisions=1_000)
    assert figures["agrees"]
    assert figures["changed"] > 50
    assert figures["per_second"] > 0


def test_diff_is_measured_and_its_witnesses_are_confirmed() -> None:
    figures = policy_diff.measure(rounds=1)
    assert figures["policies"] == 100
    assert figures["confirmed"]
    assert figures["seconds_100"] > 0
