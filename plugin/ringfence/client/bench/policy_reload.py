"""How long a request waits for its decision while a thousand policies take the place of ten."""

from __future__ import annotations

import gc
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ringfence.client.bench.policy_bundles import job, ten, thousand

if TYPE_CHECKING:
    from ringfence.policies.bundle import Bundle

KEY: Final = "reload"
_EVERY_S: Final = 0.0005
"""The pause between two requests: one that comes while another thread computes shows what it waits."""


def measure(decisions: int) -> dict[str, Any]:
    """The figures: the longest and the 99th percentile of a request's wait in milliseconds, and the reload's seconds.

    The bundle is read from a folder by the limited child, then compiled on a thread beside the one that decides.
    """
    from ringfence.policies.compiled.guarded import Guard, GuardSettings
    from ringfence.policies.holder import BundleHolder, guarded_engine, paced
    from ringfence.policies.loading.checked import load_checked

    del decisions
    folder = Path(tempfile.mkdtemp(prefix="ringfence-bench-policy-"))
    try:
        _write(folder, thousand())
        sources: Iterator[Callable[[], Bundle]] = iter(
            [partial(replace, ten(), version=1), partial(load_checked, folder)]
        )
        engine = guarded_engine(Guard(GuardSettings(every=0), lambda: 0, lambda _: 0, lambda _: None))
        holder = BundleHolder(lambda: next(sources)(), engine, paced(time.perf_counter, time.sleep), lambda _: None)
        # As a daemon does once it has started: a full collection goes through all that it ever loaded.
        gc.collect()
        gc.freeze()
        idle = _waits(holder, threading.Event(), 1.0)
        done = threading.Event()
        taken: list[float] = []
        reloading = threading.Thread(target=_reload, args=(holder, done, taken))
        reloading.start()
        waits = _waits(holder, done, 300.0)
        reloading.join()
        if holder.bundle.version != 2:
            raise AssertionError("the bundle was not reloaded")
        longest_s = max(_steps(holder.bundle))
    finally:
        gc.unfreeze()
        shutil.rmtree(folder)
    return {
        "policies": len(holder.bundle.policies),
        "requests": len(waits),
        "max_wait_ms": round(max(waits), 2),
        "p99_wait_ms": round(sorted(waits)[-(-99 * len(waits) // 100) - 1], 2),
        "idle_max_wait_ms": round(max(idle), 2),
        "longest_step_cpu_ms": round(longest_s * 1000, 2),
        "seconds": round(taken[0], 2),
    }


def show(figures: dict[str, Any]) -> None:
    """Prints the figures for people."""
    print(
        f"\nreload of {figures['policies']:,} policies in {figures['seconds']} s: of {figures['requests']:,} requests "
        f"meanwhile none waited more than {figures['max_wait_ms']} ms (p99 {figures['p99_wait_ms']}; without a reload "
        f"{figures['idle_max_wait_ms']})\n"
        f"the longest step of compiling takes {figures['longest_step_cpu_ms']} ms of CPU"
    )


def _reload(holder: Any, done: threading.Event, taken: list[float]) -> None:
    started = time.perf_counter()
    try:
        holder.reload()
    finally:
        taken.append(time.perf_counter() - started)
        done.set()


def _waits(holder: Any, done: threading.Event, most_s: float) -> list[float]:
    """Milliseconds from when each request was due to its answer, until `done` or for so long."""
    query = job()
    waits: list[float] = []
    until = time.perf_counter() + most_s
    while not done.is_set() and time.perf_counter() < until:
        due = time.perf_counter() + _EVERY_S
        time.sleep(_EVERY_S)
        holder.decide(query)
        waits.append((time.perf_counter() - due) * 1000)
    return waits


def _steps(bundle: Bundle) -> Iterator[float]:
    """Seconds of CPU that each step of compiling takes, whatever else the machine does."""
    from ringfence.policies.compiled.decider import compile_in_steps

    began = time.thread_time()
    for _ in compile_in_steps(bundle):
        yield time.thread_time() - began
        began = time.thread_time()


def _write(folder: Path, bundle: Bundle) -> None:
    """The bundle as a folder of version 2."""
    (folder / "policies").mkdir()
    (folder / "manifest.toml").write_text('name = "bench"\nversion = 2\ndescription = "a benchmark\'s"\n')
    (folder / "schema.cedarschema").write_text(bundle.schema)
    texts = (f'@description("a benchmark\'s") {policy.text}' for policy in bundle.policies)
    (folder / "policies" / "bench.cedar").write_text("\n".join(texts))
