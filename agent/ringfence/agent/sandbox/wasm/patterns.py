"""The regular expression that passes over instructions, made from the table of opcodes.

Python's own loop takes half a microsecond an instruction; the expression engine passes over those that nobody asks
about at a hundredth of that. No two alternatives match the same bytes and nothing that follows can fail, so the time is
linear whatever the bytes. Possessive forms are avoided, because Python 3.11.2 matches some of them wrongly (gh-106052).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final

from ringfence.agent.sandbox.wasm.opcodes import INSTRUCTIONS, Immediate

# The expression engine keeps a frame for each instruction that it passed over, until it stops; so it stops this often.
RUN: Final = 4096

_SMALL: Final = rb"[\x00-\x7f]"
_MORE: Final = rb"[\x80-\xff]"
_U32: Final = rb"(?:%b{0,3}%b|%b{4}[\x00-\x0f])" % (_MORE, _SMALL, _MORE)
_S33: Final = rb"(?:%b{0,3}%b|%b{4}[\x00-\x0f\x70-\x7f])" % (_MORE, _SMALL, _MORE)
_U64: Final = rb"(?:%b{0,8}%b|%b{9}[\x00\x01])" % (_MORE, _SMALL, _MORE)
_INDEX_33: Final = rb"(?:%b{0,3}[\x00-\x3f]|%b{4}[\x00-\x0f])" % (_MORE, _MORE)
_HEAP: Final = rb"(?:[\x69-\x74]|%b)" % _INDEX_33
_REFERENCE: Final = rb"[\x63\x64]%b" % _HEAP
_WITH_MEMORY: Final = rb"[\x40-\x7f\xc0-\xff]"
_WITHOUT_MEMORY: Final = rb"[\x00-\x3f\x80-\xbf]"

_PATTERNS: Final = {
    Immediate.INDEX: _U32,
    Immediate.LABEL: _U32,
    Immediate.S32: rb"(?:%b{0,3}%b|%b{4}[\x00-\x07\x78-\x7f])" % (_MORE, _SMALL, _MORE),
    Immediate.S64: rb"(?:%b{0,8}%b|%b{9}[\x00\x7f])" % (_MORE, _SMALL, _MORE),
    Immediate.BYTE: rb"[\x00-\xff]",
    Immediate.FOUR: rb"[\x00-\xff]{4}",
    Immediate.EIGHT: rb"[\x00-\xff]{8}",
    Immediate.SIXTEEN: rb"[\x00-\xff]{16}",
    Immediate.MEMORY: rb"(?:(?=%b)%b|(?=%b)%b%b)%b" % (_WITHOUT_MEMORY, _U32, _WITH_MEMORY, _U32, _U32, _U64),
    Immediate.BLOCK: rb"(?:[\x40\x69-\x74\x7b-\x7f]|%b|%b)" % (_REFERENCE, _INDEX_33),
    Immediate.HEAP: _HEAP,
    Immediate.ONE_TYPE: rb"\x01(?:[\x69-\x74\x7b-\x7f]|%b)" % _REFERENCE,
}


def run_pattern(skipped: Iterable[int]) -> bytes:
    """A run of instructions with these opcodes, of at most `RUN`."""
    alike: defaultdict[tuple[int, tuple[Immediate, ...]], list[int]] = defaultdict(list)
    for opcode in skipped:
        prefix, second = _parts(opcode)
        alike[prefix, INSTRUCTIONS[opcode]].append(second)
    alternatives = [
        (_opcodes(prefix, seconds) if prefix else _class(seconds)) + b"".join(_PATTERNS[one] for one in immediates)
        for (prefix, immediates), seconds in sorted(alike.items(), key=lambda item: -len(item[1]))
    ]
    return rb"(?:%b){0,%d}" % (b"|".join(alternatives), RUN)


def instruction_pattern(alike: Sequence[int]) -> bytes:
    """One instruction with any of these short opcodes, which have the same immediates."""
    return _class(alike) + b"".join(_PATTERNS[one] for one in INSTRUCTIONS[alike[0]])


def _parts(opcode: int) -> tuple[int, int]:
    """The prefix, 0 for none, and the rest."""
    if opcode > 0xFFFF:
        return opcode >> 16, opcode & 0xFFFF
    return opcode >> 8, opcode & 0xFF


def _opcodes(prefix: int, seconds: Iterable[int]) -> bytes:
    """A prefix and any of the numbers, each as an LEB128 that may have more bytes than it needs."""
    by_high: defaultdict[int, list[int]] = defaultdict(list)
    for second in seconds:
        by_high[second >> 7].append(second & 0x7F)
    forms = []
    for high, lows in sorted(by_high.items()):
        padded = _class(low | 0x80 for low in lows)
        if high:
            forms.append(rb"%b(?:\x%02x|\x%02x\x80{0,2}\x00)" % (padded, high, high | 0x80))
        else:
            forms.append(rb"%b|%b\x80{0,3}\x00" % (_class(lows), padded))
    return rb"\x%02x(?:%b)" % (prefix, b"|".join(forms))


def _class(values: Iterable[int]) -> bytes:
    return rb"[%b]" % b"".join(rb"\x%02x" % value for value in values)
