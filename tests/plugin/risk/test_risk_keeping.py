"""The keeper: what was learned outlives the process, and what cannot be believed stops it."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from ringfence.crypto import COMPOSITE
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk import keeping
from ringfence.plugin.risk.errors import RiskError
from ringfence.plugin.risk.keeping import Keeper, Memory, load, state_file
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.trust import KeyPair
from tests.plugin.risk.risk_bench import NOW, USUAL, features_of, known

SIGNER = KeyPair(*COMPOSITE.generate())
KEYS = {SIGNER.key_id: SIGNER.public}


def loaded(folder: Path, newest: dict[str, int] | None = None) -> Memory:
    return load(folder, keys=KEYS, risk=RiskSettings(), device=DeviceSettings(), newest=newest)


def keeper(memory: Memory, folder: Path, said: list[str]) -> Keeper:
    uniform = random.Random(1).random  # noqa: S311 - no secret
    return Keeper(memory, folder, signer=SIGNER, clock_s=lambda: NOW, uniform=uniform, tell=said.append)


async def test_without_state_everything_is_cold_and_with_it_everything_is_as_it_was(tmp_path: Path) -> None:
    memory = loaded(tmp_path)
    assert len(memory.assessor) == 0
    assert set(memory.generations.values()) == {0}
    now = NOW
    for minute in range(40):
        now = NOW + 60 * minute
        memory.assessor.assess(replace(USUAL, now=now))
    memory.assessor.refused("mallory", authenticated=True, now=now)
    memory.reputation.observe("host", good=False, weight=4.0, now=now)
    said: list[str] = []
    kept = keeper(memory, tmp_path, said)
    await kept.save()
    await kept.save()
    again = loaded(tmp_path)
    assert again.generations == {"baselines": 2, "devices": 2}
    assert features_of(again.assessor.assess(replace(USUAL, principal="mallory", now=now)))["refusals"] == 12
    assert again.assessor.assess(replace(USUAL, now=now)).score == 0
    assert again.reputation.standing("host", now=now) == memory.reputation.standing("host", now=now) < 50
    assert said == []


async def test_damage_another_key_and_a_roll_back_stop_the_start(tmp_path: Path) -> None:
    kept = keeper(loaded(tmp_path), tmp_path, [])
    await kept.save()
    file = state_file(tmp_path, "baselines")
    good = file.read_bytes()
    with pytest.raises(RiskError, match=r"risk\.state_rolled_back"):
        loaded(tmp_path, {"baselines": 2})
    with pytest.raises(RiskError, match=r"risk\.state_forged"):
        load(tmp_path, keys={}, risk=RiskSettings(), device=DeviceSettings())
    for damaged in (good[:-1], good[:40], b"", b"\0" * 100):
        file.write_bytes(damaged)
        with pytest.raises(RiskError, match=r"risk\.state_") as caught:
            loaded(tmp_path)
        assert "away" in caught.value.hint
    file.unlink()
    assert len(loaded(tmp_path).assessor) == 0


async def test_a_removed_state_does_not_take_the_generation_back(tmp_path: Path) -> None:
    memory = loaded(tmp_path, {"baselines": 5})
    await keeper(memory, tmp_path, []).save()
    assert loaded(tmp_path, {"baselines": 6}).generations["baselines"] == 6


async def test_a_disk_that_fails_is_told_of_and_denies_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    said: list[str] = []
    kept = keeper(loaded(tmp_path), tmp_path / "file", said)
    await kept.save()
    assert len(said) == 2
    assert "risk.state_unwritable" in said[0]


async def test_saving_lets_requests_through_in_between(tmp_path: Path) -> None:
    assessor, now = known()
    for number in range(2000):
        assessor.assess(replace(USUAL, principal=f"p{number}", now=now))
    memory = Memory(assessor, loaded(tmp_path).reputation, {"baselines": 0, "devices": 0})
    kept = keeper(memory, tmp_path, [])
    saving = asyncio.create_task(kept.save())
    turns = 0
    while not saving.done():
        await asyncio.sleep(0)
        assessor.assess(replace(USUAL, principal=f"new {turns}", now=now))
        turns += 1
    assert turns > 2000 // 256
    assert len(loaded(tmp_path).assessor) >= 2001


async def test_tending_lets_the_trees_look_and_the_clock_go_on(tmp_path: Path) -> None:
    memory = loaded(tmp_path)
    for minute in range(10):
        memory.assessor.assess(replace(USUAL, now=NOW - 600 + 60 * minute))
    assert len(memory.assessor.observations) == 9
    kept = keeper(memory, tmp_path, [])
    task = asyncio.create_task(kept.tend())
    await asyncio.sleep(2 * keeping.TURN_S)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not memory.assessor.observations
    assert memory.assessor.clock.wall == NOW
