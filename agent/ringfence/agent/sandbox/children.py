"""One process of a job: started with nothing inherited but named descriptors, reaped through its pidfd.

No thread waits for it and no signal handler is needed: the event loop watches the pidfd (pidfd_open(2)), so it is
reaped even if nobody awaits it any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChildEnd:
    """How a process ended: its exit status, negative for a signal, and the processor time it used."""

    status: int
    cpu_ms: float


class Child:
    """A running process in its own session, with an empty environment; needs a running event loop.

    Raises `OSError` when it cannot be started. `ended` is set once it has been reaped.
    """

    def __init__(self, command: Sequence[str], descriptors: Sequence[int], standard_error: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[ChildEnd] = self._loop.create_future()
        self._process = subprocess.Popen(  # noqa: S603 - our own programs, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=standard_error,
            env={},
            cwd="/",
            close_fds=True,
            pass_fds=descriptors,
            start_new_session=True,
        )
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise
        self._loop.add_reader(self._pidfd, self._reap)

    def kill(self) -> None:
        """SIGKILL, unless it has been reaped already."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _reap(self) -> None:
        _, status, used = os.wait4(self._process.pid, 0)
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self.ended.set_result(ChildEnd(self._process.returncode, (used.ru_utime + used.ru_stime) * 1000))
