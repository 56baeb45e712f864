"""The figures for people, and which promises they break."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ringfence.agent.sandbox.levels import Level
from ringfence.terminal import print_table, printable
from tools.conformance.programs import Family, ProgramFigures
from tools.conformance.spec import SpecFigures
from tools.conformance.wasi import WasiFigures

Figures = SpecFigures | WasiFigures | ProgramFigures

ACCEPTED_PERCENT: Final = 95
"""How much of the real modules for WASI level `high` has to accept."""


def broken(figures: Figures) -> Iterator[str]:
    """Every promise that does not hold, in a sentence."""
    match figures:
        case SpecFigures():
            for level, tally in figures.levels.items():
                yield from (f"{level}: {failure}" for failure in tally.failed)
        case WasiFigures():
            for level, failures in figures.failed.items():
                yield from (f"{level}: {failure}" for failure in failures)
        case ProgramFigures():
            accepted, modules = figures.wasi.accepted[Level.HIGH], figures.wasi.modules
            if 100 * accepted < ACCEPTED_PERCENT * modules:
                yield f"high: {accepted} of {modules} real modules for WASI are accepted"
            yield from (f"high: {difference}" for difference in figures.different)


def show(figures: Figures) -> None:
    """Print the figures."""
    match figures:
        case SpecFigures():
            _show_spec(figures)
        case WasiFigures():
            _show_wasi(figures)
        case ProgramFigures():
            _show_programs(figures)
    print()


def _show_spec(figures: SpecFigures) -> None:
    print(f"core specification: {figures.scripts} scripts ({figures.left_out} beside the core left out)")
    rows = [("LEVEL", "ASSERTIONS HOLD", "", "OF TEXT", "NOT OFFERED", "MODULES TAKEN", "RIGHTLY REFUSED")]
    for level, tally in figures.levels.items():
        offered = tally.passed + len(tally.failed)
        counts = (str(tally.text), str(sum(tally.apart.values())), str(tally.modules), str(tally.withheld))
        rows.append((level.value, f"{tally.passed} of {offered}", _percent(tally.passed, offered), *counts))
    print_table(rows)
    for level, tally in figures.levels.items():
        print(f"not offered at {level}: {_counts(tally.apart)}")


def _show_wasi(figures: WasiFigures) -> None:
    print(f"WASI preview 1: {figures.tests} tests, {figures.within} of them within what a guest is offered")
    rows = [("LEVEL", "TESTS PASS", "")]
    for level, passed in figures.passed.items():
        rows.append((level.value, f"{passed} of {figures.within}", _percent(passed, figures.within)))
    print_table(rows)
    print(f"not offered: {_counts({need: len(names) for need, names in figures.apart.items()})}")


def _show_programs(figures: ProgramFigures) -> None:
    print(f"real modules: {figures.wasi.modules} for WASI, {figures.others.modules} for other hosts", end="")
    print(f" (left out: {_counts(figures.left_out)})")
    rows = [("LEVEL", "FOR WASI ACCEPTED", "", "FOR OTHER HOSTS ACCEPTED", "")]
    rows += [(level.value, *_accepted(figures.wasi, level), *_accepted(figures.others, level)) for level in Level]
    print_table(rows)
    for family in (figures.wasi, figures.others):
        for refusal in family.refused[Level.HIGH]:
            print(printable(f"refused at high: {refusal}"))
    print(f"guests at high: {figures.same} of {figures.guests} end and write as under plain wasmtime: ", end="")
    print(f"{figures.well} with status 0, the others with another or a trap; ", end="")
    print(f"{figures.same - figures.repeatable} write something else each time, and are compared by their end alone")
    print(f"not run: {_counts(figures.not_run)}")


def _accepted(family: Family, level: Level) -> tuple[str, str]:
    accepted = family.accepted[level]
    return f"{accepted} of {family.modules}", _percent(accepted, family.modules)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _counts(counts: Mapping[str, int]) -> str:
    """Counts by name, the largest first."""
    by_size = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return printable(", ".join(f"{name} {count}" for name, count in by_size)) or "none"
