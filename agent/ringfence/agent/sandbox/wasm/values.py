"""What a decoded module consists of. Every part knows its offset in the module's bytes."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

PAGE = 65_536
"""Bytes of a page of memory (WebAssembly Core 3.0, section 4.2.8)."""

BOUNDS: Mapping[str, int] = MappingProxyType(
    {
        "types": 20_000,
        "parameters or results": 1_000,
        "imports": 1_000,
        "functions": 100_000,
        "tables": 16,
        "memories": 16,
        "tags": 1_000,
        "globals": 20_000,
        "exports": 20_000,
        "element segments": 20_000,
        "elements": 1_000_000,
        "data segments": 100_000,
        "locals of a function": 10_000,
        "bytes of a function": 4 * 1024 * 1024,
        "bytes of a name": 10_000,
    }
)
"""The most of each that a module may have: implementation limits in the sense of appendix A.2 of the specification."""


class Kind(enum.IntEnum):
    """What an import or an export is."""

    FUNCTION = 0
    TABLE = 1
    MEMORY = 2
    GLOBAL = 3
    TAG = 4


@dataclass(frozen=True, slots=True)
class FunctionType:
    """Parameter and result types, each by its name in the text format."""

    parameters: tuple[str, ...]
    results: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableType:
    """A table's element type, its sizes in elements, and whether it is indexed by 64 bits or shared."""

    element: str
    minimum: int
    maximum: int | None
    wide: bool
    shared: bool
    offset: int


@dataclass(frozen=True, slots=True)
class MemoryType:
    """A memory's sizes in pages, and whether it is addressed by 64 bits or shared."""

    minimum: int
    maximum: int | None
    wide: bool
    shared: bool
    offset: int


@dataclass(frozen=True, slots=True)
class GlobalType:
    """A global's value type, and whether it can be set."""

    value: str
    mutable: bool
    offset: int


@dataclass(frozen=True, slots=True)
class Imported:
    """An import; `type` is the type's index for a function, else nothing that matters to a guest."""

    module: str
    name: str
    kind: Kind
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Export:
    """An export and the index of what it names."""

    name: str
    kind: Kind
    index: int
    offset: int


@dataclass(frozen=True, slots=True)
class Constant:
    """A constant expression.

    `value` is its integer, modulo the type's size, where it can be known without running anything. `functions` are
    those it makes references to. `extended` says that it uses what WebAssembly 2.0 does not have.
    """

    value: int | None
    functions: tuple[int, ...]
    extended: bool
    offset: int


@dataclass(frozen=True, slots=True)
class Elements:
    """An element segment: `place` is its table and first index when it is active, `count` how many it has."""

    place: tuple[int, Constant] | None
    functions: tuple[int, ...]
    count: int
    offset: int


@dataclass(frozen=True, slots=True)
class Data:
    """A data segment: `place` is its memory and address when it is active, `size` its bytes."""

    place: tuple[int, Constant] | None
    size: int
    offset: int


class Body(NamedTuple):
    """A function's code, from its first instruction to past its last; a tuple, because a module may have 100,000."""

    start: int
    end: int
    locals: int


@dataclass(frozen=True, slots=True)
class WasmModule:
    """A module. Indices are those of the specification: imports come first in every index space.

    `types` has None for a structure or an array. `functions` has the type's index for every function, `bodies` only
    those that the module defines. `constants` are the initial values of its globals and tables.
    """

    types: tuple[FunctionType | None, ...]
    imports: tuple[Imported, ...]
    functions: tuple[int, ...]
    bodies: tuple[Body, ...]
    tables: tuple[TableType, ...]
    memories: tuple[MemoryType, ...]
    globals: tuple[GlobalType, ...]
    constants: tuple[Constant, ...]
    exports: tuple[Export, ...]
    start: tuple[int, int] | None
    elements: tuple[Elements, ...]
    data: tuple[Data, ...]

    @property
    def imported_functions(self) -> int:
        """How many of the functions are imports."""
        return len(self.functions) - len(self.bodies)

    def function_type(self, index: int) -> FunctionType | None:
        """The type of a function; None where the indices lead nowhere, which valid modules do not have."""
        if index < len(self.functions) and self.functions[index] < len(self.types):
            return self.types[self.functions[index]]
        return None
