"""What the AuthZEN adapter asks. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Properties = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Entity:
    """A subject or a resource: its type, its id, and what the caller says of it."""

    type: str
    id: str
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Act:
    """An action by its name."""

    name: str
    properties: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """May `subject` do `action` on `resource` in this `context`: values of JSON, bounded in depth and size."""

    subject: Entity
    action: Act
    resource: Entity
    context: Properties = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer; `context` says why, in values of JSON."""

    allowed: bool
    context: Properties = field(default_factory=dict)


class Evaluator(Protocol):
    """The policies, for a caller who is trusted to name subject and context truthfully."""

    async def evaluate(self, question: Question) -> Decision:
        """The decision, once its audit record is durable. What cannot be evaluated is denied; raises `RingfenceError`
        only where nothing can be decided, which is answered with its status."""
        ...


class Directory(Protocol):
    """What a search may find: the known entities. A search never invents one."""

    def subjects(self, kind: str) -> Sequence[str]:
        """The ids of the known subjects of a type, in a fixed order."""
        ...

    def resources(self, kind: str) -> Sequence[str]:
        """The ids of the known resources of a type, in a fixed order."""
        ...

    def actions(self) -> Sequence[str]:
        """The names of the known actions, in a fixed order."""
        ...
