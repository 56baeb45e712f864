"""A query as a JSON document, for commands: what a case says, in the words of `ringfence.policies.cases`.

`context` holds what differs from the base of the action (`cases.BASES`); a witness of `diff` and the context of a
decision record hold all of it.
"""

from __future__ import annotations

import msgspec

from ringfence.policies.cases import BASES
from ringfence.policies.decision import Action, Query
from ringfence.policies.errors import BAD_QUERY, PolicyError

MAX_BYTES = 256 * 1024
"""Most bytes in a query's document."""


class _QueryText(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    principal: str
    action: Action
    resource: str
    groups: list[str] = []
    context: dict[str, bool | int | str | list[str]] = {}


def parse_query(data: bytes, file: str) -> Query:
    """Read one query; raises `PolicyError` (policy.bad_query) naming the file."""
    if len(data) > MAX_BYTES:
        raise _bad(file, f"It is larger than {MAX_BYTES} bytes.")
    try:
        text = msgspec.json.decode(data, type=_QueryText)
        base = BASES[text.action]
        unknown = sorted(set(text.context) - set(base.__struct_fields__))
        if unknown:
            raise _bad(file, f"It sets {unknown[0]!r}, which is no attribute of the context of {text.action.value}.")
        given = {name: sorted(set(one)) if isinstance(one, list) else one for name, one in text.context.items()}
        context = msgspec.convert(msgspec.to_builtins(base) | given, type(base))
        return Query(text.principal, tuple(text.groups), text.action, text.resource, context)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(file, f"It is no query: {error}.") from error


def _bad(file: str, message: str) -> PolicyError:
    return PolicyError(
        BAD_QUERY,
        message,
        field=file,
        hint="Write principal, groups, action, resource and, in context, what differs from the base of the action.",
    )
