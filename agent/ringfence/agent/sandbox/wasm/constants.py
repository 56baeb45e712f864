"""Decodes constant expressions and works out their value (WebAssembly Core 3.0, sections 3.4.13 and 5.4.9).

Nothing runs: integers and sums of them have a value, everything else is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from ringfence.agent.sandbox.wasm import types
from ringfence.agent.sandbox.wasm.reading import MalformedModule, Reader
from ringfence.agent.sandbox.wasm.values import Constant

_END = 0x0B

# Opcode -> what it computes and modulo which size.
_ARITHMETIC: Mapping[int, tuple[Callable[[int, int], int], int]] = MappingProxyType(
    {
        0x6A: (int.__add__, 1 << 32),
        0x6B: (int.__sub__, 1 << 32),
        0x6C: (int.__mul__, 1 << 32),
        0x7C: (int.__add__, 1 << 64),
        0x7D: (int.__sub__, 1 << 64),
        0x7E: (int.__mul__, 1 << 64),
    }
)
# Operands that they take, of those that build objects: second opcode after 0xFB -> how many indices follow.
_OBJECTS: Mapping[int, int] = MappingProxyType({0: 1, 1: 1, 6: 1, 7: 1, 8: 2, 26: 0, 27: 0, 28: 0})


def constant(reader: Reader, known: Sequence[int | None]) -> Constant:
    """The expression at the reader; `known` are the values of the globals before it."""
    start = reader.at
    stack: list[int | None] = []
    functions: list[int] = []
    extended = False
    while (opcode := reader.byte()) != _END:
        match opcode:
            case 0x41:
                stack.append(reader.s32() & 0xFFFF_FFFF)
            case 0x42:
                stack.append(reader.s64() & 0xFFFF_FFFF_FFFF_FFFF)
            case 0x43 | 0x44:
                reader.skip(4 if opcode == 0x43 else 8)
                stack.append(None)
            case 0x23:
                index = reader.u32()
                stack.append(known[index] if index < len(known) else None)
            case 0xD0:
                types.heap_type(reader)
                stack.append(None)
            case 0xD2:
                functions.append(reader.u32())
                stack.append(None)
            case 0xFD:
                _vector(reader)
                stack.append(None)
            case 0xFB:
                extended = True
                _object(reader)
                stack = [None]
            case _ if opcode in _ARITHMETIC:
                extended = True
                stack.append(_computed(opcode, _pop(stack), _pop(stack)))
            case _:
                raise MalformedModule(f"opcode {opcode:#04x} in a constant", reader.at - 1)
    value = stack[0] if len(stack) == 1 else None
    return Constant(value, tuple(functions), extended, start)


def _pop(stack: list[int | None]) -> int | None:
    return stack.pop() if stack else None


def _computed(opcode: int, second: int | None, first: int | None) -> int | None:
    operation, modulus = _ARITHMETIC[opcode]
    return None if first is None or second is None else operation(first, second) % modulus


def _vector(reader: Reader) -> None:
    if reader.u32() != 12:
        raise MalformedModule("a vector instruction other than v128.const in a constant", reader.at - 1)
    reader.skip(16)


def _object(reader: Reader) -> None:
    start = reader.at
    operands = _OBJECTS.get(reader.u32())
    if operands is None:
        raise MalformedModule("an instruction on objects that is none of a constant", start)
    for _ in range(operands):
        reader.u32()
