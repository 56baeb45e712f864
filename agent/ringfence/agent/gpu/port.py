"""The GPU port: what a job's device must do, whatever hardware stands behind it.

A device belongs to one job. Its memory is that job's pool, zero when the job first sees it; addresses are numbers that
only this device understands. Every failure is a `SandboxError` with a `gpu.*` code, and no failure reaches another
job's memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class GpuDevice(Protocol):
    """One job's GPU. Commands take effect in the order in which they are given."""

    @property
    def name(self) -> str:
        """The adapter's name, as in the list of built-in adapters."""

    @property
    def peak_bytes(self) -> int:
        """The most bytes of the pool that were in use at one time."""

    def alloc(self, size: int) -> int:
        """Reserve `size` bytes, all zero; returns their address, a multiple of 256, or 0 when the pool is full.

        Raises `gpu.bad_argument` for a size of zero or less.
        """

    def write(self, address: int, data: bytes) -> None:
        """Copy `data` to `address`; raises `gpu.fault` unless all of it lies in one allocation."""

    def read(self, address: int, length: int) -> bytes:
        """The `length` bytes at `address`; raises `gpu.fault` unless all of them lie in one allocation."""

    def copy(self, destination: int, source: int, size: int) -> None:
        """Copy `size` bytes, which may overlap; raises `gpu.fault` unless each side lies in one allocation."""

    def launch(self, kernel: str, grid: int, block: int, arguments: Sequence[int]) -> None:
        """Run a catalogue kernel on `grid` blocks of `block` threads; each argument is 8 raw bytes as a number.

        Raises `gpu.kernel_unknown`, `gpu.bad_argument`, or `gpu.fault` when a pointer lies in no allocation or the
        kernel leaves the device's memory. A device that runs asynchronously may raise the last at a later call.
        """

    def sync(self) -> None:
        """Return when everything before has finished; raises `gpu.fault` when any of it failed."""

    def close(self) -> None:
        """Free the pool. A device is not used after it; closing twice does nothing."""
