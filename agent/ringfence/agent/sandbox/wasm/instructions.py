"""Reads one instruction after another, each with its immediates and its place (WebAssembly Core 3.0, section 5.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ringfence.agent.sandbox.wasm import types
from ringfence.agent.sandbox.wasm.opcodes import INSTRUCTIONS, PREFIXES, Immediate
from ringfence.agent.sandbox.wasm.reading import MalformedModule, Reader


class Instruction(NamedTuple):
    """An instruction: its numbers are indices, labels and constants; types and raw bytes are passed over.

    A floating-point constant is the integer of its bits. A tuple, because there are millions.
    """

    offset: int
    opcode: int
    numbers: tuple[int, ...]


def instructions(code: bytes, start: int, end: int) -> Iterator[Instruction]:
    """The instructions between two offsets; raises `MalformedModule` at the first that is none."""
    reader = Reader(code, start, end)
    while reader.at < end:
        yield instruction(reader)


def instruction(reader: Reader) -> Instruction:
    """The instruction at the reader; raises `MalformedModule` when there is none."""
    offset = reader.at
    opcode = reader.byte()
    if opcode in PREFIXES:
        second = reader.u32()
        # A larger one must not be mistaken for another by what it shares with the prefix.
        opcode = opcode << (16 if second > 0xFF else 8) | second if second < 1 << 16 else -1
    immediates = INSTRUCTIONS.get(opcode)
    if immediates is None:
        raise MalformedModule(f"there is no instruction {reader.data[offset]:#04x} of that kind", offset)
    numbers: list[int] = []
    for immediate in immediates:
        _read(reader, immediate, numbers)
    return Instruction(offset, opcode, tuple(numbers))


def _read(reader: Reader, immediate: Immediate, numbers: list[int]) -> None:
    match immediate:
        case Immediate.INDEX | Immediate.LABEL:
            numbers.append(reader.u32())
        case Immediate.S32:
            numbers.append(reader.s32())
        case Immediate.S64:
            numbers.append(reader.s64())
        case Immediate.BYTE:
            numbers.append(reader.byte())
        case Immediate.FOUR | Immediate.EIGHT | Immediate.SIXTEEN:
            start = reader.skip(_SIZES[immediate])
            numbers.append(int.from_bytes(reader.data[start : reader.at], "little"))
        case Immediate.MEMORY:
            _memory_argument(reader)
        case Immediate.BLOCK:
            types.block_type(reader)
        case Immediate.HEAP:
            types.heap_type(reader)
        case Immediate.ONE_TYPE:
            _one_type(reader)
        case Immediate.LABELS:
            numbers += _labels(reader)
        case Immediate.CATCHES:
            types.block_type(reader)
            numbers += _catches(reader)
        case Immediate.CAST:
            reader.byte()
            numbers.append(reader.u32())
            types.heap_type(reader)
            types.heap_type(reader)


_SIZES = {Immediate.FOUR: 4, Immediate.EIGHT: 8, Immediate.SIXTEEN: 16}


def _memory_argument(reader: Reader) -> None:
    """Alignment, the memory's index if bit 6 of it says so, and the offset."""
    if reader.u32() & 0x40:
        reader.u32()
    reader.u64()


def _one_type(reader: Reader) -> None:
    start = reader.at
    if reader.u32() != 1:
        raise MalformedModule("a selection names other than one type", start)
    types.value_type(reader)


def _labels(reader: Reader) -> list[int]:
    start = reader.at
    count = reader.u32()
    if count >= reader.end - reader.at:
        raise MalformedModule(f"a table of {count} labels does not fit into its function", start)
    u32 = reader.u32
    return [u32() for _ in range(count + 1)]


def _catches(reader: Reader) -> list[int]:
    """The labels of a try_table's clauses, which do not count the try_table itself."""
    labels = []
    start = reader.at
    count = reader.u32()
    if count > reader.end - reader.at:
        raise MalformedModule(f"{count} clauses do not fit into their function", start)
    for _ in range(count):
        kind = reader.byte()
        if kind > 3:
            raise MalformedModule(f"there is no clause of the kind {kind}", reader.at - 1)
        if kind < 2:
            reader.u32()
        labels.append(reader.u32())
    return labels
