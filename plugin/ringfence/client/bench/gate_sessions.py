"""The gateway's memory: what a million sessions and nonces take, how fast they are found, and the longest pause."""

from __future__ import annotations

import gc
import hashlib
import json
import subprocess
import sys
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from ringfence.plugin.sessions.port import Session
    from ringfence.plugin.sessions.store import MemorySessions

DEFAULT_SESSIONS: Final = 1_000_000
LOOKUPS: Final = 200_000
REPEATED: Final = 10_000
NOW: Final = 1_800_000_000
LIFETIME_S: Final = 900


def measure(count: int = DEFAULT_SESSIONS) -> dict[str, Any]:
    """The figures for `count` sessions and as many nonces, each in a fresh process, whose whole memory is counted.

    Every session has a principal and a client certificate of its own. Times are wall-clock; those of the same number
    of look-ups in a plain dict say what the machine gave meanwhile. A pause is the longest single call of any sort,
    or run of the garbage collector, by wall clock and by processor time, which has no other process in it.
    """
    return {"sessions": _in_child("sessions", count), "nonces": _in_child("nonces", count)}


def _in_child(what: str, count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, what, str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - this module itself
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


class _Pauses:
    """The longest call of each sort, in ns of wall clock and of processor time."""

    def __init__(self) -> None:
        self.longest: dict[str, tuple[int, int]] = {}
        self._collecting = (0, 0)
        gc.callbacks.append(self._collected)

    @contextmanager
    def timed(self, sort: str) -> Iterator[None]:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        yield
        self._add(sort, wall, cpu)

    def figures(self) -> dict[str, Any]:
        """The longest of all, and of each sort by processor time."""
        return {
            "longest_pause_ms": round(max(wall for wall, _ in self.longest.values()) / 1e6, 2),
            "longest_pause_cpu_ms": round(max(cpu for _, cpu in self.longest.values()) / 1e6, 2),
            "pauses_cpu_ms": {sort: round(cpu / 1e6, 2) for sort, (_, cpu) in sorted(self.longest.items())},
        }

    def _add(self, sort: str, wall: int, cpu: int) -> None:
        spent = time.perf_counter_ns() - wall, time.thread_time_ns() - cpu
        before = self.longest.get(sort, (0, 0))
        self.longest[sort] = max(before[0], spent[0]), max(before[1], spent[1])

    def _collected(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting = time.perf_counter_ns(), time.thread_time_ns()
        else:
            self._add("garbage collector", *self._collecting)


def _sessions(count: int) -> dict[str, Any]:
    from ringfence.plugin.sessions.port import Selection
    from ringfence.plugin.sessions.snapshot import Header, seal_snapshot
    from ringfence.plugin.sessions.store import MemorySessions

    pauses = _Pauses()
    before = _resident_mb()
    store = MemorySessions(count)
    # As the gateway does once it is wired: what lives as long as the process is nothing to look for garbage in.
    gc.freeze()
    for number in range(count):
        session = _session(number)
        with pauses.timed("open"):
            store.add(session, now=session.opened_at)
    figures: dict[str, Any] = {"live": len(store), "rss_mb": _resident_mb(), "rss_before_mb": before}
    gc.collect()
    now = NOW + LIFETIME_S - 1
    # Tuples, which the garbage collector does not walk through: a gateway has no such lists either.
    anywhere = tuple(_name(int(_name(step), 16) % count) for step in range(min(LOOKUPS, count)))
    figures |= {f"lookup_{key}": value for key, value in _quantiles(lambda name: store.find(name, now=now), anywhere)}
    busy = anywhere[:REPEATED]
    for name in busy:
        store.touch(name, now=now)
    repeated = busy * (len(anywhere) // len(busy))
    figures |= {f"busy_lookup_{key}": value for key, value in _quantiles(lambda n: store.find(n, now=now), repeated)}
    figures |= {f"touch_{key}": value for key, value in _quantiles(lambda n: store.touch(n, now=now), repeated)}
    for selection in (Selection(principal=_session(count // 2).principal), Selection(host="h" * 46)):
        start = 0
        while start >= 0:
            with pauses.timed("slice of a scan"):
                _, start = store.scan((selection,), start)
    pieces = seal_snapshot(store, Header(1, "gateway", 1, bytes(32)), bytes(32))
    for _ in range(count // 256):
        with pauses.timed("step of a snapshot"):
            next(pieces, None)
    for name in busy:
        with pauses.timed("end"):
            store.end(name)
    _sweep(store, pauses)
    figures |= pauses.figures()
    plain = {_name(number): number for number in range(count)}
    return figures | {f"plain_dict_{key}": value for key, value in _quantiles(plain.get, anywhere)}


def _sweep(store: MemorySessions, pauses: _Pauses) -> None:
    while len(store):
        with pauses.timed("sweep"):
            store.sweep(now=NOW + 3 * LIFETIME_S)


def _nonces(count: int) -> dict[str, Any]:
    from ringfence.plugin.errors import REQUEST_REPLAYED
    from ringfence.plugin.replay import NonceLedger

    pauses = _Pauses()
    principals = tuple(f"rf1{number:043d}" for number in range(max(1, count // 100)))
    ledger = NonceLedger(lifetime_s=360, capacity=2 * count, quota=2 * count)
    gc.freeze()
    before = _resident_mb()
    times = array("Q", bytes(8 * count))
    for number in range(count):
        principal, nonce = principals[number % len(principals)], _name(number)
        began = time.perf_counter_ns()
        with pauses.timed("spend"):
            ledger.spend(principal, nonce, until=NOW + 90, now=NOW, code=REQUEST_REPLAYED)
        times[number] = time.perf_counter_ns() - began
    figures: dict[str, Any] = {
        "live": len(ledger),
        "bytes_each": round((_resident_mb() - before - 8 * count / 1e6) * 1e6 / count),
    }
    more = tuple(_name(count + number) for number in range(min(LOOKUPS, count)))
    figures |= {
        f"spend_{key}": value
        for key, value in _quantiles(
            lambda nonce: ledger.spend(principals[0], nonce, until=NOW + 90, now=NOW, code=REQUEST_REPLAYED), more
        )
    }
    for number in range(2000):
        with pauses.timed("spend as a bucket is dropped"):
            ledger.spend("p", str(number), until=NOW + 900, now=NOW + 800, code=REQUEST_REPLAYED)
    return figures | pauses.figures()


def _session(number: int) -> Session:
    from ringfence.plugin.sessions.port import Session

    opened = NOW + number % LIFETIME_S
    return Session(
        _name(number),
        f"rf1{number:043d}",
        ("job-submitters",),
        "h" * 46,
        "affirming",
        f"{number % 50:064x}",
        "b" * 64,
        opened,
        opened + LIFETIME_S,
        2 * LIFETIME_S,
        hashlib.blake2b(b"key %d" % number, digest_size=32).digest(),
        (("mtls", 0), ("webauthn", opened + 300)),
        hashlib.blake2b(b"certificate %d" % number, digest_size=32).hexdigest(),
        "tenant",
        ("clearance=3",),
        NOW,
        f"10.0.{number % 200}.{number % 250}",
    )


def _name(number: int) -> str:
    return hashlib.blake2b(number.to_bytes(8, "big"), digest_size=16).hexdigest()


def _quantiles(call: Callable[[str], object], arguments: Sequence[str]) -> list[tuple[str, float]]:
    """The median and the 99th percentile of a call in µs of wall clock, and the mean of its processor time.

    The wall clock is less what reading it takes.
    """
    clock = time.perf_counter_ns
    times = array("Q", bytes(8 * len(arguments)))
    spent = time.thread_time_ns()
    for at, argument in enumerate(arguments):
        began = clock()
        call(argument)
        times[at] = clock() - began
    spent = time.thread_time_ns() - spent
    idle = sorted(-(clock() - clock()) for _ in range(10_001))[5_000]
    ordered = sorted(times)
    middle, late = ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100]
    return [
        ("p50_us", round(max(0, middle - idle) / 1e3, 2)),
        ("p99_us", round(max(0, late - idle) / 1e3, 2)),
        ("cpu_us", round(spent / len(arguments) / 1e3, 2)),
    ]


def _resident_mb() -> float:
    """What the kernel counts as this process's memory (proc(5), statm), in 10^6 bytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * 4096 / 1e6, 1)


if __name__ == "__main__":
    json.dump({"sessions": _sessions, "nonces": _nonces}[sys.argv[1]](int(sys.argv[2])), sys.stdout)
