"""What a check looks at: a decoded module, what it is checked for, and what a check says about it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ringfence.agent.sandbox.levels import Level
from ringfence.agent.sandbox.validation.arguments import HostCall
from ringfence.agent.sandbox.validation.calls import CallGraph
from ringfence.agent.sandbox.wasm import Export, Flow, Kind, WasmModule
from ringfence.errors import Code


@dataclass(frozen=True, slots=True)
class Subject:
    """A module, the bytes of memory and the number of qubits that it may have.

    `flows` has an entry for each defined function, `calls` what follows from them; both are empty below level `high`.
    `quantum_calls` has the functions that call quantum imports directly, empty below level `quantum`.
    """

    code: bytes
    module: WasmModule
    memory_bytes: int
    qubits: int
    flows: tuple[Flow, ...]
    calls: CallGraph
    quantum_calls: tuple[tuple[HostCall, ...], ...]

    def exported(self, name: str, kind: Kind) -> Export | None:
        """The export of that name, if it is of that kind."""
        return next((one for one in self.module.exports if one.name == name and one.kind is kind), None)

    @property
    def end(self) -> int:
        """Where something that is missing was looked for last."""
        return len(self.code)


class Found(NamedTuple):
    """Whether the module is refused for it, one sentence why, and where."""

    refused: bool
    reason: str
    offset: int


@dataclass(frozen=True, slots=True)
class Check:
    """A check: the level from which it applies, the code of a refusal, what it is against, and what to do.

    `code` is None for those that refuse nothing and report. `find` is None for those that decide whether there is a
    module to look at.
    """

    name: str
    level: Level
    code: Code | None
    threat: str
    hint: str
    find: Callable[[Subject], Iterator[Found]] | None
