"""What an idle agent's processes hold of the machine's memory, as the kernel counts it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Held:
    """What one process holds.

    `measured` is "pss", its proportional share of every page (proc(5), smaps_rollup), or "rss" where the process keeps
    that to itself: then shared pages count in full, and the figure is too high.
    """

    process: str
    megabytes: float
    measured: str


def family(pid: int) -> list[int]:
    """The process `pid` and everything that descends from it."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for member in found:
        found += children.get(member, ())
    return found


def held_by(pids: Iterable[int], read: Callable[[Path], str] = Path.read_text) -> list[Held]:
    """What each process holds; one that has ended holds nothing."""
    held = []
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError):
            held.append(_held(PROC / str(pid), read))
    return held


def _held(folder: Path, read: Callable[[Path], str]) -> Held:
    name = read(folder / "comm").strip()
    try:
        kilobytes, measured = _field(read(folder / "smaps_rollup"), "Pss"), "pss"
    except PermissionError:
        kilobytes, measured = _field(read(folder / "status"), "VmRSS"), "rss"
    return Held(f"{name} {folder.name}", round(kilobytes * 1024 / 1e6, 1), measured)


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.listdir(PROC):
        if not entry.isdecimal():
            continue
        with suppress(FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            stat = (PROC / entry / "stat").read_text()
            # The name, between parentheses, may hold anything; state and parent follow its last one (proc(5), stat).
            yield int(entry), int(stat.rpartition(")")[2].split()[1])


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
    return int(found[1]) if found else 0
