"""Writes random Cedar expressions, directed by types, with a little that is ill-typed, missing or malformed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

TEXTS = ("", "a", "ab", "abc", "b", "a*b", "ü", 'q"uote', "back\\slash", "line\nbreak", "none", "affirming")
LONGS = (0, 1, 2, -1, 7, 60, 2**31, 2**63 - 1, -(2**63), 2**62, -(2**62), 3037000500)
PATTERNS = ("*", "", "a*", "*b", "a*b", "a\\*b", "*a*", "*a*b*", "ab", "**", "ü*", "*\\\\*", "a*c", "af*ing", "*ne")
IPS = (
    *("10.0.0.1", "10.0.0.0/8", "127.0.0.1", "127.0.0.0/7", "127.1.2.3/16", "224.0.0.1", "224.0.0.0/4", "224.0.0.0/3"),
    *("::1", "::1/127", "ff00::1", "ff00::/8", "ff00::/7", "fe80::1", "0.0.0.0/0", "::/0", "10.0.0.1/32", "9.0.0.0/8"),
    *("fe80:0:0:0:0:0:0:1", "::ffff:1.2.3.4", "1.2.3", "1.2.3.4/33", "1.2.3.4/08", "::1%1", "", "01.2.3.4", "::1/129"),
)
DECIMALS = (
    *("0.0", "-0.0", "1.5", "1.50", "-1.5", "1.4999", "922337203685477.5807", "-922337203685477.5808"),
    *("922337203685477.5808", "1.", ".5", "1", "1.00000", "+1.0", "1e3", " 1.0", "00001.5"),
)
DATETIMES = (
    *("2024-02-29", "2023-02-29", "1969-12-31", "1970-01-01", "0000-01-01", "9999-12-31", "2024-13-01", "2024-00-10"),
    *("2024-01-01T00:00:00Z", "2024-01-01T23:59:59.999Z", "2024-01-01T00:00:00+0100", "2024-01-01T00:00:00-0130"),
    *("2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "2024-01-01T00:00:00", "2024-01-01T00:00:00.1Z", "2024-1-1"),
    *("1969-12-31T12:30:00Z", "2024-01-01T00:00:00+2400", "2024-01-01T00:00:00+0060", "2024-04-31", "x"),
)
DURATIONS = (
    *("1d", "-1d", "1h", "90m", "1500ms", "-1500ms", "1d2h3m4s5ms", "0ms", "86400s", "1ms", "-1ms"),
    *("", "1h1d", "1x", "- 1d", "106751991168d", "9223372036854775807ms", "-9223372036854775808ms", "1d1d", "ms"),
)

Kind = str | tuple[str, object]
"""A scalar's name, ("set", kind) or ("record", fields)."""
SCALARS = ("bool", "long", "text", "entity", "ip", "decimal", "datetime", "duration")


@dataclass(frozen=True, slots=True)
class Shape:
    """What a request looks like: the kinds of the context's attributes, and of the entities' attributes and tags."""

    context: Mapping[str, Kind]
    entity: Mapping[str, Kind]
    tag: Kind
    uids: tuple[str, ...]
    """Entities as Cedar writes them."""
    types: tuple[str, ...]


def quoted(text: str) -> str:
    """A text as Cedar writes it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class Writer:
    """Writes expressions of a shape."""

    def __init__(self, random: Random, shape: Shape, noise: float = 0.03) -> None:
        self._random, self._shape, self._noise = random, shape, noise
        self._makers: Mapping[str, Callable[[int], str]] = {
            "bool": self._bool,
            "long": self._long,
            "text": self._text,
            "entity": self._entity,
            "ip": lambda depth: self._extension("ip", IPS, depth),
            "decimal": lambda depth: self._extension("decimal", DECIMALS, depth),
            "datetime": self._datetime,
            "duration": self._duration,
        }

    def write(self, kind: Kind, depth: int) -> str:
        """An expression that is most likely of this kind, nested at most so deep."""
        random = self._random
        if random.random() < self._noise:
            kind = self.kind(1)
        if depth > 0:
            depth -= 1
            held = self._attributes(kind)
            if held and random.random() < 0.45:
                return random.choice(held)
            if random.random() < 0.06:
                return f"(if {self.write('bool', depth)} then {self.write(kind, depth)} else {self.write(kind, depth)})"
            if kind == self._shape.tag and random.random() < 0.2:
                return f"({self.write('entity', depth)}).getTag({self._tag()})"
        if isinstance(kind, str):
            return self._makers[kind](depth)
        name, inside = kind
        if name == "set":
            assert isinstance(inside, str | tuple)
            return f"[{', '.join(self.write(inside, depth - 1) for _ in range(random.randrange(4)))}]"
        assert isinstance(inside, Mapping)
        return "{" + ", ".join(f"{quoted(key)}: {self.write(held, depth - 1)}" for key, held in inside.items()) + "}"

    def kind(self, depth: int) -> Kind:
        """Any kind."""
        if depth > 0 and self._random.random() < 0.3:
            return ("set", self._random.choice((*SCALARS, "text", "text", "long")))
        if depth > 0 and self._random.random() < 0.15:
            return ("record", {"x": self.kind(depth - 1), "a b": self.kind(depth - 1)})
        return self._random.choice(SCALARS)

    def _attributes(self, kind: Kind) -> list[str]:
        """What of a request has this kind. Entities' attributes only sometimes, since they are often missing."""
        found = [f"context.{name}" for name, held in self._shape.context.items() if held == kind]
        for name, held in self._shape.context.items():
            if isinstance(held, tuple) and held[0] == "record" and isinstance(held[1], Mapping):
                found += [f"context.{name}[{quoted(key)}]" for key, inside in held[1].items() if inside == kind]
        if self._random.random() < 0.3:
            entities = ("principal", "resource", *self._random.sample(self._shape.uids, 1))
            found += [
                f"{entity}.{name}" for name, held in self._shape.entity.items() if held == kind for entity in entities
            ]
        return found

    def _tag(self) -> str:
        return self.write("text", 0) if self._random.random() < 0.1 else self._random.choice(('"t"', '"u"'))

    def _bool(self, depth: int) -> str:
        random = self._random
        if depth <= 0:
            return random.choice(("true", "false"))
        depth -= 1

        def one(kind: Kind) -> str:
            return self.write(kind, depth)

        match random.randrange(24):
            case 0 | 1 | 2:
                return f"({one('bool')} && {one('bool')})"
            case 3 | 4 | 5:
                return f"({one('bool')} || {one('bool')})"
            case 6 | 7:
                return f"!({one('bool')})"
            case 8 | 9:
                kind = self.kind(2)
                return f"({one(kind)} {random.choice(('==', '!='))} {one(kind)})"
            case 10 | 11 | 12:
                kind = random.choice(("long", "long", "datetime", "duration"))
                return f"({one(kind)} {random.choice(('<', '<=', '>', '>='))} {one(kind)})"
            case 13:
                return f"({one('entity')} in {one('entity')})"
            case 14:
                return f"({one('entity')} in {one(('set', 'entity'))})"
            case 15 | 16:
                kind = random.choice(("text", "text", "long", "entity"))
                return f"({one(('set', kind))}).contains({one(kind)})"
            case 17:
                kind = ("set", random.choice(("text", "text", "long")))
                return f"({one(kind)}).{random.choice(('containsAll', 'containsAny'))}({one(kind)})"
            case 18:
                return f"({one(('set', random.choice(('text', 'long'))))}).isEmpty()"
            case 19:
                return f'({one("text")} like "{random.choice(PATTERNS)}")'
            case 20:
                return self._is(depth)
            case 21:
                return self._has(depth)
            case 22:
                method = random.choice(("isIpv4()", "isIpv6()", "isLoopback()", "isMulticast()", "isInRange"))
                call = f"isInRange({one('ip')})" if method == "isInRange" else method
                return f"({one('ip')}).{call}"
        method = random.choice(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"))
        return f"({one('decimal')}).{method}({one('decimal')})"

    def _is(self, depth: int) -> str:
        random = self._random
        base = random.choice(("principal", "resource", "action", self.write("entity", depth)))
        test = f"{base} is {random.choice(self._shape.types)}"
        return f"({test} in {self.write('entity', depth)})" if random.random() < 0.5 else f"({test})"

    def _has(self, depth: int) -> str:
        random = self._random
        if random.random() < 0.2:
            return f"({self.write('entity', depth)}).hasTag({self._tag()})"
        base = random.choice(("context", "context", "principal", "resource", self.write("entity", depth)))
        names = (*self._shape.context, *self._shape.entity, "nothing", "a b")
        name = random.choice(names)
        return f"({base} has {name if name.isidentifier() else quoted(name)})"

    def _long(self, depth: int) -> str:
        random = self._random
        if depth <= 0 or random.random() < 0.4:
            value = random.choice(LONGS) if random.random() < 0.5 else random.randrange(-5, 100)
            return str(value) if value >= 0 else f"({value})"
        depth -= 1
        match random.randrange(5):
            case 0:
                unit = random.choice(("Milliseconds", "Seconds", "Minutes", "Hours", "Days"))
                return f"({self.write('duration', depth)}).to{unit}()"
            case 1:
                return f"(-({self.write('long', depth)}))"
        return f"({self.write('long', depth)} {random.choice('+-*')} {self.write('long', depth)})"

    def _text(self, depth: int) -> str:
        del depth
        return quoted(self._random.choice(TEXTS))

    def _entity(self, depth: int) -> str:
        del depth
        return self._random.choice(("principal", "resource", "action", *self._shape.uids))

    def _extension(self, name: str, texts: tuple[str, ...], depth: int) -> str:
        if depth > 0 and self._random.random() < 0.05:
            return f"{name}({self.write('text', depth - 1)})"
        # The first ones are well-formed.
        choice = self._random.choice(texts if self._random.random() < 0.25 else texts[:8])
        return f"{name}({quoted(choice)})"

    def _datetime(self, depth: int) -> str:
        if depth <= 0 or self._random.random() < 0.5:
            return self._extension("datetime", DATETIMES, depth)
        base = self.write("datetime", depth - 1)
        return f"({base}).toDate()" if self._random.random() < 0.4 else f"({base}).offset({self._duration(depth - 1)})"

    def _duration(self, depth: int) -> str:
        if depth <= 0 or self._random.random() < 0.5:
            return self._extension("duration", DURATIONS, depth)
        base = self.write("datetime", depth - 1)
        if self._random.random() < 0.4:
            return f"({base}).toTime()"
        return f"({base}).durationSince({self.write('datetime', depth - 1)})"
