"""Who principals are beside their keys: identity factors, the directory, approvals, as the configuration says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ringfence.plugin.identity.approval_folder import ApprovalFolder
from ringfence.plugin.identity.assembly import Identified, identify, verify_side_by_side
from ringfence.plugin.identity.behaviour import BehaviourScore
from ringfence.plugin.identity.directory import DirectorySource, KeptDirectory
from ringfence.plugin.identity.directory_file import DirectoryFile
from ringfence.plugin.identity.factors import Factors, build
from ringfence.plugin.identity.fetching import HttpsFetcher
from ringfence.plugin.identity.port import Binding
from ringfence.plugin.identity.scim import ScimSource
from ringfence.plugin.identity.settings import IdentitySettings, ScimDirectorySettings
from ringfence.plugin.pipeline.means import Known, no_approvals, no_directory
from ringfence.trust import TrustList


@dataclass(frozen=True, slots=True)
class Identification:
    """What the pipelines and the step-up need. `refresh_s` is how often the directory is read; 0: there is none."""

    factors: Factors
    deadline_s: float
    kept: KeptDirectory | None
    refresh_s: int
    approvals: Callable[[str, int], int]

    def directory(self, principal: str, now: int) -> Known:
        """What the directory says of a principal."""
        if self.kept is None:
            return no_directory(principal, now)
        entry = self.kept.lookup(principal, now)
        return Known(entry.groups, entry.tenant, entry.attributes, entry.fetched_at)

    async def prove(self, pieces: Mapping[str, bytes], binding: Binding, now: int) -> Identified:
        """What the pieces prove of the session's principal. Raises `IdentityError`."""
        outcome = await verify_side_by_side(self.factors.by_name, pieces, binding, now=now, deadline_s=self.deadline_s)
        return identify(outcome, self.factors.subjects, binding)

    async def keep_fresh(self, clock: Callable[[], int], tell: Callable[[str], None]) -> None:
        """Reads the directory now and then, until it is cancelled; tells of a fault once."""
        if self.kept is None:
            return
        fault = ""
        while True:
            await self.kept.refresh(now=clock())
            said = "" if self.kept.fault is None else str(self.kept.fault)
            if said != fault:
                tell(f"the directory cannot be read: {said}" if said else "the directory is read again")
                fault = said
            await asyncio.sleep(self.refresh_s)


def identification(
    settings: IdentitySettings, *, trust: Callable[[], TrustList], behaviour: BehaviourScore
) -> Identification:
    """The parts that `settings` ask for. Raises `IdentityError` and `ConfigError`."""
    kept, refresh_s = None, 0
    if settings.directory is not None:
        source: DirectorySource
        if isinstance(settings.directory, ScimDirectorySettings):
            source = ScimSource(settings.directory, HttpsFetcher(settings.directory.authorities))
        else:
            source = DirectoryFile(settings.directory.path)
        kept, refresh_s = KeptDirectory(source, max_age_s=settings.directory.max_age_s), settings.directory.refresh_s
    approvals: Callable[[str, int], int] = no_approvals
    if settings.approvals is not None:
        folder = ApprovalFolder(settings.approvals.folder, trust, group=settings.approvals.group)
        approvals = folder.approvals
    factors = build(settings, trust=trust, behaviour_score=behaviour)
    return Identification(factors, settings.deadline_s, kept, refresh_s, approvals)
