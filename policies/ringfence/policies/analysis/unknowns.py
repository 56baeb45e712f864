"""A request as unknowns: what a solver may choose, for one action, and what it chose as a request again.

A text is a number that stands for it: the known texts are numbered from 0, and any other number is some other text.
That is enough for `==` and sets. What `like` says of an unknown text is a truth of its own for each pattern, and
`ringfence.policies.analysis.patterns` finds a text that fits.

A set is a truth for each text. A relation between two whole sets is checked over the texts that occur and one more,
which is enough: a difference between two sets has a witness, and every other element can be left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import z3

from ringfence.policies.analysis.logic import Number, Truth, every, opposite, some
from ringfence.policies.analysis.patterns import Pattern, conflict, expression, matches, realise
from ringfence.policies.analysis.requests import Asked, Fact
from ringfence.policies.cases import BASES
from ringfence.policies.decision import Action, DeviceStatus

LONG_MIN: Final = -(2**63)
LONG_MAX: Final = 2**63 - 1
_BASE_PRINCIPAL, _BASE_RESOURCE = "someone", "somewhere"
_RANGES: Final = {
    "device_trust": (0, 100),
    "device_reputation": (0, 100),
    "attestation_age_s": (-LONG_MAX, LONG_MAX),
    "directory_age_s": (-LONG_MAX, LONG_MAX),
    "risk": (0, 100),
    "hour_utc": (0, 23),
    "weekday_utc": (0, 6),
}
_COUNT = (0, LONG_MAX)


class Texts:
    """The texts that are known by name, and the patterns that unknown ones are compared with."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._patterns: dict[Pattern, Any] = {}
        self._compared: dict[tuple[int, Pattern], tuple[Any, Any]] = {}

    @property
    def known(self) -> tuple[str, ...]:
        return tuple(self._numbers)

    def number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def like(self, text: Number, pattern: Pattern) -> Truth:
        """Whether a text matches a pattern."""
        if isinstance(text, int):
            return matches(pattern, self.known[text])
        if pattern not in self._patterns:
            self._patterns[pattern] = z3.Function(f"like{len(self._patterns)}", z3.IntSort(), z3.BoolSort())
        name = z3.Bool(f"compared{len(self._compared)}")
        return self._compared.setdefault((text.get_id(), pattern), (name, text))[0]

    def facts(self) -> list[Truth]:
        """What the patterns say: of a known text what is so, of any other what the solver chooses."""
        known = self._numbers.items()
        found = []
        for (_, pattern), (name, text) in self._compared.items():
            unknown = z3.And(z3.Or(text < 0, text >= len(known)), self._patterns[pattern](text))
            matching = expression(pattern).fullmatch
            found.append(name == z3.Or(unknown, *(text == number for one, number in known if matching(one))))
        return found

    def plain(self) -> list[Truth]:
        """That texts match no pattern: where several are met, a text that meets them all may not exist."""
        return [z3.Not(name) for name, _ in self._compared.values()]

    def named(self, model: Any, number: int, taken: dict[int, str]) -> str | None:
        """The text that a number stands for in a model; None where no text is as the model has it."""
        if 0 <= number < len(self._numbers):
            return self.known[number]
        if number not in taken:
            text = realise(self._wanted(model, number), {*self._numbers, *taken.values()})
            if text is None:
                return None
            taken[number] = text
        return taken[number]

    def impossible(self, model: Any, number: int) -> Truth:
        """That no text is what the model says of this number: of two patterns where two of them exclude each other."""
        wanted = self._wanted(model, number)
        ruled_out = conflict(wanted) or wanted
        terms = {key: text for (key, _), (_, text) in self._compared.items()}
        return every(
            some(self._patterns[pattern](term) != want for pattern, want in ruled_out) for term in terms.values()
        )

    def _wanted(self, model: Any, number: int) -> list[tuple[Pattern, bool]]:
        return [
            (pattern, z3.is_true(model.eval(self._patterns[pattern](number), model_completion=True)))
            for pattern in self._asked_of(model, number)
        ]

    def _asked_of(self, model: Any, number: int) -> list[Pattern]:
        """The patterns that a policy compares with what has this number in a model."""
        texts = {key: text for (key, _), (_, text) in self._compared.items()}
        those = {key for key, text in texts.items() if _value(model, text) == number}
        return list(dict.fromkeys(pattern for key, pattern in self._compared if key in those))


@dataclass(slots=True)
class SetUnknown:
    """A set of texts that the solver chooses."""

    name: str
    base: tuple[int, ...]
    relation: Any
    looked_for: dict[str, Number] = field(default_factory=dict)
    related: bool = False

    def member(self, text: Number) -> Truth:
        self.looked_for[str(text)] = text
        return self.relation(text)


class Unknowns:
    """Every unknown of a request for one action; made anew for each comparison, since it collects what is asked."""

    def __init__(self, action: Action) -> None:
        self.action = action
        self.texts = Texts()
        self._base = BASES[action]
        self._plain = msgspec.structs.asdict(self._base) | {"device_status": self._base.device_status.value}
        self.principal = z3.Int("principal")
        self.resource = z3.Int("resource")
        self.groups = SetUnknown("groups", (), z3.Function("groups", z3.IntSort(), z3.BoolSort()))
        self.longs: dict[str, Any] = {}
        self.bools: dict[str, Any] = {}
        self.strings: dict[str, Any] = {}
        self.sets: dict[str, SetUnknown] = {}
        self.opaque: dict[object, tuple[Any, Any]] = {}
        self._related: list[tuple[Truth, Callable[[list[Number]], Truth]]] = []
        self.empty = self.texts.number("")
        self._names = (self.texts.number(_BASE_PRINCIPAL), self.texts.number(_BASE_RESOURCE))
        for name, value in self._plain.items():
            self._declare(name, value)
        self._statuses = [self.texts.number(status.value) for status in DeviceStatus]

    def _declare(self, name: str, value: object) -> None:
        if isinstance(value, bool):
            self.bools[name] = z3.Bool(name)
        elif isinstance(value, int):
            self.longs[name] = z3.Int(name)
        elif isinstance(value, str):
            self.texts.number(value)
            self.strings[name] = z3.Int(name)
        elif isinstance(value, tuple):
            relation = z3.Function(name, z3.IntSort(), z3.BoolSort())
            self.sets[name] = SetUnknown(name, tuple(self.texts.number(one) for one in value), relation)

    def relate(self, sets: tuple[SetUnknown, ...], holds: Callable[[list[Number]], Truth]) -> Truth:
        """A truth about whole sets, where `holds` says it over the texts that it is given."""
        for one in sets:
            one.related = True
        name = z3.Bool(f"related{len(self._related)}")
        self._related.append((name, holds))
        return name

    def unclear(self, expression: object) -> tuple[Any, Any]:
        """Whether an expression that is not understood errs, and whether it holds; the same for the same expression."""
        if expression not in self.opaque:
            count = len(self.opaque)
            self.opaque[expression] = (z3.Bool(f"errs{count}"), z3.Bool(f"holds{count}"))
        return self.opaque[expression]

    def schema(self) -> list[Truth]:
        """What every request that fits the schema keeps to; asked for once all policies are translated."""
        facts: list[Truth] = [z3.And(value >= LONG_MIN, value <= LONG_MAX) for value in self.longs.values()]
        universe = self._universe()
        for name, holds in self._related:
            facts.append(name == holds(universe))
        return [*facts, *self.texts.facts()]

    def ranges(self) -> list[Truth]:
        """What every request that a gateway asks keeps to, going by `ringfence.policies.decision`."""
        facts: list[Truth] = [self.principal != self.empty, self.resource != self.empty]
        for name, value in self.longs.items():
            low, high = _RANGES.get(name, _COUNT)
            if name == "body_bytes" and self.action is Action.ACCESS:
                low = -1
            facts.append(z3.And(low <= value, value <= high))
        facts.append(some(self.strings["device_status"] == status for status in self._statuses))
        return facts

    def ordinary(self) -> list[Truth]:
        """The request that a case begins with, one fact at a time: what a witness should differ from where it must."""
        facts: list[Truth] = [self.principal == self._names[0], self.resource == self._names[1]]
        for name, value in self._plain.items():
            if name in self.bools:
                facts.append(self.bools[name] if value else opposite(self.bools[name]))
            elif name in self.longs:
                facts.append(self.longs[name] == value)
            elif name in self.strings:
                facts.append(self.strings[name] == self.texts.number(value))
        for one in (self.groups, *self.sets.values()):
            for text in self._elements(one):
                usual = isinstance(text, int) and text in one.base
                facts.append(one.relation(text) if usual else z3.Not(one.relation(text)))
        return [*facts, *self.texts.plain()]

    def impossible(self, model: Any, taken: dict[int, str]) -> Truth | None:
        """Where no text is what a model says of one, the fact that rules this out; `taken` gets the texts found."""
        terms = [self.principal, self.resource, *self.strings.values()]
        chosen = [term for one in (self.groups, *self.sets.values()) for term in self._elements(one)]
        for term in (*terms, *(one for one in chosen if not isinstance(one, int))):
            number = _value(model, term)
            if self.texts.named(model, number, taken) is None:
                return self.texts.impossible(model, number)
        return None

    def request(self, model: Any, *, reachable: bool) -> Asked | Truth:
        """The request of a model, or where no text is what the model says of one, the fact that rules this out."""
        taken: dict[int, str] = {}
        impossible = self.impossible(model, taken)
        if impossible is not None:
            return impossible

        def text(term: Number) -> str:
            return self.texts.named(model, _value(model, term), taken) or ""

        def elements(one: SetUnknown) -> tuple[str, ...]:
            held = {text(term) for term in self._elements(one) if _holds(model, one.relation(term))}
            return tuple(sorted(held))

        context: dict[str, Fact] = {}
        for name in self._base.__struct_fields__:
            if name in self.bools:
                context[name] = _holds(model, self.bools[name])
            elif name in self.longs:
                context[name] = _value(model, self.longs[name])
            elif name in self.strings:
                context[name] = text(self.strings[name])
            else:
                context[name] = elements(self.sets[name])
        groups = elements(self.groups)
        return Asked(text(self.principal), groups, self.action, text(self.resource), context, reachable)

    def _elements(self, one: SetUnknown) -> list[Number]:
        """The texts that may be in a set; no policy can tell whether others are."""
        if one.related:
            return self._universe()
        usual = {str(number) for number in one.base}
        return [*one.base, *(term for name, term in one.looked_for.items() if name not in usual)]

    def _universe(self) -> list[Number]:
        strangers = [z3.Int(f"stranger{index}") for index in range(len(self._related))]
        return [*range(len(self.texts.known)), *self.strings.values(), *strangers]


def _value(model: Any, term: Number) -> int:
    return term if isinstance(term, int) else int(model.eval(term, model_completion=True).as_long())


def _holds(model: Any, term: Truth) -> bool:
    return term if isinstance(term, bool) else bool(z3.is_true(model.eval(term, model_completion=True)))
