"""The Cedar adapter of the decision port: cedarpy with policies and entities parsed once.

Any diagnostic denies: an evaluation error, a query without a Cedar form, or a deciding policy without an id.
"""

from __future__ import annotations

import re

import cedarpy
import msgspec

from ringfence.policies.bundle import Bundle
from ringfence.policies.decision import Query, Verdict
from ringfence.policies.step_up import helping_factors

NAMESPACE = "Ringfence"
_POSITIONAL_ID = re.compile(r"`policy(\d+)`")


class CedarDecider:
    """Decides queries by one bundle. Stateless after construction and safe to share between threads."""

    def __init__(self, bundle: Bundle) -> None:
        self._ids = tuple(policy.id for policy in bundle.policies)
        self._policies = cedarpy.PolicySet.from_str(
            "\n".join(policy.text for policy in bundle.policies), release_gil=True
        )
        # The schema's action entities must be there, or a forbid on a group of actions would never match.
        self._entities = cedarpy.Entities.from_json_str("[]", bundle.schema, release_gil=True)
        self._factors = {policy.id: policy.step_up for policy in bundle.policies}
        self._digest = bundle.digest

    @property
    def bundle_digest(self) -> str:
        """SHA-256 of the bundle that decides, in hex."""
        return self._digest

    def decide(self, query: Query) -> Verdict:
        """Answer a query; denies whatever the engine could not evaluate."""
        try:
            # The query is not checked against the schema again, which would double the cost: its types were checked
            # when it was built, and the bundle's schema against those types when the bundle was loaded.
            entities = self._entities.with_added_json_str(principal_entity(query))
            result = cedarpy.is_authorized(request(query), self._policies, entities)
        except ValueError as error:
            return Verdict(False, (), (f"the query has no Cedar form ({type(error).__name__})",))
        names = result.diagnostics.id_annotations_by_reason
        reasons = result.diagnostics.reasons
        errors = [_POSITIONAL_ID.sub(self._name, text) for text in result.diagnostics.errors]
        errors += [f"the deciding policy {reason} has no id" for reason in reasons if reason not in names]
        if errors:
            return Verdict(False, (), tuple(errors))
        ids = tuple(sorted(names[reason] for reason in reasons))
        return Verdict(result.allowed, ids, (), () if result.allowed else helping_factors(ids, self._factors))

    def _name(self, match: re.Match[str]) -> str:
        return f"`{self._ids[int(match[1])]}`"


def request(query: Query) -> dict[str, object]:
    """A query in cedarpy's form; raises `ValueError` for text that is not Unicode (a lone surrogate)."""
    return {
        "principal": {"type": f"{NAMESPACE}::Client", "id": query.principal},
        "action": {"type": f"{NAMESPACE}::Action", "id": query.action.value},
        "resource": {"type": f"{NAMESPACE}::{query.action.resource_type}", "id": query.resource},
        "context": msgspec.json.encode(query.context).decode(),
    }


def principal_entity(query: Query) -> str:
    """The principal and its groups as Cedar's JSON entities; raises `ValueError` for text that is not Unicode."""
    groups = [{"type": f"{NAMESPACE}::Group", "id": group} for group in query.groups]
    uid = {"type": f"{NAMESPACE}::Client", "id": query.principal}
    return msgspec.json.encode([{"uid": uid, "attrs": {}, "parents": groups}]).decode()
