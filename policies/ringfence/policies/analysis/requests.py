"""Requests in the shape of Cedar's schema, which may hold numbers that no gateway sends, and Cedar's answer to them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import cedarpy
import msgspec

from ringfence.policies.bundle import Bundle
from ringfence.policies.cases import BASES
from ringfence.policies.decision import Action, Query
from ringfence.policies.engine import NAMESPACE

Fact = bool | int | str | tuple[str, ...]

_POSITIONAL_ID = re.compile(r"`?policy(\d+)`?")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that fits the schema; `reachable` says whether a gateway could ask it, going by its ranges."""

    principal: str
    groups: tuple[str, ...]
    action: Action
    resource: str
    context: dict[str, Fact]
    reachable: bool = True

    def document(self) -> dict[str, object]:
        """As JSON: the form that `ringfence policy explain --query` reads."""
        return {
            "principal": self.principal,
            "groups": list(self.groups),
            "action": self.action.value,
            "resource": self.resource,
            "context": _plain(self.context),
        }

    def unusual(self) -> dict[str, object]:
        """Its groups, and what of its context is not as in the base of the action's cases."""
        base = as_asked(Query(" ", (), self.action, " ", BASES[self.action])).context
        different = {name: fact for name, fact in self.context.items() if fact != base[name]}
        return {"groups": list(self.groups)} | _plain(different)


@dataclass(frozen=True, slots=True)
class Answer:
    """Ringfence's decision on a request: any error denies. `policies` are the ids that decided, sorted."""

    allowed: bool
    policies: tuple[str, ...]
    errors: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        return "allow" if self.allowed else "deny"


class Oracle:
    """Cedar's own answers for one bundle, with each request checked against the schema."""

    def __init__(self, bundle: Bundle) -> None:
        self._ids = tuple(policy.id for policy in bundle.policies)
        self._schema = cedarpy.Schema.from_str(bundle.schema)
        self._policies = cedarpy.PolicySet.from_str("\n".join(policy.text for policy in bundle.policies))
        self._entities = cedarpy.Entities.from_json_str("[]", bundle.schema)

    def answer(self, asked: Asked) -> Answer:
        """The decision; raises `ValueError` for a request that does not fit the schema."""
        entities = self._entities.with_added_json_str(_principal(asked))
        result = cedarpy.is_authorized(cedar_request(asked), self._policies, entities, self._schema)
        if result.decision is cedarpy.Decision.NoDecision:
            raise ValueError("; ".join(result.diagnostics.errors))
        errors = tuple(_POSITIONAL_ID.sub(self._named, error) for error in result.diagnostics.errors)
        if errors:
            return Answer(False, (), errors)
        reasons = sorted(self._ids[int(reason.removeprefix("policy"))] for reason in result.diagnostics.reasons)
        return Answer(result.allowed, tuple(reasons))

    def _named(self, match: re.Match[str]) -> str:
        return f"`{self._ids[int(match[1])]}`"


def cedar_request(asked: Asked) -> dict[str, object]:
    """In cedarpy's form."""
    return {
        "principal": {"type": f"{NAMESPACE}::Client", "id": asked.principal},
        "action": {"type": f"{NAMESPACE}::Action", "id": asked.action.value},
        "resource": {"type": f"{NAMESPACE}::{asked.action.resource_type}", "id": asked.resource},
        "context": msgspec.json.encode(asked.context).decode(),
    }


def as_asked(query: Query) -> Asked:
    """A query as a request."""
    context: dict[str, Fact] = {
        name: tuple(fact) if isinstance(fact, list) else fact
        for name, fact in msgspec.to_builtins(query.context).items()
    }
    return Asked(query.principal, query.groups, query.action, query.resource, context)


def as_query(asked: Asked) -> Query:
    """A request as a query; raises `PolicyError` or `msgspec.ValidationError` for one that no gateway asks."""
    context = msgspec.convert(asked.context, asked.action.context_type)
    return Query(asked.principal, asked.groups, asked.action, asked.resource, context)


def _plain(context: dict[str, Fact]) -> dict[str, object]:
    return {name: list(fact) if isinstance(fact, tuple) else fact for name, fact in context.items()}


def _principal(asked: Asked) -> str:
    parents = [{"type": f"{NAMESPACE}::Group", "id": group} for group in asked.groups]
    uid = {"type": f"{NAMESPACE}::Client", "id": asked.principal}
    return msgspec.json.encode([{"uid": uid, "attrs": {}, "parents": parents}]).decode()
