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
from ringfence.policies.assembly import bundle_digest, read_manifest
from ringfence.policies.bundle import Bundle
from ringfence.policies.compiled.guarded import Disagreement, Guard
from ringfence.policies.errors import BAD_SIGNATURE, PolicyError
from ringfence.policies.folder import open_bundled, read_files, read_signature
from ringfence.policies.holder import BundleHolder, HolderSettings, ShadowDecision, guarded_engine, paced
from ringfence.policies.loading.checked import load_checked
from ringfence.policies.signature import verify_signature
from ringfence.trust import TrustList

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


def source_of(name: str, settings: PolicySettings, trust: Callable[[], TrustList]) -> Callable[[], Bundle]:
    """Reads the bundle `name`: a folder, where there is a slash in it, by a child process; else a shipped one.

    Where the settings ask for it, a pinned policy signer must have signed the folder; what ships came with the code.
    """
    if "/" not in name:
        return partial(open_bundled, name)
    if settings.signed:
        return partial(_load_signed, Path(name), settings, trust)
    return partial(load_checked, Path(name), settings.loading)


def _load_signed(folder: Path, settings: PolicySettings, trust: Callable[[], TrustList]) -> Bundle:
    files, signature = read_files(folder), read_signature(folder)
    verify_signature(files, signature, trust(), int(time.time()), open_bundled)
    bases = [open_bundled(base) for base in read_manifest(files).bases]
    bundle = load_checked(folder, settings.loading)
    if bundle.digest != bundle_digest(files, bases):
        raise PolicyError(
            BAD_SIGNATURE,
            "The bundle was changed between its signature's check and its loading.",
            field=str(folder),
            hint="Put a signed bundle there in one step, by renaming a folder.",
        )
    return bundle


def hold_policies(
    name: str, settings: PolicySettings, news: PolicyNews, trust: Callable[[], TrustList], *, least_version: int
) -> BundleHolder:
    """The holder of the bundle `name`, and of the one in the shadow. It blocks. Raises `PolicyError`.

    No version below `least_version` is taken in, unless the operator accepts it by its number.
    """
    least = settings.accept_version or least_version
    guard = Guard(settings.guard, lambda: int(time.time()), secrets.randbelow, news.disagreements.append)
    holder = BundleHolder(
        source_of(name, settings, trust),
        guarded_engine(guard),
        paced(time.perf_counter, time.sleep),
        news.shadow,
        HolderSettings(least, settings.guard),
    )
    if settings.shadow is not None:
        holder.set_shadow(source_of(settings.shadow, settings, trust)())
    return holder
