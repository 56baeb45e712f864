"""The policies of a running gateway: a bundle that is held and taken in anew, one in the shadow, and what they tell."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from ringfence.plugin.config_tables import PolicySettings
from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.guarded import Disagreement, Guard
from ringfence.policies.folder import open_bundled
from ringfence.policies.holder import BundleHolder, HolderSettings, ShadowDecision, guarded_engine, paced
from ringfence.policies.loading.checked import load_checked

KEPT: Final = 4096


@dataclass(slots=True)
class PolicyNews:
    """What the policies have to tell, until it is recorded; the oldest is dropped where too much waits."""

    shadows: deque[ShadowDecision] = field(default_factory=lambda: deque(maxlen=KEPT))
    disagreements: deque[Disagreement] = field(default_factory=lambda: deque(maxlen=64))

    def shadow(self, decision: ShadowDecision) -> None:
        """Keeps a decision on which the bundle in the shadow differs."""
        if decision.shadow.allowed != decision.verdict.allowed:
            self.shadows.append(decision)


def source_of(name: str, settings: PolicySettings) -> Callable[[], Bundle]:
    """Reads the bundle `name`: a folder, where there is a slash in it, by a child process; else a shipped one."""
    if "/" in name:
        return partial(load_checked, Path(name), settings.loading)
    return partial(open_bundled, name)


def hold_policies(name: str, settings: PolicySettings, news: PolicyNews, *, least_version: int) -> BundleHolder:
    """The holder of the bundle `name`, and of the one in the shadow. It blocks. Raises `PolicyError`.

    No version below `least_version` is taken in, unless the operator accepts it by its number.
    """
    least = settings.accept_version or least_version
    guard = Guard(settings.guard, lambda: int(time.time()), secrets.randbelow, news.disagreements.append)
    holder = BundleHolder(
        source_of(name, settings),
        guarded_engine(guard),
        paced(time.perf_counter, time.sleep),
        news.shadow,
        HolderSettings(least, settings.guard),
    )
    if settings.shadow is not None:
        holder.set_shadow(source_of(settings.shadow, settings)())
    return holder
