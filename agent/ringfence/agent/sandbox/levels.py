"""What a job may be asked to be checked for, and what its result may be declared to be."""

from __future__ import annotations

import enum


class Level(enum.StrEnum):
    """How strictly a module is validated; each level does what the ones before it do, and more (docs/guests.md)."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    QUANTUM = "quantum"

    @property
    def locked(self) -> bool:
        """Whether only the features of the locked profile are accepted, and a result's numbers are looked at."""
        return self in (Level.HIGH, Level.QUANTUM)


class ResultType(enum.StrEnum):
    """What a guest's output is declared to be; it is validated after the run. Numbers are little-endian."""

    BYTES = "bytes"
    TEXT = "text"
    JSON = "json"
    I32 = "i32"
    I64 = "i64"
    F32 = "f32"
    F64 = "f64"
