"""A bundle's decision as logic: allowed where nothing errs, something permits and nothing forbids."""

from __future__ import annotations

from dataclasses import dataclass

import cedarpy
from cedarpy import pst

from ringfence.policies.analysis.logic import Truth, every, opposite, some
from ringfence.policies.analysis.requests import as_asked, cedar_request
from ringfence.policies.analysis.syntax import Parsed, parse
from ringfence.policies.analysis.translation import ACTION, Meaning, Translator
from ringfence.policies.analysis.unknowns import Unknowns
from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASES
from ringfence.policies.decision import Action, Query


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle whose meaning is asked for, parsed once; `groups` are the action groups that an action is in."""

    bundle: Bundle
    parsed: tuple[Parsed, ...]
    groups: dict[Action, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Decided:
    """What a bundle decides for one action; `outside` says of policies, by id, why they are not understood.

    `hard` names those that multiply what is not known, which a solver may not get through.
    """

    allowed: Truth
    meanings: tuple[Meaning, ...]
    outside: dict[str, str]
    hard: frozenset[str]


def subject(bundle: Bundle) -> Subject:
    """Parses a bundle, and asks Cedar which action groups each action is in."""
    parsed = parse(bundle)
    named = {str(uid) for one in parsed if one.tree is not None for uid in pst.entity_uids(one.tree) if _action(uid)}
    entities = cedarpy.Entities.from_json_str("[]", bundle.schema)
    groups = {}
    for action, base in BASES.items():
        request = cedar_request(as_asked(Query("probe", (), action, "probe", base)))
        groups[action] = frozenset(
            name
            for name in named
            if cedarpy.is_authorized(request, f"permit (principal, action in {name}, resource);", entities).allowed
        )
    return Subject(bundle, parsed, groups)


Shared = dict[tuple[frozenset[str], str], Meaning]
"""What policies were found to mean for one action, by the action's groups and the policy's text."""


def decided(one: Subject, unknowns: Unknowns, shared: Shared) -> Decided:
    """The bundle's decision for the action of `unknowns`; `shared` holds what is known of policies, and grows."""
    groups = one.groups[unknowns.action]
    translator = Translator(unknowns, groups.__contains__)
    for parsed in one.parsed:
        # What two bundles share means the same in both, wherever actions are in the same groups.
        key = (groups, parsed.policy.text)
        if key not in shared:
            shared[key] = translator.policy(parsed)
    meanings = tuple(shared[groups, parsed.policy.text] for parsed in one.parsed)
    outside = {
        parsed.policy.id: meaning.outside
        for parsed, meaning in zip(one.parsed, meanings, strict=True)
        if meaning.outside
    }
    hard = frozenset(parsed.policy.id for parsed, meaning in zip(one.parsed, meanings, strict=True) if meaning.hard)
    effects = [parsed.policy.effect for parsed in one.parsed]
    errs = some(meaning.errs for meaning in meanings)
    permits = some(meaning.holds for meaning, effect in zip(meanings, effects, strict=True) if effect == "permit")
    forbids = some(meaning.holds for meaning, effect in zip(meanings, effects, strict=True) if effect == "forbid")
    allowed = every([permits, opposite(forbids), opposite(errs)])
    return Decided(allowed, meanings, outside, hard)


def _action(uid: pst.EntityUid) -> bool:
    return str(uid.type) == ACTION
