"""Decodes types: values, references, functions, tables, memories, globals (WebAssembly Core 3.0, section 5.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from ringfence.agent.sandbox.wasm.reading import MalformedModule, Reader
from ringfence.agent.sandbox.wasm.values import FunctionType, GlobalType, MemoryType, TableType

NUMBERS: Mapping[int, str] = MappingProxyType({0x7F: "i32", 0x7E: "i64", 0x7D: "f32", 0x7C: "f64", 0x7B: "v128"})

_HEAP_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0x74: "noexn",
        0x73: "nofunc",
        0x72: "noextern",
        0x71: "none",
        0x70: "func",
        0x6F: "extern",
        0x6E: "any",
        0x6D: "eq",
        0x6C: "i31",
        0x6B: "struct",
        0x6A: "array",
        0x69: "exn",
    }
)
_PACKED = (0x77, 0x78)
_SUB, _SUB_FINAL, _GROUP = 0x50, 0x4F, 0x4E
_ARRAY, _STRUCTURE, _FUNCTION = 0x5E, 0x5F, 0x60
_HAS_MAXIMUM, _SHARED, _WIDE = 1, 2, 4


def type_section(reader: Reader) -> Iterator[FunctionType | None]:
    """The types of the section, recursive groups laid flat."""
    for _ in range(reader.count("types")):
        if _peek(reader) != _GROUP:
            yield _sub_type(reader)
            continue
        reader.byte()
        for _ in range(reader.count("types")):
            yield _sub_type(reader)


def value_type(reader: Reader) -> str:
    """A value type's name in the text format."""
    first = reader.byte()
    if first in NUMBERS:
        return NUMBERS[first]
    if first in _HEAP_TYPES:
        return f"{_HEAP_TYPES[first]}ref"
    if first == 0x64:
        return f"(ref {heap_type(reader)})"
    if first == 0x63:
        return f"(ref null {heap_type(reader)})"
    raise MalformedModule(f"there is no value type {first:#04x}", reader.at - 1)


def heap_type(reader: Reader) -> str:
    """A heap type's name, or its index."""
    start = reader.at
    value = reader.s33()
    if value >= 0:
        return str(value)
    name = _HEAP_TYPES.get(value & 0x7F) if value >= -64 else None
    if name is None:
        raise MalformedModule(f"there is no heap type {value}", start)
    return name


def block_type(reader: Reader) -> None:
    """Pass over the type of a block."""
    first = _peek(reader)
    if first == 0x40:
        reader.byte()
    elif first in NUMBERS or first in _HEAP_TYPES or first in (0x63, 0x64):
        value_type(reader)
    elif (value := reader.s33()) < 0:
        raise MalformedModule(f"there is no block type {value}", reader.at - 1)


def table_type(reader: Reader) -> TableType:
    """The type of a table."""
    start = reader.at
    element = value_type(reader)
    if element in NUMBERS.values():
        raise MalformedModule(f"a table cannot hold {element}", start)
    return TableType(element, *_limits(reader), offset=start)


def memory_type(reader: Reader) -> MemoryType:
    """The type of a memory."""
    start = reader.at
    return MemoryType(*_limits(reader), offset=start)


def global_type(reader: Reader) -> GlobalType:
    """The type of a global."""
    start = reader.at
    return GlobalType(value_type(reader), _flag(reader), start)


def _sub_type(reader: Reader) -> FunctionType | None:
    if _peek(reader) in (_SUB, _SUB_FINAL):
        reader.byte()
        reader.indices("types")
    start = reader.at
    match reader.byte():
        case 0x60:
            return FunctionType(_values(reader), _values(reader))
        case 0x5F:
            for _ in range(reader.count("parameters or results")):
                _field(reader)
        case 0x5E:
            _field(reader)
        case other:
            raise MalformedModule(f"there is no type {other:#04x}", start)
    return None


def _values(reader: Reader) -> tuple[str, ...]:
    return tuple([value_type(reader) for _ in range(reader.count("parameters or results"))])


def _field(reader: Reader) -> None:
    if _peek(reader) in _PACKED:
        reader.byte()
    else:
        value_type(reader)
    _flag(reader)


def _flag(reader: Reader) -> bool:
    start = reader.at
    value = reader.byte()
    if value > 1:
        raise MalformedModule(f"{value:#04x} says neither mutable nor immutable", start)
    return value == 1


def _limits(reader: Reader) -> tuple[int, int | None, bool, bool]:
    """Minimum, maximum, whether 64-bit, whether shared."""
    start = reader.at
    flags = reader.byte()
    if flags > _HAS_MAXIMUM | _SHARED | _WIDE:
        raise MalformedModule(f"there are no limits of the kind {flags:#04x}", start)
    minimum = reader.u64()
    maximum = reader.u64() if flags & _HAS_MAXIMUM else None
    return minimum, maximum, bool(flags & _WIDE), bool(flags & _SHARED)


def _peek(reader: Reader) -> int:
    """The next byte, or -1 at the end."""
    return reader.data[reader.at] if reader.at < reader.end else -1
