"""Several factors side by side under one deadline, and what they say together.

Each factor may fail alone: which of them a request needs is for the policies. Two things are not left to policies:
somebody who has not proven to hold a key is nobody, and factors that speak of different people prove nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from ringfence.errors import INTERNAL, RingfenceError
from ringfence.plugin.identity.errors import (
    FACTOR_DEADLINE,
    FACTOR_ENDED,
    FACTOR_UNKNOWN,
    NO_KEY_BOUND_FACTOR,
    SUBJECTS_CONFLICT,
    IdentityError,
)
from ringfence.plugin.identity.port import Binding, Factor, Proven
from ringfence.plugin.identity.subjects import SubjectMap

MAX_PIECES: Final = 8


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the pieces of evidence have proven, and for each that has not, by its factor's name, the code why not."""

    proven: tuple[Proven, ...]
    failed: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identified:
    """Who it is: one principal, proven by at least one factor that is bound to a key.

    `factors` has each factor that holds and when it ends, in seconds since the epoch, as a session keeps them.
    """

    principal: str
    proven: tuple[Proven, ...]
    failed: Mapping[str, str]

    @property
    def factors(self) -> tuple[tuple[str, int], ...]:
        return tuple((proof.factor, proof.proven_until) for proof in self.proven)

    @property
    def oddities(self) -> tuple[str, ...]:
        return tuple(oddity for proof in self.proven for oddity in proof.oddities)


async def verify_side_by_side(
    factors: Mapping[str, Factor], evidence: Mapping[str, bytes], binding: Binding, *, now: int, deadline_s: float
) -> Outcome:
    """Verifies every piece of `evidence` (factor -> bytes) at the same time; none takes longer than `deadline_s`.

    Never raises for what a caller may send, except `identity.factor_unknown` for more pieces than `MAX_PIECES`, before
    any is looked at. A factor that fails in a way that it should not has the code `internal.bug`.
    """
    if len(evidence) > MAX_PIECES:
        raise IdentityError(
            FACTOR_UNKNOWN, f"There are {len(evidence)} pieces of evidence, more than {MAX_PIECES}.", field="evidence"
        )
    end = asyncio.get_running_loop().time() + deadline_s
    results: dict[str, Proven | str] = {}
    async with asyncio.TaskGroup() as group:
        for name, piece in evidence.items():
            group.create_task(_verify(factors.get(name), name, piece, binding, now, end, results))
    proven = tuple(result for name in evidence if isinstance(result := results[name], Proven))
    failed = {name: result for name in evidence if isinstance(result := results[name], str)}
    return Outcome(proven, failed)


async def _verify(
    factor: Factor | None,
    name: str,
    piece: bytes,
    binding: Binding,
    now: int,
    end: float,
    results: dict[str, Proven | str],
) -> None:
    if factor is None:
        results[name] = FACTOR_UNKNOWN.name
        return
    try:
        async with asyncio.timeout_at(end):
            proof = await factor.verify(piece, binding, now=now)
    except TimeoutError:
        results[name] = FACTOR_DEADLINE.name
    except RingfenceError as refused:
        results[name] = refused.code.name
    except Exception:  # noqa: BLE001 - one factor's fault must not take the others with it; it denies all the same
        results[name] = INTERNAL.name
    else:
        # A factor speaks for itself alone, and for a time that has not passed.
        results[name] = proof if proof.factor == name and proof.proven_until > now else FACTOR_ENDED.name


def identify(outcome: Outcome, subjects: SubjectMap, binding: Binding) -> Identified:
    """The one principal that everything proven agrees on.

    `binding.principal`, where it is not empty, is whom the session belongs to, and must be among them. Raises
    `identity.no_key_bound_factor`, `identity.subject_unknown`, `identity.name_unsafe`, and
    `identity.subjects_conflict` where no principal, or more than one, fits every factor.
    """
    if not any(proof.key_bound for proof in outcome.proven):
        failures = ", ".join(f"{name}: {code}" for name, code in sorted(outcome.failed.items()))
        raise IdentityError(
            NO_KEY_BOUND_FACTOR,
            f"No factor has proven that the caller holds a key{f' ({failures})' if failures else ''}.",
            field="evidence",
            hint="Show a certificate, a token that is bound to a key, or a security key.",
        )
    candidates = [subjects.principals(proof) for proof in outcome.proven]
    if binding.principal:
        candidates.append(frozenset({binding.principal}))
    agreed = frozenset.intersection(*candidates)
    if len(agreed) != 1:
        named = ", ".join(proof.factor for proof in outcome.proven)
        raise IdentityError(
            SUBJECTS_CONFLICT,
            f"The factors ({named}) do not agree on one principal.",
            field="evidence",
            hint="Every factor must prove the same person; see the gateway's `identity.subjects`.",
        )
    return Identified(next(iter(agreed)), outcome.proven, outcome.failed)
