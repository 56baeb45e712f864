"""Strings that match some patterns of `like` and not others: what turns a solver's answer back into text.

Patterns are Cedar's: characters, and wildcards that stand for any text. All of them are run side by side over the
characters that occur in them and one that occurs in none.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Collection, Sequence

from cedarpy import pst

Pattern = tuple[pst.PatternElem, ...]

MAX_STATES = 20_000
"""Most steps of a search. Patterns that need more are left undecided."""
_OTHERS = "xyzqjkw0123456789"


def matches(pattern: Pattern, text: str) -> bool:
    """Whether Cedar's `like` holds."""
    return expression(pattern).fullmatch(text) is not None


def expression(pattern: Pattern) -> re.Pattern[str]:
    """The pattern as a regular expression, to be matched as a whole."""
    pieces = (".*" if isinstance(element, pst.Wildcard) else re.escape(element.value) for element in pattern)
    return re.compile("".join(pieces), re.DOTALL)


def realise(wanted: Sequence[tuple[Pattern, bool]], excluded: Collection[str]) -> str | None:
    """A shortest text, not empty, that matches each pattern or not as `wanted`, and is none of `excluded`.

    None where the search ends without one.
    """
    patterns = [pattern for pattern, _ in wanted]
    letters = {element.value for pattern in patterns for element in pattern if isinstance(element, pst.Char)}
    other = next((one for one in _OTHERS if one not in letters), "")
    alphabet = [*([other] if other else []), *sorted(letters)]
    start = tuple(_start(pattern) for pattern in patterns)
    seen: Counter[tuple[frozenset[int], ...]] = Counter()
    waiting: deque[tuple[str, tuple[frozenset[int], ...]]] = deque([("", start)])
    for _ in range(MAX_STATES):
        if not waiting:
            return None
        text, states = waiting.popleft()
        holds = all((len(pattern) in now) is want for (pattern, want), now in zip(wanted, states, strict=True))
        if text and holds and text not in excluded:
            return text
        for letter in alphabet:
            after = tuple(_step(pattern, now, letter) for pattern, now in zip(patterns, states, strict=True))
            # As many ways into a state as there are texts that must not be used again.
            if seen[after] <= len(excluded) and _hopeful(wanted, after):
                seen[after] += 1
                waiting.append((text + letter, after))
    return None


def conflict(wanted: Sequence[tuple[Pattern, bool]]) -> list[tuple[Pattern, bool]] | None:
    """Two of `wanted` that no text meets together, if there are two such."""
    for first in wanted:
        if first[1]:
            for second in wanted:
                if second is not first and realise([first, second], ()) is None:
                    return [first, second]
    return None


def _hopeful(wanted: Sequence[tuple[Pattern, bool]], states: tuple[frozenset[int], ...]) -> bool:
    """Whether more characters may still lead to what is wanted."""
    for (pattern, want), now in zip(wanted, states, strict=True):
        if want and not now:
            return False
        if not want and pattern and isinstance(pattern[-1], pst.Wildcard) and len(pattern) - 1 in now:
            return False
    return True


def _start(pattern: Pattern) -> frozenset[int]:
    return _closed(pattern, {0})


def _step(pattern: Pattern, states: frozenset[int], character: str) -> frozenset[int]:
    after: set[int] = set()
    for state in states:
        if state == len(pattern):
            continue
        element = pattern[state]
        if isinstance(element, pst.Wildcard):
            after.add(state)
        elif element.value == character:
            after.add(state + 1)
    return _closed(pattern, after)


def _closed(pattern: Pattern, states: set[int]) -> frozenset[int]:
    """With the states behind wildcards that stand for nothing."""
    found = set(states)
    for state in states:
        following = state
        while following < len(pattern) and isinstance(pattern[following], pst.Wildcard):
            following += 1
            found.add(following)
    return frozenset(found)
