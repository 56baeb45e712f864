"""Holds the bundle that decides, and takes a new one in without keeping a request waiting.

A bundle is read, checked and compiled beside the one that decides, and then takes its place in one assignment. Whatever
goes wrong before leaves the last good bundle deciding. A version only rises: whoever can put back an old, signed bundle
could else bring back a hole that a newer one closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec

from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.decider import compile_in_steps
from ringfence.policies.compiled.guarded import Guard, GuardedDecider, GuardSettings
from ringfence.policies.decision import Query, Verdict
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import ROLLED_BACK, PolicyError

WORK_S: Final = 0.0005
REST_S: Final = 0.001


class HolderSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`least_version`: no bundle below it is taken in, also after a restart. `guard`: how often cedarpy looks on."""

    least_version: Annotated[int, msgspec.Meta(ge=0)] = 0
    guard: GuardSettings = GuardSettings()


DEFAULTS: Final = HolderSettings()


class Watched(Protocol):
    """A decider that an oracle looks at now and then."""

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        ...

    def decide(self, query: Query) -> Verdict:
        """Answer a query."""
        ...

    def check_sampled(self, most: int = 64) -> int:
        """Check decisions that wait for it, and say how many were."""
        ...


Source = Callable[[], Bundle]
"""Reads the newest bundle; blocks, and raises `PolicyError`."""
Engine = Callable[[Bundle], Iterator[Watched | None]]
"""Makes a bundle's decider in steps of a few milliseconds: None after each, and the decider at last."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A bundle that is ready to decide."""

    bundle: Bundle
    decider: Watched


@dataclass(frozen=True, slots=True)
class ShadowDecision:
    """What the bundle in the shadow would have answered: recorded, never enforced."""

    query: Query
    verdict: Verdict
    shadow_digest: str
    shadow_version: int
    shadow: Verdict


def guarded_engine(guard: Guard) -> Engine:
    """The engine of a gateway: compiled code with cedarpy looking on. What is not covered, cedarpy decides alone."""

    def engine(bundle: Bundle) -> Iterator[Watched | None]:
        for compiled in compile_in_steps(bundle):
            if compiled is None:
                yield None
            else:
                oracle = CedarDecider(bundle)
                yield GuardedDecider(oracle if compiled.uncovered else compiled, oracle, guard)

    return engine


def paced(clock_s: Callable[[], float], sleep: Callable[[float], None]) -> Callable[[], None]:
    """A `pause` that rests for a millisecond after every half of work.

    So short a burst is seldom interrupted by another process, which would keep the interpreter from who decides.
    """
    began = clock_s()

    def pause() -> None:
        nonlocal began
        if clock_s() - began >= WORK_S:
            sleep(REST_S)
            began = clock_s()

    return pause


class BundleHolder:
    """Decides by the bundle that it holds.

    `prepare` may run on a thread of its own; `install` belongs on the thread that decides, so that no request is
    decided by one bundle and recorded with the digest of another.
    """

    def __init__(
        self,
        source: Source,
        engine: Engine,
        pause: Callable[[], None],
        record: Callable[[ShadowDecision], None],
        settings: HolderSettings = DEFAULTS,
    ) -> None:
        """Reads the first bundle, which blocks; raises `PolicyError`.

        `pause` gives other threads their turn (`paced`). `record` is told of each decision while there is a shadow;
        where it raises, so does `decide`, since a decision without its record denies.
        """
        self._source, self._engine, self._pause, self._record = source, engine, pause, record
        # A restart with the version that decided before it is no step back.
        self._least = settings.least_version - 1
        first = source()
        self._check_version(first, named=None)
        self._held = self._made(first)
        self._least = first.version
        self._decide = self._held.decider.decide
        self._shadow: Prepared | None = None

    @property
    def bundle(self) -> Bundle:
        """The bundle that decides."""
        return self._held.bundle

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        return self._held.bundle.digest

    def decide(self, query: Query) -> Verdict:
        """Answer a query by the bundle that is held."""
        verdict = self._decide(query)
        if self._shadow is not None:
            self._record_shadow(query, verdict, self._shadow)
        return verdict

    def check_sampled(self, most: int = 64) -> int:
        """Have cedarpy check up to `most` of the decisions that wait for it, and say how many were."""
        return self._held.decider.check_sampled(most)

    def prepare(self, named: int | None = None) -> Prepared | None:
        """Read the newest bundle, check it and make its decider; None where it is the one that is held.

        `named` is the version that an operator asks for by its number: that one may be lower. Raises `PolicyError`
        (policy.rolled_back, and what the source raises); the bundle that is held goes on deciding.
        """
        bundle = self._source()
        if bundle.digest == self._held.bundle.digest:
            return None
        self._check_version(bundle, named)
        return self._made(bundle)

    def install(self, prepared: Prepared) -> None:
        """Let this bundle decide from now on."""
        self._held = prepared
        self._decide = prepared.decider.decide
        self._least = prepared.bundle.version

    def reload(self, named: int | None = None) -> bool:
        """Prepare the newest bundle and install it; whether it was another one. It blocks; one at a time.

        Raises `PolicyError`.
        """
        prepared = self.prepare(named)
        if prepared is not None:
            self.install(prepared)
        return prepared is not None

    def set_shadow(self, bundle: Bundle | None) -> None:
        """Decide by this bundle too from now on, and record what it says; None ends that. It blocks."""
        self._shadow = None if bundle is None else self._made(bundle)

    def _record_shadow(self, query: Query, verdict: Verdict, shadow: Prepared) -> None:
        answer = shadow.decider.decide(query)
        bundle = shadow.bundle
        self._record(ShadowDecision(query, verdict, bundle.digest, bundle.version, answer))

    def _made(self, bundle: Bundle) -> Prepared:
        for step in self._engine(bundle):
            if step is not None:
                return Prepared(bundle, step)
            self._pause()
        raise AssertionError("an engine ends with a decider")

    def _check_version(self, bundle: Bundle, named: int | None) -> None:
        if bundle.version == named or bundle.version > self._least:
            return
        raise PolicyError(
            ROLLED_BACK,
            f"The bundle {bundle.name} has version {bundle.version}, which is not above {self._least}.",
            field="manifest.toml",
            hint="Raise its version, or have an operator name this version to go back to it.",
        )
