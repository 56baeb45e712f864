"""Which instructions there are and which immediates follow each (WebAssembly Core 3.0, section 5.4 and appendix A.5).

One table; the reader of single instructions walks it, and the reader of whole functions turns it into a regular
expression that passes over what it need not look at. An opcode of two parts, like 0xFC 8, stands as 0xFC08.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final


class Immediate(enum.Enum):
    """What may follow an opcode."""

    INDEX = "u32"
    LABEL = "label"
    S32 = "s32"
    S64 = "s64"
    BYTE = "byte"
    FOUR = "4 bytes"
    EIGHT = "8 bytes"
    SIXTEEN = "16 bytes"
    MEMORY = "memory argument"
    BLOCK = "block type"
    HEAP = "heap type"
    ONE_TYPE = "vector of one value type"
    LABELS = "vector of labels, and one more"
    CATCHES = "block type and vector of catches"
    CAST = "flags, label and two heap types"


PREFIXES: Final = (0xFB, 0xFC, 0xFD)

BLOCK, LOOP, IF, TRY_TABLE, END = 0x02, 0x03, 0x04, 0x1F, 0x0B
BR, BR_IF, BR_TABLE, BR_ON_NULL, BR_ON_NON_NULL = 0x0C, 0x0D, 0x0E, 0xD5, 0xD6
BR_ON_CAST, BR_ON_CAST_FAIL = 0xFB18, 0xFB19
CALL, CALL_INDIRECT, RETURN_CALL, RETURN_CALL_INDIRECT, CALL_REF, RETURN_CALL_REF = range(0x10, 0x16)
REF_FUNC = 0xD2
TABLE_SET, TABLE_INIT, TABLE_COPY, TABLE_GROW, TABLE_FILL = 0x26, 0xFC0C, 0xFC0E, 0xFC0F, 0xFC11

_I = Immediate
_PLAIN: Final = (0x00, 0x01, 0x05, 0x0A, 0x0B, 0x0F, 0x1A, 0x1B, *range(0x45, 0xC5), 0xD1, 0xD3, 0xD4)
# A proposal of its own (WebAssembly/wide-arithmetic) that the runtime takes unless it is told otherwise.
_WIDE_ARITHMETIC: Final = range(0xFC13, 0xFC17)
_UNASSIGNED_VECTOR: Final = frozenset(
    {0x9A, 0xA2, 0xA5, 0xA6, 0xAF, 0xB0, 0xBB, 0xC2, 0xC5, 0xC6, 0xCF, 0xD0, 0xE2, 0xEE}
    | set(range(0xB2, 0xB5))
    | set(range(0xD2, 0xD5))
)


def _instructions() -> Iterator[tuple[int, tuple[Immediate, ...]]]:
    for opcode in _PLAIN:
        yield opcode, ()
    for opcode in (BLOCK, LOOP, IF):
        yield opcode, (_I.BLOCK,)
    yield TRY_TABLE, (_I.CATCHES,)
    for opcode in (BR, BR_IF, BR_ON_NULL, BR_ON_NON_NULL):
        yield opcode, (_I.LABEL,)
    yield BR_TABLE, (_I.LABELS,)
    # throw, call, return_call, call_ref, return_call_ref, locals, globals, tables, memory.size, memory.grow, ref.func
    for opcode in (0x08, CALL, RETURN_CALL, CALL_REF, RETURN_CALL_REF, *range(0x20, 0x27), 0x3F, 0x40, REF_FUNC):
        yield opcode, (_I.INDEX,)
    for opcode in (CALL_INDIRECT, RETURN_CALL_INDIRECT):
        yield opcode, (_I.INDEX, _I.INDEX)
    yield 0x1C, (_I.ONE_TYPE,)
    for opcode in range(0x28, 0x3F):
        yield opcode, (_I.MEMORY,)
    yield from ((0x41, (_I.S32,)), (0x42, (_I.S64,)), (0x43, (_I.FOUR,)), (0x44, (_I.EIGHT,)), (0xD0, (_I.HEAP,)))
    yield from _objects()
    for opcode, indices in enumerate((0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2, 1, 2, 1, 2, 1, 1, 1)):
        yield 0xFC00 | opcode, (_I.INDEX,) * indices
    for opcode in _WIDE_ARITHMETIC:
        yield opcode, ()
    yield from _vectors()


def _objects() -> Iterator[tuple[int, tuple[Immediate, ...]]]:
    indices = (1, 1, 2, 2, 2, 2, 1, 1, 2, 2, 2, 1, 1, 1, 1, 0, 1, 2, 2, 2)
    for opcode, count in enumerate(indices):
        yield 0xFB00 | opcode, (_I.INDEX,) * count
    for opcode in range(20, 24):
        yield 0xFB00 | opcode, (_I.HEAP,)
    for opcode in (24, 25):
        yield 0xFB00 | opcode, (_I.CAST,)
    for opcode in range(26, 31):
        yield 0xFB00 | opcode, ()


def _vectors() -> Iterator[tuple[int, tuple[Immediate, ...]]]:
    for opcode in set(range(0x114)) - _UNASSIGNED_VECTOR:
        match opcode:
            case 12 | 13:
                immediates: tuple[Immediate, ...] = (_I.SIXTEEN,)
            case _ if opcode < 12 or opcode in (0x5C, 0x5D):
                immediates = (_I.MEMORY,)
            case _ if 0x15 <= opcode <= 0x22:
                immediates = (_I.BYTE,)
            case _ if 0x54 <= opcode <= 0x5B:
                immediates = (_I.MEMORY, _I.BYTE)
            case _:
                immediates = ()
        yield 0xFD << (16 if opcode > 0xFF else 8) | opcode, immediates


INSTRUCTIONS: Mapping[int, tuple[Immediate, ...]] = MappingProxyType(dict(_instructions()))
"""Opcode -> its immediates. Relaxed vector instructions, of 0xFD and more than one byte, stand as 0xFD0100 and on."""

LATER: Final = frozenset(
    {*_WIDE_ARITHMETIC, 0x08, 0x0A, 0x1F, RETURN_CALL, RETURN_CALL_INDIRECT, CALL_REF, RETURN_CALL_REF}
    | {0xD3, 0xD4, BR_ON_NULL, BR_ON_NON_NULL}
    | {opcode for opcode in INSTRUCTIONS if opcode >> 8 == 0xFB or opcode >> 16 == 0xFD}
)
"""The instructions that WebAssembly 2.0 does not have."""
