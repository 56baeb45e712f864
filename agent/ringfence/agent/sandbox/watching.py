"""Looks at one running worker every now and then; `monitor` decides what to make of it."""

from __future__ import annotations

import mmap
import time
from contextlib import ExitStack
from typing import Final

from ringfence.agent.sandbox import monitor
from ringfence.agent.sandbox import progress as progress_page
from ringfence.agent.sandbox.children import Child
from ringfence.agent.sandbox.monitor import ActiveKernel, Event, Observed, Sample, Watch
from ringfence.agent.sandbox.port import GuestJob, Usage

PAUSE_S: Final = 0.1


class Watcher:
    """One worker's monitor. `pause_s` is how long to wait between two looks."""

    pause_s = PAUSE_S

    def __init__(self, watch: Watch, worker: Child, progress: int, stack: ExitStack) -> None:
        self._watch = watch
        self._worker = worker
        self._page = memoryview(stack.enter_context(mmap.mmap(progress, progress_page.PAGE_BYTES)))
        stack.callback(self._page.release)
        self._observed: Observed = monitor.begin(Sample(time.monotonic_ns(), 0, 0, 0, 0, 0))

    def look(self) -> tuple[Event, ...]:
        """What has gone beyond the watch since the last look."""
        sample = self._sample()
        if sample is None:
            return ()
        self._observed, events = monitor.observe(self._observed, sample, self._watch)
        return events

    def last(self) -> Sample:
        """The worker as it stands now."""
        return self._sample() or self._observed.sample

    def _sample(self) -> Sample | None:
        return monitor.read_sample(self._worker.pid, self._page, time.monotonic_ns()) if self._worker.pid > 0 else None


class Running:
    """A job from when it is taken until it has ended. `watcher` is its worker's; None while its module is compiled."""

    def __init__(self, job: GuestJob) -> None:
        self.watcher: Watcher | None = None
        self._job = job
        self._since_s = time.time_ns() // 1_000_000_000
        self._began_ns = time.monotonic_ns()

    def now(self) -> ActiveKernel:
        """The job as it stands now."""
        job, now_ns = self._job, time.monotonic_ns()
        sample = Sample(now_ns, 0, 0, 0, 0, 0) if self.watcher is None else self.watcher.last()
        usage = Usage(
            wall_ms=(now_ns - self._began_ns) / 1e6,
            cpu_ms=sample.cpu_ns / 1e6,
            peak_memory_bytes=min(sample.guest_bytes, job.limits.memory_bytes),
            commands=sample.commands,
            checkpoints=sample.checkpoints,
        )
        return ActiveKernel(job.job_id, self._since_s, job.limits, job.level, usage)
