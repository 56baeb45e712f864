"""Reads what a function's code says about control: whom it calls, what it refers to, which loops it repeats.

Source: WebAssembly Core Specification 3.0, section 5.4; labels count outwards from the innermost block.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import compress
from types import MappingProxyType
from typing import Any, Final

from ringfence.agent.sandbox.wasm import opcodes
from ringfence.agent.sandbox.wasm.instructions import instruction
from ringfence.agent.sandbox.wasm.opcodes import INSTRUCTIONS, LATER
from ringfence.agent.sandbox.wasm.patterns import instruction_pattern, run_pattern
from ringfence.agent.sandbox.wasm.reading import MalformedModule, Reader
from ringfence.agent.sandbox.wasm.values import Body

_BLOCKS: Final = (opcodes.BLOCK, opcodes.IF)
_BRANCHES: Final = (opcodes.BR, opcodes.BR_IF)
_TABLE_WRITES: Final = frozenset(
    (opcodes.TABLE_SET, opcodes.TABLE_INIT, opcodes.TABLE_COPY, opcodes.TABLE_GROW, opcodes.TABLE_FILL)
)
# Those that are rare enough to be read one by one.
_RARE: Final = (
    LATER | _TABLE_WRITES | {opcodes.BR_TABLE, opcodes.CALL_INDIRECT, opcodes.RETURN_CALL_INDIRECT, opcodes.REF_FUNC}
)
_SKIPPED: Final = frozenset(INSTRUCTIONS) - _RARE - {*_BLOCKS, *_BRANCHES, opcodes.LOOP, opcodes.CALL, opcodes.END}

_BLOCK, _LOOP, _END, _BRANCH, _CALL = range(1, 6)
_NEXT: Final = re.compile(
    run_pattern(_SKIPPED)
    + rb"(?:(%b)|(%b)|(\x0b)|(%b)|(%b)|)"
    % (
        instruction_pattern(_BLOCKS),
        instruction_pattern((opcodes.LOOP,)),
        instruction_pattern(_BRANCHES),
        instruction_pattern((opcodes.CALL,)),
    )
)

_NOTHING: Final[Mapping[Any, int]] = MappingProxyType({})
_NO_PAIRS: Final = (array("I"), array("I"))
_NO_REFERENCES: Final[frozenset[int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Flow:
    """What one function does. A module may be made of calls alone, so nothing here takes more than its own code does.

    `calls` are the offsets of its direct calls and the functions called, in order; `indirect` is (type, table) -> the
    first offset of such a call, with -1 for the table of a call by reference; `references` are the functions that it
    makes references to; `loops` the offsets and ends of those that something branches back to; `table_writes` table ->
    the first offset of a write; `later` opcode -> its first offset, of what WebAssembly 2.0 does not have; `depth` how
    deeply its blocks are nested.
    """

    calls: tuple[array[int], array[int]]
    indirect: Mapping[tuple[int, int], int]
    references: frozenset[int]
    loops: tuple[array[int], array[int]]
    table_writes: Mapping[int, int]
    later: Mapping[int, int]
    depth: int


class _Scan:
    """What was found so far. A label is -1, or for a loop its place in `loops`."""

    def __init__(self, code: bytes, body: Body) -> None:
        self.reader = Reader(code, body.start, body.end)
        self.call_offsets = array("I")
        self.callees = array("I")
        self.indirect: dict[tuple[int, int], int] = {}
        self.references: set[int] = set()
        self.loop_offsets = array("I")
        self.loop_ends = array("I")
        self.repeated = bytearray()
        self.table_writes: dict[int, int] = {}
        self.later: dict[int, int] = {}
        self.labels = [-1]
        self.depth = 1

    def branch(self, label: int) -> None:
        """Note a branch to a label."""
        if label >= len(self.labels):
            raise MalformedModule(f"there is no label {label} here", self.reader.at)
        target = self.labels[~label]
        if target >= 0:
            self.repeated[target] = 1

    def open(self, loop: int = -1) -> None:
        """Note the begin of a block."""
        self.labels.append(loop)
        self.depth = max(self.depth, len(self.labels))

    def open_loop(self, offset: int) -> None:
        """Note the begin of a loop; its end is noted when it comes."""
        self.open(len(self.repeated))
        self.repeated.append(0)
        self.loop_offsets.append(offset)
        self.loop_ends.append(offset)

    def call(self, offset: int, callee: int) -> None:
        """Note a direct call."""
        self.call_offsets.append(offset)
        self.callees.append(callee)

    def rare(self) -> None:
        """Read one instruction."""
        offset, opcode, numbers = instruction(self.reader)
        if opcode in LATER:
            self.later.setdefault(opcode, offset)
        if opcode in _TABLE_WRITES:
            # table.init names the segment first, table.copy the table that is written.
            self.table_writes.setdefault(numbers[-1 if opcode == opcodes.TABLE_INIT else 0], offset)
        match opcode:
            case opcodes.BR_TABLE | opcodes.BR_ON_NULL | opcodes.BR_ON_NON_NULL:
                for label in set(numbers):
                    self.branch(label)
            case opcodes.BR_ON_CAST | opcodes.BR_ON_CAST_FAIL:
                self.branch(numbers[0])
            case opcodes.TRY_TABLE:
                for label in set(numbers):
                    self.branch(label)
                self.open()
            case opcodes.CALL_INDIRECT | opcodes.RETURN_CALL_INDIRECT:
                self.indirect.setdefault((numbers[0], numbers[1]), offset)
            case opcodes.CALL_REF | opcodes.RETURN_CALL_REF:
                self.indirect.setdefault((numbers[0], -1), offset)
            case opcodes.RETURN_CALL:
                self.call(offset, numbers[0])
            case opcodes.REF_FUNC:
                self.references.add(numbers[0])

    def finish(self) -> Flow:
        """What was found, once the function has ended; what is empty is shared, because most of it mostly is."""
        offsets, ends = compress(self.loop_offsets, self.repeated), compress(self.loop_ends, self.repeated)
        return Flow(
            calls=(self.call_offsets, self.callees) if self.callees else _NO_PAIRS,
            indirect=self.indirect or _NOTHING,
            references=frozenset(self.references) if self.references else _NO_REFERENCES,
            loops=(array("I", offsets), array("I", ends)) if self.repeated else _NO_PAIRS,
            table_writes=self.table_writes or _NOTHING,
            later=self.later or _NOTHING,
            depth=self.depth,
        )


def read_flow(code: bytes, body: Body) -> Flow:
    """What the code of a function does; raises `MalformedModule` where it does not decode."""
    scan = _Scan(code, body)
    reader, labels = scan.reader, scan.labels
    at, end = body.start, body.end
    match_next = _NEXT.match
    while labels:
        found = match_next(code, at, end)
        assert found is not None  # noqa: S101 - the expression matches nothing at all, too
        kind, after = found.lastindex, found.end()
        if kind == _END:
            loop = labels.pop()
            if loop >= 0:
                scan.loop_ends[loop] = after
        elif kind == _BRANCH:
            reader.at = found.start(_BRANCH) + 1
            scan.branch(reader.u32())
        elif kind == _CALL:
            offset = found.start(_CALL)
            reader.at = offset + 1
            scan.call(offset, reader.u32())
        elif kind == _BLOCK:
            scan.open()
        elif kind == _LOOP:
            scan.open_loop(found.start(_LOOP))
        elif after == at:
            reader.at = at
            scan.rare()
            after = reader.at
        at = after
    if at != end:
        raise MalformedModule("code goes on behind the end of its function", at)
    return scan.finish()
