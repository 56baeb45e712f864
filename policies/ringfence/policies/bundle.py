"""What a policy bundle is once it has been checked: its policies, schema, cases and digest."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.policies.decision import Query


@dataclass(frozen=True, slots=True)
class Policy:
    """One Cedar policy. `effect` is "permit" or "forbid"; `file` and `line` say where its text begins.

    `step_up` is the identity factor with which a forbid would not deny, "" where none is named.
    """

    id: str
    description: str
    effect: str
    file: str
    line: int
    text: str
    step_up: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """One expectation of a bundle: this query, this answer, decided by exactly these policies."""

    name: str
    query: Query
    allowed: bool
    policies: tuple[str, ...]
    file: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle that passed every check of `ringfence.policies.assembly`.

    `digest` is the hex SHA-256 of the canonical listing of its files; `policies` is never empty and its ids are unique.
    """

    name: str
    version: int
    description: str
    digest: str
    schema: str
    policies: tuple[Policy, ...]
    cases: tuple[Case, ...]
