"""Policies as logic: when a policy holds for a request, and when evaluating it is an error.

Semantics: Cedar language reference, "Evaluation" and "Operators". `&&`, `||` and `if` evaluate only what they need;
arithmetic outside 64 bits is an error; so is reading an attribute that is not there. What is not understood (extension
types, attributes of entities) becomes an unknown truth of its own, which is the same wherever the same expression
stands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import z3
from cedarpy import pst

from ringfence.policies.analysis.logic import Truth, chosen, every, opposite, same, some
from ringfence.policies.analysis.syntax import Parsed
from ringfence.policies.analysis.unknowns import LONG_MAX, LONG_MIN, SetUnknown, Unknowns

CLIENT, GROUP, ACTION = "Ringfence::Client", "Ringfence::Group", "Ringfence::Action"

# The operators whose value is a truth, so that one that is not understood can be an unknown truth.
_TRUTHS = frozenset(
    {
        *("not", "and", "or", "eq", "not_eq", "less", "less_eq", "greater", "greater_eq", "in", "has_tag"),
        *("is_empty", "contains", "contains_all", "contains_any"),
        *("is_ipv4", "is_ipv6", "is_loopback", "is_multicast", "is_in_range"),
        *("decimal_less_than", "decimal_less_eq", "decimal_greater", "decimal_greater_eq"),
    }
)
_COMPARED: Mapping[str, Callable[[Any, Any], Truth]] = {
    "less": lambda left, right: left < right,
    "less_eq": lambda left, right: left <= right,
    "greater": lambda left, right: left > right,
    "greater_eq": lambda left, right: left >= right,
}
_COMPUTED: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": lambda left, right: left + right,
    "sub": lambda left, right: left - right,
    "mul": lambda left, right: left * right,
}


class Outside(Exception):  # noqa: N818 - never leaves this module
    """An expression that this translation does not understand."""


@dataclass(frozen=True, slots=True)
class Term:
    """An expression's value, and when evaluating it is an error.

    `value` by `kind`: truth; long and text: a number; entity: type and number of its id; set: an `Elements`; record:
    terms by name. What is missing always errs.
    """

    kind: str
    value: Any
    errs: Truth = False


@dataclass(frozen=True, slots=True)
class Elements:
    """A set: its elements where the policy wrote them out, else the unknown that holds them."""

    terms: tuple[Term, ...] = ()
    unknown: SetUnknown | None = None


@dataclass(frozen=True, slots=True)
class Meaning:
    """When a policy's conditions hold, and when they err; one that errs does not hold.

    `outside` says why it is not understood, and is empty where it is; `hard` that it multiplies what is not known,
    which a solver may not get through.
    """

    holds: Truth
    errs: Truth
    outside: str = ""
    hard: bool = False


class Translator:
    """Translates the policies of one bundle for one action. `within(group)` says whether the action is in a group."""

    def __init__(self, unknowns: Unknowns, within: Callable[[str], bool]) -> None:
        self._unknowns = unknowns
        self._within = within
        self._known: dict[pst.Expr, Term] = {}
        self._outside = ""
        self._hard = False

    def policy(self, parsed: Parsed) -> Meaning:
        """What a policy means for a request."""
        tree = parsed.tree
        # Anew for each policy, so that each says itself what it holds.
        self._known, self._outside, self._hard = {}, "", False
        if tree is None:
            errs, holds = self._unknowns.unclear(parsed.policy.text)
            return Meaning(holds, errs, "it nests deeper than 100 levels")
        scope = every(self._scopes(tree))
        if scope is False:
            return Meaning(False, False)
        holds, errs = scope, False
        for clause in tree.clauses:
            term = self._truth(clause.expr)
            errs = some([errs, every([holds, term.errs])])
            value = term.value if isinstance(clause, pst.When) else opposite(term.value)
            holds = every([holds, value])
        return Meaning(every([holds, opposite(errs)]), errs, self._outside, self._hard)

    def _scopes(self, tree: pst.Template) -> list[Truth]:
        principal = Term("entity", (CLIENT, self._unknowns.principal))
        return [
            self._scope(tree.principal, principal),
            self._action_scope(tree.action),
            self._scope(tree.resource, self._resource()),
        ]

    def _scope(self, constraint: pst.PrincipalOrResourceConstraint, entity: Term) -> Truth:
        match constraint:
            case pst.ScopeAny():
                return True
            case pst.ScopeEq(pst.EntityUid() as uid):
                return self._equal(entity, self._literal(uid))
            case pst.ScopeIn(pst.EntityUid() as uid):
                return self._is_in(entity, self._literal(uid))
            case pst.ScopeIs(entity_type):
                return bool(entity.value[0] == str(entity_type))
            case pst.ScopeIsIn(entity_type, pst.EntityUid() as uid):
                return entity.value[0] == str(entity_type) and self._is_in(entity, self._literal(uid))
        raise AssertionError("a bundle holds no templates")

    def _action_scope(self, constraint: pst.ActionConstraint) -> bool:
        match constraint:
            case pst.ActionEq(uid):
                return str(uid) == self._action_name()
            case pst.ActionIn(uids):
                return any(self._within(str(uid)) for uid in uids)
        return True

    def _action_name(self) -> str:
        return f'{ACTION}::"{self._unknowns.action.value}"'

    def _resource(self) -> Term:
        return Term("entity", (f"Ringfence::{self._unknowns.action.resource_type}", self._unknowns.resource))

    def _literal(self, uid: pst.EntityUid) -> Term:
        return Term("entity", (str(uid.type), self._unknowns.texts.number(uid.id)))

    def _truth(self, expression: pst.Expr) -> Term:
        try:
            term = self._term(expression)
        except Outside as reason:
            return self._opaque(expression, str(reason))
        if term.kind in ("truth", "missing"):
            return term
        return self._opaque(expression, f"it takes a {term.kind} for a truth")

    def _term(self, expression: pst.Expr) -> Term:
        known = self._known.get(expression)
        if known is not None:
            return known
        try:
            term = self._translated(expression)
        except Outside as reason:
            if getattr(expression, "op", "") not in _TRUTHS and not isinstance(expression, pst.Like | pst.Is):
                raise
            return self._opaque(expression, str(reason))
        self._known[expression] = term
        return term

    def _opaque(self, expression: object, reason: str) -> Term:
        self._outside = self._outside or reason
        errs, holds = self._unknowns.unclear(expression)
        return Term("truth", holds, errs)

    def _translated(self, expression: pst.Expr) -> Term:
        match expression:
            case pst.BoolLit(value):
                return Term("truth", value)
            case pst.LongLit(value):
                return Term("long", value)
            case pst.StringLit(value):
                return Term("text", self._unknowns.texts.number(value))
            case pst.EntityLit(uid):
                return self._literal(uid)
            case pst.Var("principal"):
                return Term("entity", (CLIENT, self._unknowns.principal))
            case pst.Var("resource"):
                return self._resource()
            case pst.Var("action"):
                return Term("entity", (ACTION, self._unknowns.texts.number(self._unknowns.action.value)))
            case pst.GetAttr(base, attribute):
                return self._attribute(base, attribute)
            case pst.HasAttr(pst.Var("context"), (attribute,)):
                return Term("truth", self._context(attribute) is not None)
            case pst.UnaryOp(op, argument):
                return self._unary(op, argument)
            case pst.BinaryOp(op, left, right):
                return self._binary(op, left, right)
            case pst.Like(base, pattern):
                text = self._of_kind(base, "text")
                return Term("truth", self._unknowns.texts.like(text.value, pattern), text.errs)
            case pst.Is(base, entity_type, group):
                return self._is(self._of_kind(base, "entity"), str(entity_type), group)
            case pst.IfThenElse(condition, then, otherwise):
                return self._if(condition, then, otherwise)
            case pst.Set(elements):
                terms = tuple(self._term(element) for element in elements)
                return Term("set", Elements(terms), some(term.errs for term in terms))
            case pst.Record(fields):
                record = {name: self._term(value) for name, value in fields.items()}
                return Term("record", record, some(term.errs for term in record.values()))
        raise Outside(f"it uses {type(expression).__name__} in a way that is not understood")

    def _of_kind(self, expression: pst.Expr, kind: str) -> Term:
        term = self._term(expression)
        if term.kind == "missing":
            return Term(kind, Elements() if kind == "set" else 0, True)
        if term.kind != kind:
            raise Outside(f"it takes a {term.kind} for a {kind}")
        return term

    def _context(self, attribute: str) -> Term | None:
        unknowns = self._unknowns
        if attribute in unknowns.bools:
            return Term("truth", unknowns.bools[attribute])
        if attribute in unknowns.longs:
            return Term("long", unknowns.longs[attribute])
        if attribute in unknowns.strings:
            return Term("text", unknowns.strings[attribute])
        if attribute in unknowns.sets:
            return Term("set", Elements(unknown=unknowns.sets[attribute]))
        return None

    def _attribute(self, base: pst.Expr, attribute: str) -> Term:
        if base == pst.Var("context"):
            # A policy that type-checks reads what is not there only where it has just asked for another action.
            return self._context(attribute) or Term("missing", False, True)
        record = self._of_kind(base, "record")
        if attribute not in record.value:
            raise Outside(f"it reads {attribute!r}, which a record does not have")
        return Term(record.value[attribute].kind, record.value[attribute].value, record.errs)

    def _unary(self, op: str, argument: pst.Expr) -> Term:
        if op == "not":
            term = self._truth(argument)
            return Term("truth", opposite(term.value), term.errs)
        if op == "neg":
            term = self._of_kind(argument, "long")
            return Term("long", -term.value, some([term.errs, same(term.value, LONG_MIN)]))
        if op == "is_empty":
            term = self._of_kind(argument, "set")
            return Term("truth", self._subset(term.value, Elements()), term.errs)
        raise Outside(f"it uses the extension {op!r}")

    def _binary(self, op: str, left: pst.Expr, right: pst.Expr) -> Term:
        if op in ("and", "or"):
            one, two = self._truth(left), self._truth(right)
            reached = one.value if op == "and" else opposite(one.value)
            errs = some([one.errs, every([reached, two.errs])])
            return Term("truth", (every if op == "and" else some)([one.value, two.value]), errs)
        if op in _COMPARED or op in _COMPUTED:
            first, second = self._of_kind(left, "long"), self._of_kind(right, "long")
            errs = some([first.errs, second.errs])
            if op in _COMPARED:
                return Term("truth", _COMPARED[op](first.value, second.value), errs)
            if op == "mul" and not isinstance(first.value, int) and not isinstance(second.value, int):
                self._hard = True
            value = _COMPUTED[op](first.value, second.value)
            return Term("long", value, some([errs, value < LONG_MIN, value > LONG_MAX]))
        first, second = self._term(left), self._term(right)
        if "missing" in (first.kind, second.kind):
            return Term("missing", False, True)
        return Term("truth", self._relation(op, first, second), some([first.errs, second.errs]))

    def _relation(self, op: str, left: Term, right: Term) -> Truth:
        if op in ("eq", "not_eq"):
            equal = self._equal(left, right)
            return equal if op == "eq" else opposite(equal)
        if op == "in" and left.kind == "entity":
            if right.kind == "entity":
                return self._is_in(left, right)
            if right.kind == "set" and right.value.unknown is None:
                return some(self._is_in(left, one) for one in right.value.terms)
        if op == "contains" and left.kind == "set":
            return self._contains(left.value, right)
        if left.kind == right.kind == "set":
            if op == "contains_all":
                return self._subset(right.value, left.value)
            if op == "contains_any":
                return self._overlap(left.value, right.value)
        raise Outside(f"it uses {op!r} in a way that is not understood")

    def _equal(self, left: Term, right: Term) -> Truth:
        if left.kind != right.kind:
            raise Outside("it compares values of two types")
        match left.kind:
            case "entity":
                return left.value[0] == right.value[0] and same(left.value[1], right.value[1])
            case "set":
                return every([self._subset(left.value, right.value), self._subset(right.value, left.value)])
            case "record":
                raise Outside("it compares records")
        return same(left.value, right.value)

    def _is_in(self, entity: Term, group: Term) -> Truth:
        equal = self._equal(entity, group)
        (kind, number), (above, above_number) = entity.value, group.value
        if kind == ACTION and above == ACTION and isinstance(above_number, int):
            name = self._unknowns.texts.known[above_number]
            own = number == self._unknowns.texts.number(self._unknowns.action.value)
            if not own and equal is not True:
                raise Outside("it asks whether another action is in a group")
            return self._within(f'{above}::"{name}"') if own else True
        if (kind, above) != (CLIENT, GROUP):
            return equal
        # Of all principals only the one that asks is known, with its groups.
        asks = same(number, self._unknowns.principal)
        return every([asks, self._unknowns.groups.member(above_number)])

    def _is(self, entity: Term, entity_type: str, group: pst.Expr | None) -> Term:
        if entity.value[0] != entity_type or group is None:
            return Term("truth", entity.value[0] == entity_type, entity.errs)
        above = self._term(group)
        return Term("truth", self._relation("in", entity, above), some([entity.errs, above.errs]))

    def _if(self, condition: pst.Expr, then: pst.Expr, otherwise: pst.Expr) -> Term:
        asked, one, two = self._truth(condition), self._term(then), self._term(otherwise)
        if one.kind != two.kind or one.kind not in ("truth", "long", "text"):
            raise Outside("it chooses between values that are not simple")
        errs = some([asked.errs, chosen(asked.value, one.errs, two.errs)])
        return Term(one.kind, chosen(asked.value, one.value, two.value), errs)

    def _contains(self, elements: Elements, term: Term) -> Truth:
        if elements.unknown is not None:
            if term.kind != "text":
                raise Outside("it looks in a set of texts for another type")
            return elements.unknown.member(term.value)
        return some(self._equal(term, one) for one in elements.terms)

    def _subset(self, part: Elements, whole: Elements) -> Truth:
        if part.unknown is None:
            return every(self._contains(whole, term) for term in part.terms)
        inner, sets = part.unknown, tuple(one for one in (part.unknown, whole.unknown) if one is not None)
        _only_texts(whole)
        return self._unknowns.relate(
            sets,
            lambda texts: z3.And([z3.Implies(inner.relation(text), self._has(whole, text)) for text in texts]),
        )

    def _overlap(self, left: Elements, right: Elements) -> Truth:
        if right.unknown is None:
            return some(self._contains(left, term) for term in right.terms)
        if left.unknown is None:
            return some(self._contains(right, term) for term in left.terms)
        one, two = left.unknown, right.unknown
        return self._unknowns.relate(
            (one, two), lambda texts: z3.Or([z3.And(one.relation(text), two.relation(text)) for text in texts])
        )

    def _has(self, elements: Elements, text: Any) -> Truth:
        if elements.unknown is not None:
            return elements.unknown.relation(text)
        return some(same(text, term.value) for term in elements.terms)


def _only_texts(elements: Elements) -> None:
    if any(term.kind != "text" for term in elements.terms):
        raise Outside("it compares a set of texts with one of another type")
