"""What a gateway keeps of risk and device trust: loaded at start, tended off the request path, saved now and then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.crypto import Signer
from ringfence.plugin.device import reputation as devices
from ringfence.plugin.device.reputation import BetaReputation
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk import snapshot
from ringfence.plugin.risk.assessor import Assessor
from ringfence.plugin.risk.errors import RiskError
from ringfence.plugin.risk.files import read_state, write_state
from ringfence.plugin.risk.halfspace import HalfSpaceTrees, place, points
from ringfence.plugin.risk.settings import RiskSettings
from ringfence.plugin.risk.state import State, open_state, seal_state

TURN_S: Final = 0.25
PER_TURN: Final = 40
"""Observations that the half-space trees look at in one turn: about a millisecond."""

SAVE_EVERY_S: Final = 300
_SLICE = 256


@dataclass(frozen=True, slots=True)
class Memory:
    """What was learned before this process, and the generation of each state that it was read from."""

    assessor: Assessor
    reputation: BetaReputation
    generations: Mapping[str, int]


def state_file(folder: Path, kind: str) -> Path:
    """Where the state of a kind is."""
    return folder / f"{kind}.state"


def load(
    folder: Path,
    *,
    keys: Mapping[str, bytes],
    risk: RiskSettings,
    device: DeviceSettings,
    newest: Mapping[str, int] | None = None,
) -> Memory:
    """The memory in `folder`, empty where there is none; `newest` are generations that are known from elsewhere.

    Raises `RiskError` where a file is there and cannot be believed: a gateway that went on without what it knew of an
    attacker would be what the attacker wants.
    """
    known = newest or {}
    assessor, reputation = Assessor(risk), BetaReputation(device)
    generations = {snapshot.KIND: known.get(snapshot.KIND, 0), devices.KIND: known.get(devices.KIND, 0)}
    for kind in generations:
        data = read_state(state_file(folder, kind))
        if data is None:
            continue
        state = open_state(data, kind, keys=keys, newest=generations[kind])
        generations[kind] = state.generation
        if kind == snapshot.KIND:
            assessor = snapshot.restored(state.payload, risk)
        else:
            reputation = devices.restored(state.payload, device)
    return Memory(assessor, reputation, generations)


class Keeper:
    """Tends a memory and saves it to `folder`, signed by `signer`.

    `uniform` draws numbers from 0 to 1, and shapes the trees; `tell` hears one sentence when a state cannot be saved,
    which denies nothing: the gateway goes on with what it has in memory.
    """

    def __init__(
        self,
        memory: Memory,
        folder: Path,
        *,
        signer: Signer,
        clock_s: Callable[[], int],
        uniform: Callable[[], float],
        tell: Callable[[str], None],
    ) -> None:
        self._assessor = memory.assessor
        self._reputation = memory.reputation
        self._generations = dict(memory.generations)
        self._folder = folder
        self._signer = signer
        self._clock_s = clock_s
        self._trees = HalfSpaceTrees(uniform)
        self._tell = tell

    async def tend(self) -> None:
        """Runs until it is cancelled: reads the clocks, lets the trees look, and saves every `SAVE_EVERY_S`."""
        turns = 0
        while True:
            await asyncio.sleep(TURN_S)
            self.turn()
            turns += 1
            if turns * TURN_S >= SAVE_EVERY_S:
                turns = 0
                await self.save()

    def turn(self) -> None:
        """One turn of `tend`, without saving."""
        now = self._clock_s()
        self._assessor.tick(now)
        self._reputation.tick(now)
        observations = self._assessor.observations
        most = self._assessor.settings.forest_points
        for _ in range(min(PER_TURN, len(observations))):
            principal, sample, rate = observations.popleft()
            baseline = self._assessor.baseline(principal)
            if baseline is not None:
                rarity = self._trees.rarity(place(sample, rate, baseline))
                self._assessor.forest(principal, points(rarity, most))

    async def save(self) -> None:
        """Writes both states, each with the next generation, durably."""
        assessor, reputation = self._assessor, self._reputation
        baselines = await _gather(snapshot.entries(assessor))
        await self._write(snapshot.KIND, lambda: snapshot.payload(assessor, baselines))
        records = await _gather(reputation.entries())
        await self._write(devices.KIND, lambda: devices.payload(reputation.clock.steady, records))

    async def _write(self, kind: str, payload: Callable[[], bytes]) -> None:
        generation = self._generations[kind] + 1
        saved_at = max(0, self._clock_s())
        path = state_file(self._folder, kind)
        try:
            await asyncio.to_thread(
                lambda: write_state(path, seal_state(State(kind, generation, saved_at, payload()), self._signer))
            )
        except RiskError as error:
            self._tell(f"what was learned is not saved: {error}")
        else:
            self._generations[kind] = generation


async def _gather(entries: Iterator[bytes]) -> list[bytes]:
    """All entries, a slice at a time, so that no request waits for all of them."""
    gathered: list[bytes] = []
    for entry in entries:
        gathered.append(entry)
        if len(gathered) % _SLICE == 0:
            await asyncio.sleep(0)
    return gathered
