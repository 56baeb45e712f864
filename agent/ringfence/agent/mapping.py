"""Maps files and memory for good: what is mapped here stays until the process ends, and holds no descriptor.

Python's own `mmap` keeps a descriptor of its file and closes it when it goes, and a locked-down process gives up the
system call for that.
"""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, Final

from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError

# include/uapi/asm-generic/mman-common.h
_PROT_NONE, _PROT_READ, _PROT_READ_WRITE = 0, 1, 3
_MAP_SHARED, _MAP_PRIVATE, _MAP_FIXED = 0x01, 0x02, 0x10
_MAP_PRIVATE_ANONYMOUS_NORESERVE: Final = 0x02 | 0x20 | 0x4000
_FAILED: Final = ctypes.c_size_t(-1).value
# Include/memoryobject.h
_PYBUF_READ, _PYBUF_WRITE = 0x100, 0x200


class Mapper:
    """The system calls for it; the methods raise `SandboxError` (`sandbox.lockdown_failed`) when the kernel refuses."""

    def __init__(self) -> None:
        self._mmap, self._mprotect = _system_calls()

    def file(self, descriptor: int, size: int, *, writable: bool) -> memoryview:
        """The first `size` bytes of a file, shared with every other process that maps it."""
        protection = _PROT_READ_WRITE if writable else _PROT_READ
        address = self._mmap(0, size, protection, _MAP_SHARED, descriptor, 0)
        if address == _FAILED:
            raise _refused("map a file of its job")
        return bytes_at(address, size, writable=writable)

    def sealed(self, descriptor: int, size: int) -> memoryview:
        """The first `size` bytes of a file that nobody can write any more.

        A mapping of its own: before Linux 6.7 the kernel shares no file that is sealed against writing, not even to
        be read, with who holds a descriptor to write it (fcntl(2), F_SEAL_WRITE).
        """
        address = self._mmap(0, size, _PROT_READ, _MAP_PRIVATE, descriptor, 0)
        if address == _FAILED:
            raise _refused("map a file of its job")
        return bytes_at(address, size, writable=False)

    def file_at(self, address: int, descriptor: int, size: int) -> None:
        """Put a file over `size` bytes of memory that is mapped at `address`."""
        if self._mmap(address, size, _PROT_READ_WRITE, _MAP_SHARED | _MAP_FIXED, descriptor, 0) != address:
            raise _refused("map a file of its job")

    def reserve(self, size: int) -> int:
        """The address of `size` bytes that nobody can access yet."""
        address = int(self._mmap(0, size, _PROT_NONE, _MAP_PRIVATE_ANONYMOUS_NORESERVE, -1, 0))
        if address == _FAILED:
            raise _refused("reserve memory")
        return address

    def open(self, address: int, size: int) -> bool:
        """Whether `size` bytes from `address` could be made readable and writable."""
        return bool(self._mprotect(address, size, _PROT_READ_WRITE) == 0)


def bytes_at(address: int, size: int, *, writable: bool = True) -> memoryview:
    """A view of memory that is mapped; reaching what nobody can access ends the process.

    By Python's own C function for it: a ctypes array would first need a type of its own for every size.
    """
    view: memoryview = _from_memory()(address, size, _PYBUF_WRITE if writable else _PYBUF_READ)
    return view


@functools.cache
def _from_memory() -> Any:
    """PyMemoryView_FromMemory (Python/C API, MemoryView objects), looked up once a process."""
    function = ctypes.pythonapi.PyMemoryView_FromMemory
    function.restype = ctypes.py_object
    function.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
    return function


@functools.cache
def _system_calls() -> tuple[Any, Any]:
    """mmap(2) and mprotect(2), looked up once a process: a forked one would pay for it again."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_size_t
    libc.mmap.argtypes = (*[ctypes.c_size_t] * 2, *[ctypes.c_int] * 3, ctypes.c_long)
    libc.mprotect.argtypes = (ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int)
    return libc.mmap, libc.mprotect


def _refused(what: str) -> SandboxError:
    return SandboxError(
        LOCKDOWN_FAILED,
        f"The process could not {what} ({os.strerror(ctypes.get_errno())}).",
        hint="Look for a limit on the memory or the address space of the agent.",
    )
