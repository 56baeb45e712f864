"""A job's pool of device memory: which addresses it may use.

Pure bookkeeping over an address range. Nothing is ever given back before the job ends, so memory that a job sees is
either its own or has never been used.
"""

from __future__ import annotations

from bisect import bisect_right

from ringfence.agent.errors import DEVICE_ARGUMENT, DEVICE_FAULT, SandboxError

ALIGNMENT = 256
# Of the CPU device: with MAX_THREADS below 2^28, no 32-bit address that a kernel computes wraps around.
MAX_POOL = (1 << 31) - (1 << 20)
MAX_ALLOCATIONS = 65_536  # bounds the bookkeeping that a hostile job can make its broker do


class Pool:
    """Addresses from `start` (a multiple of 256), `capacity` bytes of them, handed out in order."""

    def __init__(self, start: int, capacity: int) -> None:
        if start <= 0 or start % ALIGNMENT or capacity < 0:
            raise ValueError(f"a pool of {capacity} bytes cannot start at {start}")
        self._next = start
        self._start = start
        self._end = start + capacity
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def peak_bytes(self) -> int:
        """Bytes handed out, each allocation rounded up to the alignment."""
        return self._next - self._start

    def fits(self, size: int) -> bool:
        """Whether `reserve(size)` would give an address. Raises `gpu.bad_argument` for a size of zero or less."""
        if size <= 0:
            raise SandboxError(
                DEVICE_ARGUMENT, f"An allocation of {size} bytes is not possible.", hint="Ask for at least one byte."
            )
        return self._next + _rounded(size) <= self._end and len(self._starts) < MAX_ALLOCATIONS

    def reserve(self, size: int) -> int:
        """The address of `size` new bytes, or 0 when they do not fit."""
        if not self.fits(size):
            return 0
        address = self._next
        self._starts.append(address)
        self._ends.append(address + size)
        self._next += _rounded(size)
        return address

    def end_of(self, size: int) -> int:
        """The first address after `size` more bytes, were they reserved now."""
        return self._next + _rounded(size)

    def check(self, address: int, length: int) -> None:
        """Raise `gpu.fault` unless the `length` bytes from `address` lie in one allocation."""
        at = bisect_right(self._starts, address) - 1
        if length < 0 or at < 0 or address + length > self._ends[at]:
            raise SandboxError(
                DEVICE_FAULT,
                f"{length} bytes at device address {address:#x} do not lie in one allocation of this job.",
                hint="Use an address that amd_gpu_alloc returned and stay inside its size.",
            )


def _rounded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
