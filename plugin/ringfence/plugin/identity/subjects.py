"""From a factor's subject to the principal that is pinned here: explicit, in the configuration, and exact. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ringfence.plugin.identity.errors import SETTINGS_INVALID, SUBJECT_UNKNOWN, IdentityError
from ringfence.plugin.identity.names import checked
from ringfence.plugin.identity.port import Proven
from ringfence.plugin.identity.settings import SubjectSettings


@dataclass(frozen=True, slots=True)
class SubjectMap:
    """Who may be meant by each (factor, subject). More than one principal may share a device, say."""

    _principals: Mapping[tuple[str, str], frozenset[str]] = field(repr=False)
    _by_name: frozenset[str]

    @classmethod
    def of(cls, subjects: Iterable[SubjectSettings], *, named: Iterable[str] = ()) -> SubjectMap:
        """The map that `subjects` write; the factors `named` prove principals by their own name.

        Raises `identity.name_unsafe`, and `identity.settings_invalid` for the same line twice.
        """
        found: dict[tuple[str, str], frozenset[str]] = {}
        for entry in subjects:
            key = (entry.factor, checked(entry.subject, field="subject"))
            principal = checked(entry.principal, field="principal")
            held = found.get(key, frozenset())
            if principal in held:
                raise IdentityError(
                    SETTINGS_INVALID,
                    f"The subject {entry.subject!r} of {entry.factor} is given to {principal!r} twice.",
                    field="subjects",
                    hint="Remove one of the two.",
                )
            found[key] = held | {principal}
        return cls(found, frozenset(named))

    def principals(self, proven: Proven) -> frozenset[str]:
        """Whom `proven` may be. Raises `identity.name_unsafe`, and `identity.subject_unknown` for a stranger."""
        subject = checked(proven.subject, field="subject")
        held = self._principals.get((proven.factor, subject))
        if held is not None:
            return held
        if proven.factor in self._by_name:
            return frozenset({subject})
        raise IdentityError(
            SUBJECT_UNKNOWN,
            f"The subject that {proven.factor} proves belongs to no principal here.",
            field=proven.factor,
            hint="An operator can add it to the gateway's `identity.subjects`.",
        )
