"""Which arguments of calls to the host are constant.

Constants are followed from where they are pushed to the call that takes them, inside one basic block. What is not
surely known is unknown, so an argument that is called constant is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from ringfence.agent.sandbox.wasm import Body, WasmModule, instructions
from ringfence.agent.sandbox.wasm.opcodes import CALL

Value = int | float | None

_U32: Final = 0xFFFF_FFFF

# Opcode -> how many values it takes and gives; whatever is not here ends what is known.
_ARITY: Final = {
    0x01: (0, 0),
    0x1A: (1, 0),
    0x1B: (3, 1),
    0x1C: (3, 1),
    **dict.fromkeys((0x20, 0x23, 0x3F), (0, 1)),
    **dict.fromkeys((0x21, 0x24), (1, 0)),
    **dict.fromkeys((*range(0x28, 0x36), 0x40), (1, 1)),
    **dict.fromkeys(range(0x36, 0x3F), (2, 0)),
    **dict.fromkeys((0x42, 0x43), (0, 1)),
    **dict.fromkeys((0x45, 0x50, *range(0x67, 0x6A), *range(0x79, 0x7C), *range(0x8B, 0x92)), (1, 1)),
    **dict.fromkeys((*range(0x99, 0xA0), *range(0xA7, 0xC5)), (1, 1)),
    **dict.fromkeys((*range(0x46, 0x50), *range(0x51, 0x67), *range(0x6A, 0x79)), (2, 1)),
    **dict.fromkeys((*range(0x7C, 0x8B), *range(0x92, 0x99), *range(0xA0, 0xA7)), (2, 1)),
}
_I32_CONST, _F64_CONST, _LOCAL_TEE = 0x41, 0x44, 0x22


class HostCall(NamedTuple):
    """A call of a host function: where, its name, and its arguments, None for what is not constant."""

    offset: int
    name: str
    arguments: tuple[Value, ...]


def host_calls(code: bytes, module: WasmModule, body: Body, names: Mapping[int, str]) -> Iterator[HostCall]:
    """The calls that one function makes of those in `names`, in the order of its code."""
    # Only what is surely on top of the stack.
    stack: list[Value] = []
    for offset, opcode, numbers in instructions(code, body.start, body.end):
        if opcode == _I32_CONST:
            stack.append(numbers[0] & _U32)
        elif opcode == _F64_CONST:
            stack.append(struct.unpack("<d", numbers[0].to_bytes(8, "little"))[0])
        elif opcode in _ARITY:
            taken, given = _ARITY[opcode]
            del stack[max(0, len(stack) - taken) :]
            stack += [None] * given
        elif opcode == CALL and (kind := module.function_type(numbers[0])) is not None:
            count = len(kind.parameters)
            arguments = ([None] * count + stack)[-count:] if count else []
            del stack[max(0, len(stack) - count) :]
            stack += [None] * len(kind.results)
            if numbers[0] in names:
                yield HostCall(offset, names[numbers[0]], tuple(arguments))
        elif opcode != _LOCAL_TEE:
            stack.clear()
