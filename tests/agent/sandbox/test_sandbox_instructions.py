"""The instructions: the table has all of them, and the two ways of reading them agree on any bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from ringfence.agent.sandbox.wasm import MalformedModule, instructions
from ringfence.agent.sandbox.wasm.opcodes import INSTRUCTIONS, Immediate
from ringfence.agent.sandbox.wasm.patterns import run_pattern

HEAD = b"\0asm\1\0\0\0"


def leb(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def section(number: int, content: bytes) -> bytes:
    return bytes([number]) + leb(len(content)) + content


def wide_engine() -> wasmtime.Engine:
    """The runtime with all of WebAssembly 3.0."""
    config = wasmtime.Config()
    for feature in ("gc", "exceptions", "function_references", "memory64", "tail_call", "relaxed_simd", "multi_memory"):
        setattr(config, f"wasm_{feature}", True)
    return wasmtime.Engine(config)


# What the runtime knows and refuses beyond WebAssembly 3.0: old exceptions, stack switching, descriptors, discarding.
FOREIGN = {0x06, 0x07, 0x09, 0x18, 0x19, *range(0xE0, 0xE7), *range(0xFB20, 0xFB27), 0xFC12}


def test_the_table_has_exactly_the_instructions_of_the_specification() -> None:
    machine = wide_engine()

    def known(opcode: bytes) -> bool:
        body = b"\0" + opcode + bytes(24) + b"\x0b"
        code = section(10, b"\1" + leb(len(body)) + body)
        try:
            wasmtime.Module.validate(machine, HEAD + section(1, b"\1\x60\0\0") + section(3, b"\1\0") + code)
        except wasmtime.WasmtimeError as error:
            return not re.search(r"illegal opcode|unknown 0xf. subopcode", str(error))
        return True

    theirs = {opcode for opcode in range(0x100) if opcode < 0xFB and known(bytes([opcode]))}
    theirs |= {
        prefix << (16 if second > 0xFF else 8) | second
        for prefix in (0xFB, 0xFC, 0xFD)
        for second in range(0x180)
        if known(bytes([prefix]) + leb(second))
    }
    assert theirs - FOREIGN == set(INSTRUCTIONS)


def encoded(immediate: Immediate) -> st.SearchStrategy[bytes]:
    """The bytes of an immediate, numbers now and then with more bytes than they need."""
    index = st.tuples(st.integers(0, 0xFFFF), st.integers(0, 2)).map(lambda pair: padded(*pair))
    match immediate:
        case Immediate.INDEX | Immediate.LABEL:
            return index
        case Immediate.S32:
            return st.sampled_from([b"\0", b"\x7f", b"\x80\x80\x80\x80\x78", b"\xff\xff\xff\xff\x07"])
        case Immediate.S64:
            return st.sampled_from([b"\0", b"\x80" * 9 + b"\x7f", b"\xff" * 9 + b"\0"])
        case Immediate.MEMORY:
            return st.sampled_from([b"\0\0", b"\3\x10", b"\x42\1\0", b"\x82\0\x80\x01", b"\2" + b"\xff" * 9 + b"\1"])
        case Immediate.BLOCK:
            return st.sampled_from([b"\x40", b"\x7f", b"\x6f", b"\x00", b"\x63\x70", b"\x64\x03", b"\xff\0"])
        case Immediate.HEAP:
            return st.sampled_from([b"\x70", b"\x6f", b"\x05", b"\x80\x01"])
        case Immediate.ONE_TYPE:
            return st.sampled_from([b"\1\x7f", b"\1\x63\x70"])
        case Immediate.LABELS:
            return st.lists(index, max_size=5).map(lambda labels: leb(len(labels)) + b"".join(labels) + b"\0")
        case Immediate.CATCHES:
            return st.sampled_from([b"\x40\0", b"\x40\1\2\0", b"\x7f\2\0\1\0\3\1"])
        case Immediate.CAST:
            return st.just(b"\1\0\x6e\x70")
        case _:
            size = {Immediate.BYTE: 1, Immediate.FOUR: 4, Immediate.EIGHT: 8, Immediate.SIXTEEN: 16}[immediate]
            return st.binary(min_size=size, max_size=size)


def padded(value: int, more: int) -> bytes:
    plain = leb(value)
    return plain if not more else plain[:-1] + bytes([plain[-1] | 0x80]) + b"\x80" * (more - 1) + b"\0"


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], list[bytes]]:
    """Opcodes, and each instruction's bytes."""
    opcodes = draw(st.lists(st.sampled_from(sorted(INSTRUCTIONS)), max_size=12))
    parts = []
    for opcode in opcodes:
        if opcode < 0x100:
            head = bytes([opcode])
        else:
            prefix, second = (opcode >> 16, opcode & 0xFFFF) if opcode > 0xFFFF else (opcode >> 8, opcode & 0xFF)
            head = bytes([prefix]) + padded(second, draw(st.integers(0, 2)))
        parts.append(head + b"".join(draw(encoded(one)) for one in INSTRUCTIONS[opcode]))
    return opcodes, parts


def offsets(parts: list[bytes]) -> Iterator[int]:
    at = 0
    for part in parts:
        yield at
        at += len(part)


@given(streams())
def test_every_instruction_is_read_with_its_place(stream: tuple[list[int], list[bytes]]) -> None:
    opcodes, parts = stream
    code = b"".join(parts)
    read = list(instructions(code, 0, len(code)))
    assert [(one.offset, one.opcode) for one in read] == list(zip(offsets(parts), opcodes, strict=True))


# What the expression can pass over: everything but vectors, which have a length of their own.
PASSED = frozenset(
    opcode
    for opcode, immediates in INSTRUCTIONS.items()
    if not {Immediate.LABELS, Immediate.CATCHES, Immediate.CAST} & set(immediates)
)
RUN = re.compile(run_pattern(PASSED))


def first_refused(code: bytes) -> int:
    """Where the reader of single instructions stops."""
    at = 0
    try:
        for one in instructions(code, 0, len(code)):
            if one.opcode not in PASSED:
                return one.offset
            at = one.offset
    except MalformedModule:
        return after(code, at)
    return len(code)


def after(code: bytes, at: int) -> int:
    """The end of the instruction at `at`, the last one that can be read; `at` when there is none."""
    for end in range(at + 1, len(code) + 1):
        try:
            if len(list(instructions(code[:end], at, end))) == 1:
                return end
        except MalformedModule:
            continue
    return at


MORE = b"\x80\x80\x80\x80"


@pytest.mark.parametrize(
    ("head", "good", "bad"),
    [
        (b"\x20" + MORE, b"\x0f", b"\x10"),
        (b"\x20" + MORE, b"\0", b"\x80\0"),
        (b"\x41" + MORE, b"\x07", b"\x08"),
        (b"\x41" + MORE, b"\x78", b"\x77"),
        (b"\x42" + MORE + MORE + b"\x80", b"\x7f", b"\x7e"),
        (b"\x42" + MORE + MORE + b"\x80", b"\0", b"\1"),
        (b"\x28\0" + MORE + MORE + b"\x80", b"\1", b"\2"),
        (b"\x28" + MORE, b"\0\0", b"\x10\0"),
        (b"\x28\x40" + MORE, b"\x0f\0", b"\x1f\0"),
        (b"\xd0" + MORE, b"\x0f", b"\x10"),
        (b"\xd0", b"\x69", b"\x68"),
        (b"\xd0", b"\x3f", b"\x40"),
        (b"\x1c", b"\1\x7b", b"\1\x7a"),
        (b"\x1c", b"\1\x7f", b"\2\x7f\x7f"),
        (b"\xfc", b"\x91\x80\x80\x80\0\0", b"\x91\x80\x80\x80\x80\0\0"),
        (b"\xfd", b"\x93\x82\x80\x80\0", b"\x94\x82\x80\x80\0"),
        (b"\xfd", b"\x99\1", b"\x9a\1"),
    ],
)
def test_numbers_end_where_their_size_ends(head: bytes, good: bytes, bad: bytes) -> None:
    assert len(list(instructions(head + good, 0, len(head + good)))) == 1
    with pytest.raises(MalformedModule):
        list(instructions(head + bad, 0, len(head + bad)))
    for code, end in ((head + good, len(head + good)), (head + bad, 0)):
        found = RUN.match(code)
        assert found is not None
        assert found.end() == end


@given(streams(), st.binary(max_size=12))
def test_the_expression_passes_over_what_the_reader_reads(stream: tuple[list[int], list[bytes]], rest: bytes) -> None:
    code = b"".join(stream[1]) + rest
    found = RUN.match(code)
    assert found is not None
    assert found.end() == first_refused(code)
