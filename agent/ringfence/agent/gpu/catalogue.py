"""The kernel catalogue: which kernels a job may launch, and with which arguments.

Each kernel is a HIP source beside this file, `catalogue/<name>.hip`; every device runs that same source. The kinds
below are checked against the compiled kernels by the tests.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from ringfence.agent.errors import DEVICE_ARGUMENT, KERNEL_UNKNOWN, SandboxError

MAX_BLOCK = 1024  # HIP's limit of threads a block
MAX_THREADS = 1 << 28  # 8-byte elements up to here stay below 2 GiB, so an element's 32-bit offset never wraps
ELEMENT_BYTES = 8


class Argument(enum.Enum):
    """How a kernel reads the 8 raw bytes of one argument."""

    POINTER = "pointer"
    I64 = "i64"
    U32 = "u32"
    F64 = "f64"


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel of the catalogue: its name, and its arguments in order."""

    name: str
    arguments: tuple[Argument, ...]

    def pointers(self, arguments: Sequence[int]) -> list[int]:
        """The addresses among `arguments`."""
        pairs = zip(self.arguments, arguments, strict=True)
        return [value for kind, value in pairs if kind is Argument.POINTER]


_POINTER, _I64, _U32, _F64 = Argument.POINTER, Argument.I64, Argument.U32, Argument.F64

KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {
        kernel.name: kernel
        for kernel in (
            Kernel("abs_difference_i64", (_POINTER, _POINTER, _I64, _U32)),
            Kernel("affine_f64", (_POINTER, _POINTER, _F64, _F64, _U32)),
            Kernel("block_sum_i64", (_POINTER, _POINTER, _U32)),
            Kernel("clip_i64", (_POINTER, _POINTER, _I64, _I64, _U32)),
            Kernel("square_i64", (_POINTER, _POINTER, _U32)),
        )
    }
)


def check_launch(name: str, grid: int, block: int, arguments: Sequence[int]) -> Kernel:
    """The kernel called `name`, when it can be launched like this.

    `grid` counts blocks, `block` threads in each; an argument is an unsigned 64-bit number. Raises `SandboxError`:
    `gpu.kernel_unknown`, or `gpu.bad_argument` with the field at fault. Whether a pointer is the job's own is for the
    device to check.
    """
    kernel = KERNELS.get(name)
    if kernel is None:
        raise SandboxError(
            KERNEL_UNKNOWN,
            f"The catalogue holds no kernel {name!r}.",
            field="kernel",
            hint=f"It holds {', '.join(KERNELS)}.",
        )
    if not 1 <= block <= MAX_BLOCK:
        raise _refused("block", f"A block of {block} threads is not between 1 and {MAX_BLOCK}.")
    if not 1 <= grid * block <= MAX_THREADS:
        raise _refused("grid", f"{grid} blocks of {block} are not between 1 and {MAX_THREADS} threads.")
    if len(arguments) != len(kernel.arguments):
        raise _refused("arguments", f"{name} takes {len(kernel.arguments)} arguments, not {len(arguments)}.")
    for position, (kind, value) in enumerate(zip(kernel.arguments, arguments, strict=True)):
        _check_argument(f"arguments[{position}]", kind, value)
    return kernel


def _check_argument(field: str, kind: Argument, value: int) -> None:
    if not 0 <= value < 1 << 64:
        raise _refused(field, f"{value} is not 8 raw bytes.")
    if kind is Argument.U32 and value >= 1 << 32:
        raise _refused(field, f"{value} does not fit into 32 bits.")
    if kind is Argument.POINTER and value % ELEMENT_BYTES:
        raise _refused(field, f"The pointer {value:#x} is not a multiple of {ELEMENT_BYTES}.")


def _refused(field: str, message: str) -> SandboxError:
    return SandboxError(DEVICE_ARGUMENT, message, field=field)
