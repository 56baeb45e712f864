"""A bundle's policies with their typed syntax trees, as cedarpy gives them."""

from __future__ import annotations

from dataclasses import dataclass

import cedarpy
from cedarpy import pst

from ringfence.policies.bundle import Bundle, Policy


@dataclass(frozen=True, slots=True)
class Parsed:
    """A policy and its tree; `tree` is None where cedarpy gives none (it refuses nesting over 100 levels)."""

    policy: Policy
    tree: pst.Template | None


def parse(bundle: Bundle) -> tuple[Parsed, ...]:
    """The policies of a bundle in their order."""
    text = "\n".join(policy.text for policy in bundle.policies)
    try:
        trees = cedarpy.PolicySet.from_str(text).to_pst().static_policies
    except ValueError:
        return tuple(Parsed(policy, _tree(policy)) for policy in bundle.policies)
    return tuple(Parsed(policy, trees[f"policy{index}"]) for index, policy in enumerate(bundle.policies))


def _tree(policy: Policy) -> pst.Template | None:
    try:
        return cedarpy.PolicySet.from_str(policy.text).to_pst().static_policies["policy0"]
    except ValueError:
        return None
