"""What the parent and the child that reads a bundle say to each other, as msgpack."""

from __future__ import annotations

from typing import Any

import msgspec

from ringfence.policies.bundle import Bundle, Case, Policy
from ringfence.policies.decision import Action, Query
from ringfence.policies.errors import PolicyError

MAX_ORDER_BYTES = 32 * 1024 * 1024
"""Most bytes of a bundle's files together, with those of the shipped bundles."""
MAX_ANSWER_BYTES = 128 * 1024 * 1024


class Order(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The bundle's files by path, and those of every bundle that it may extend by name."""

    files: dict[str, bytes]
    shipped: dict[str, dict[str, bytes]]


class CaseMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A case of the bundle. `context` has the attributes of its action's context."""

    name: str
    principal: str
    groups: tuple[str, ...]
    action: Action
    resource: str
    context: dict[str, Any]
    allowed: bool
    policies: tuple[str, ...]
    file: str

    @classmethod
    def of(cls, case: Case) -> CaseMessage:
        """A case as a message."""
        query = case.query
        context = msgspec.to_builtins(query.context)
        fields = (query.principal, query.groups, query.action, query.resource, context)
        return cls(case.name, *fields, case.allowed, case.policies, case.file)

    def case(self) -> Case:
        """The case; raises `msgspec.ValidationError` or `PolicyError` for a context that cannot be."""
        context = msgspec.convert(self.context, self.action.context_type)
        query = Query(self.principal, self.groups, self.action, self.resource, context)
        return Case(self.name, query, self.allowed, self.policies, self.file)


class Checked(msgspec.Struct, frozen=True, tag="checked", forbid_unknown_fields=True):
    """A bundle that passed every check, and the names of those that it extends."""

    name: str
    version: int
    description: str
    digest: str
    schema: str
    policies: tuple[Policy, ...]
    cases: tuple[CaseMessage, ...]
    extends: tuple[str, ...]

    @classmethod
    def of(cls, bundle: Bundle, extends: tuple[str, ...]) -> Checked:
        """A bundle as a message."""
        fields = (bundle.name, bundle.version, bundle.description, bundle.digest, bundle.schema, bundle.policies)
        return cls(*fields, tuple(map(CaseMessage.of, bundle.cases)), extends)

    def bundle(self) -> Bundle:
        """The bundle; raises `msgspec.ValidationError` or `PolicyError` for what cannot be."""
        cases = tuple(case.case() for case in self.cases)
        return Bundle(self.name, self.version, self.description, self.digest, self.schema, self.policies, cases)


class Refused(msgspec.Struct, frozen=True, tag="refused", forbid_unknown_fields=True):
    """Why a bundle is refused: the fields of a `PolicyError`, the code by its name."""

    code: str
    message: str
    field: str
    hint: str

    @classmethod
    def of(cls, error: PolicyError) -> Refused:
        """An error as a message."""
        return cls(error.code.name, error.message, error.field, error.hint)


Answer = Checked | Refused


def decode_answer(data: bytes) -> Answer:
    """The child's answer; raises `msgspec.MsgspecError`, `ValueError` (text that is no UTF-8), `RecursionError`."""
    decoded: Answer = msgspec.msgpack.decode(data, type=Answer)
    return decoded
