"""Who principals are beside their keys: identity factors, the directory, approvals, as the configuration says."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ringfence.plugin.errors import GateError
from ringfence.plugin.identity.approval_folder import ApprovalFolder
from ringfence.plugin.identity.assembly import Identified, Outcome, identify, verify_side_by_side
from ringfence.plugin.identity.behaviour import BehaviourScore
from ringfence.plugin.identity.directory import KeptDirectory
from ringfence.plugin.identity.errors import SUBJECTS_CONFLICT, IdentityError
from ringfence.plugin.identity.factors import SIGNATURE, Factors, build, directory
from ringfence.plugin.identity.port import Binding, Proven
from ringfence.plugin.identity.settings import IdentitySettings
from ringfence.plugin.pipeline.browsing import SignedIn
from ringfence.plugin.pipeline.means import Known, no_approvals, no_directory
from ringfence.plugin.sessions.errors import PRINCIPAL_UNKNOWN
from ringfence.trust import Role, TrustList
from ringfence.trust.errors import TrustError

_KEY = re.compile(r"rf1[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, slots=True)
class Identification:
    """What the pipelines and the step-up need. `refresh_s` is how often the directory is read; 0: there is none.

    Directories, approvals, enrolments and `identity.subjects` call principals by the names of their pins; the pipelines
    know them by their keys. `trust` has both.
    """

    trust: Callable[[], TrustList]
    factors: Factors
    deadline_s: float
    kept: KeptDirectory | None
    refresh_s: int
    approved: Callable[[str, int], int]

    def directory(self, principal: str, now: int) -> Known:
        """What the directory says of a principal."""
        if self.kept is None:
            return no_directory(principal, now)
        entry = self.kept.lookup(self._name(principal, now), now)
        return Known(entry.groups, entry.tenant, entry.attributes, entry.fetched_at)

    def approvals(self, principal: str, now: int) -> int:
        """How many other people approve of a principal's break-glass access."""
        return 0 if self.approved is no_approvals else self.approved(self._name(principal, now), now)

    async def prove(self, pieces: Mapping[str, bytes], binding: Binding, now: int) -> Identified:
        """What the pieces prove of the session's principal. Raises `IdentityError`."""
        binding = replace(binding, principal=self._name(binding.principal, now))
        outcome = await verify_side_by_side(self.factors.by_name, pieces, binding, now=now, deadline_s=self.deadline_s)
        if outcome.proven:
            # Whether anybody has proven to hold a key in this session is judged with every request, not here.
            own = Proven(SIGNATURE, binding.principal, True, now + 1)
            outcome = Outcome((own, *outcome.proven), outcome.failed)
        who = identify(outcome, self.factors.subjects, binding)
        return Identified(who.principal, who.proven[1:], who.failed)

    def signed_in(self, proven: Proven, now: int) -> SignedIn:
        """Who has signed in with a browser. Raises `IdentityError` where the subject is no principal's."""
        principals = self.factors.subjects.principals(proven)
        if len(principals) != 1:
            raise IdentityError(
                SUBJECTS_CONFLICT,
                "Whoever has signed in may be more than one principal.",
                field="sub",
                hint="Give the subject to one principal in `identity.subjects`.",
            )
        key = self._key(next(iter(principals)), now)
        return SignedIn(key, ((proven.factor, proven.proven_until),), (proven,))

    def keys(self, principal: str, now: int) -> tuple[str, ...]:
        """The keys of the client that people call `principal`, or it itself where it is a key.

        Raises `session.principal_unknown`.
        """
        if _KEY.fullmatch(principal):
            return (principal,)
        keys = tuple(pin.key_id for pin in self.trust().by_role(Role.CLIENT, now) if pin.name == principal)
        if not keys:
            raise GateError(
                PRINCIPAL_UNKNOWN,
                f"No client is pinned by the name {principal!r}.",
                field="principal",
                hint="See `ringfence trust list`, or give the key id; whoever is no longer pinned has no sessions.",
            )
        return keys

    def _name(self, key: str, now: int) -> str:
        """The name of a pinned client; "" for one that is not pinned, whom nothing knows."""
        try:
            return self.trust().find(Role.CLIENT, key, now).name
        except TrustError:
            return ""

    def _key(self, name: str, now: int) -> str:
        """The key of the client with a name; the newest, while it changes from one to the other."""
        return next((pin.key_id for pin in reversed(self.trust().by_role(Role.CLIENT, now)) if pin.name == name), "")

    async def keep_fresh(self, clock: Callable[[], int], tell: Callable[[str], None]) -> None:
        """Reads the directory now and then, until it is cancelled; tells of a fault once."""
        fault = ""
        while self.kept is not None:
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
        kept, refresh_s = directory(settings.directory), settings.directory.refresh_s
    approvals: Callable[[str, int], int] = no_approvals
    if settings.approvals is not None:
        approvals = ApprovalFolder(settings.approvals.folder, trust, group=settings.approvals.group).approvals
    factors = build(settings, trust=trust, behaviour_score=behaviour)
    return Identification(trust, factors, settings.deadline_s, kept, refresh_s, approvals)
