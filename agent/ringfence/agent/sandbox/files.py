"""A job's memory files (memfd_create(2)): what goes in is sealed, what comes out has a fixed size."""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack

_FIXED = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK


def sealed(stack: ExitStack, name: str, content: bytes | memoryview) -> int:
    """A file with `content` that nobody can change any more."""
    descriptor = _new(stack, name)
    view = memoryview(content)
    while view:
        view = view[os.write(descriptor, view) :]
    seal(descriptor)
    return descriptor


def fixed(stack: ExitStack, name: str, size: int) -> int:
    """A writable file of exactly `size` bytes, zero."""
    descriptor = _new(stack, name)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FIXED)
    return descriptor


def growing(stack: ExitStack, name: str) -> int:
    """An empty file for another process to write, to be sealed when that has ended."""
    return _new(stack, name)


def seal(descriptor: int) -> None:
    """Make a file unchangeable. Raises `OSError` while somebody maps it writable."""
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _FIXED | fcntl.F_SEAL_WRITE)


def read_only(stack: ExitStack, descriptor: int) -> int:
    """A second descriptor of a memory file, through which it can be read and mapped but never written."""
    other = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, other)
    return other


def _new(stack: ExitStack, name: str) -> int:
    descriptor = os.memfd_create(f"ringfence-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    return descriptor
