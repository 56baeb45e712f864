"""What a guest may import: the one description of every host function, its types, its C declaration and its meaning.

The validator refuses whatever is not here, the linker offers exactly this, and `ringfence.h` and the tables of
docs/guests.md are made from it. WebAssembly types follow from the C ones: a pointer is an i32. The names and types are
the guests' ABI and never change. WASI: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

RINGFENCE: Final = "ringfence"
WASI: Final = "wasi_snapshot_preview1"

Family = Literal["gpu", "quantum", "progress", "wasi"]

_TYPES: Final = {"int32_t": "i32", "uint32_t": "i32", "int64_t": "i64", "uint64_t": "i64", "double": "f64"}


@dataclass(frozen=True, slots=True)
class Import:
    """One host function.

    `parameters` and `results` are WebAssembly value types. `asynchronous` calls are queued, and run by the next call
    that is not. `addresses` says whether it reads or writes the guest's memory. `c_name` is its name in ringfence.h,
    empty when it is not declared there; `c_result` and `c_parameters` are its C types. `meaning` is a phrase.
    """

    module: str
    name: str
    parameters: tuple[str, ...]
    results: tuple[str, ...]
    asynchronous: bool
    family: Family
    addresses: bool
    c_name: str
    c_result: str
    c_parameters: str
    meaning: str


def _ringfence(
    family: Family,
    result: str,
    name: str,
    parameters: str,
    meaning: str,
    *,
    asynchronous: bool = False,
    addresses: bool = False,
) -> Import:
    types = _types(parameters)
    return Import(
        RINGFENCE, name, types, _result(result), asynchronous, family, addresses, name, result, parameters, meaning
    )


def _wasi(name: str, parameters: str, meaning: str, *, result: str = "int32_t", c_name: str = "") -> Import:
    types = _types(parameters)
    return Import(
        WASI, name, types, _result(result), False, "wasi", "*" in parameters, c_name, result, parameters, meaning
    )


def _types(parameters: str) -> tuple[str, ...]:
    """The WebAssembly types of C parameters."""
    declared = [] if parameters == "void" else parameters.split(", ")
    return tuple("i32" if "*" in one else _TYPES[one.split()[0]] for one in declared)


def _result(result: str) -> tuple[str, ...]:
    return () if result.endswith("void") else (_TYPES[result],)


_ALL: Final = (
    _ringfence(
        "gpu",
        "uint64_t",
        "amd_gpu_alloc",
        "uint64_t bytes, uint32_t flags",
        "reserves zeroed device memory; 0 when the job's pool is full; `flags` is 0",
    ),
    _ringfence(
        "gpu",
        "int32_t",
        "amd_gpu_copy",
        "uint64_t destination, uint64_t source, uint64_t bytes, uint32_t direction",
        "copies to the device, from it, or inside it; always 0",
        asynchronous=True,
        addresses=True,
    ),
    _ringfence(
        "gpu",
        "int32_t",
        "amd_gpu_kernel_launch",
        "const char *name, const ringfence_launch *launch, uint32_t launch_bytes",
        "queues a kernel of the host's catalogue; always 0",
        asynchronous=True,
        addresses=True,
    ),
    _ringfence(
        "gpu",
        "int32_t",
        "amd_gpu_sync",
        "uint32_t stream",
        "waits until everything queued before has run; always 0",
    ),
    _ringfence(
        "quantum",
        "int32_t",
        "quantum_gate",
        "uint32_t gate, uint32_t qubits, double angle",
        "queues a gate on one or two qubits; always 0",
        asynchronous=True,
    ),
    _ringfence(
        "quantum",
        "int32_t",
        "quantum_measure",
        "uint32_t qubit, uint32_t basis",
        "waits for the gates before it and measures one qubit, which collapses it: 0 or 1",
    ),
    _ringfence(
        "progress",
        "void",
        "security_checkpoint",
        "uint32_t id",
        "reports progress; the receipt counts it",
        asynchronous=True,
    ),
    _wasi("args_get", "uint8_t **arguments, uint8_t *text", "there are none"),
    _wasi("args_sizes_get", "uint32_t *count, uint32_t *bytes", "there are none"),
    _wasi("environ_get", "uint8_t **variables, uint8_t *text", "there are none"),
    _wasi("environ_sizes_get", "uint32_t *count, uint32_t *bytes", "there are none"),
    _wasi("clock_res_get", "uint32_t clock, uint64_t *resolution", "a nanosecond, of both clocks"),
    _wasi("clock_time_get", "uint32_t clock, uint64_t precision, uint64_t *time", "the real and the monotonic clock"),
    _wasi("fd_advise", "int32_t file, uint64_t offset, uint64_t bytes, uint32_t advice", "there are no files"),
    _wasi("fd_allocate", "int32_t file, uint64_t offset, uint64_t bytes", "there are no files"),
    _wasi("fd_close", "int32_t stream", "the three streams"),
    _wasi("fd_datasync", "int32_t file", "there are no files"),
    _wasi("fd_fdstat_get", "int32_t stream, void *state", "the three streams"),
    _wasi("fd_fdstat_set_flags", "int32_t stream, uint32_t flags", "appending and not blocking, which they do anyway"),
    _wasi("fd_fdstat_set_rights", "int32_t stream, uint64_t rights, uint64_t inherited", "rights can be given up"),
    _wasi("fd_filestat_get", "int32_t stream, void *state", "the three streams; of an unknown type and without times"),
    _wasi("fd_filestat_set_size", "int32_t file, uint64_t bytes", "there are no files"),
    _wasi(
        "fd_filestat_set_times",
        "int32_t file, uint64_t read, uint64_t written, uint32_t which",
        "there are no files",
    ),
    _wasi(
        "fd_pread",
        "int32_t file, const ringfence_vector *vectors, uint32_t count, uint64_t offset, uint32_t *done",
        "there are no files",
    ),
    _wasi("fd_prestat_get", "int32_t folder, void *state", "there are no folders"),
    _wasi("fd_prestat_dir_name", "int32_t folder, uint8_t *path, uint32_t bytes", "there are no folders"),
    _wasi(
        "fd_pwrite",
        "int32_t file, const ringfence_vector *vectors, uint32_t count, uint64_t offset, uint32_t *done",
        "there are no files",
    ),
    _wasi(
        "fd_read",
        "int32_t stream, const ringfence_vector *vectors, uint32_t count, uint32_t *done",
        "stream 0",
        c_name="ringfence_fd_read",
    ),
    _wasi(
        "fd_readdir",
        "int32_t folder, void *entries, uint32_t bytes, uint64_t cookie, uint32_t *used",
        "there are no folders",
    ),
    _wasi("fd_renumber", "int32_t stream, int32_t to", "one of the three streams takes the place of another"),
    _wasi("fd_seek", "int32_t stream, int64_t offset, uint32_t whence, uint64_t *place", "no stream can be sought"),
    _wasi("fd_sync", "int32_t file", "there are no files"),
    _wasi("fd_tell", "int32_t stream, uint64_t *place", "no stream has a place"),
    _wasi(
        "fd_write",
        "int32_t stream, const ringfence_vector *vectors, uint32_t count, uint32_t *done",
        "streams 1 and 2",
        c_name="ringfence_fd_write",
    ),
    _wasi("path_create_directory", "int32_t folder, const char *path, uint32_t bytes", "there are no folders"),
    _wasi(
        "path_filestat_get",
        "int32_t folder, uint32_t flags, const char *path, uint32_t bytes, void *state",
        "there are no folders",
    ),
    _wasi(
        "path_filestat_set_times",
        "int32_t folder, uint32_t flags, const char *path, uint32_t bytes, uint64_t read, uint64_t written,"
        " uint32_t which",
        "there are no folders",
    ),
    _wasi(
        "path_link",
        "int32_t folder, uint32_t flags, const char *path, uint32_t bytes, int32_t to_folder, const char *to_path,"
        " uint32_t to_bytes",
        "there are no folders",
    ),
    _wasi(
        "path_open",
        "int32_t folder, uint32_t flags, const char *path, uint32_t bytes, uint32_t how, uint64_t rights,"
        " uint64_t inherited, uint32_t state, int32_t *file",
        "there are no folders",
    ),
    _wasi(
        "path_readlink",
        "int32_t folder, const char *path, uint32_t bytes, uint8_t *text, uint32_t text_bytes, uint32_t *used",
        "there are no folders",
    ),
    _wasi("path_remove_directory", "int32_t folder, const char *path, uint32_t bytes", "there are no folders"),
    _wasi(
        "path_rename",
        "int32_t folder, const char *path, uint32_t bytes, int32_t to_folder, const char *to_path, uint32_t to_bytes",
        "there are no folders",
    ),
    _wasi(
        "path_symlink",
        "const char *text, uint32_t text_bytes, int32_t folder, const char *path, uint32_t bytes",
        "there are no folders",
    ),
    _wasi("path_unlink_file", "int32_t folder, const char *path, uint32_t bytes", "there are no folders"),
    _wasi(
        "poll_oneoff",
        "const void *subscriptions, void *events, uint32_t count, uint32_t *happened",
        "sleeps until a clock is due; the three streams are always ready",
    ),
    _wasi("proc_exit", "int32_t status", "ends the guest", result="_Noreturn void", c_name="ringfence_exit"),
    _wasi("proc_raise", "uint32_t signal", "ends the guest with 128 and the signal's number, if the signal ends one"),
    _wasi("random_get", "uint8_t *data, uint32_t bytes", "bytes of the kernel's random source"),
    _wasi("sched_yield", "void", "does nothing"),
    _wasi("sock_accept", "int32_t socket, uint32_t flags, int32_t *accepted", "there are no sockets"),
    _wasi(
        "sock_recv",
        "int32_t socket, const ringfence_vector *vectors, uint32_t count, uint32_t flags, uint32_t *done,"
        " uint32_t *flagged",
        "there are no sockets",
    ),
    _wasi(
        "sock_send",
        "int32_t socket, const ringfence_vector *vectors, uint32_t count, uint32_t flags, uint32_t *done",
        "there are no sockets",
    ),
    _wasi("sock_shutdown", "int32_t socket, uint32_t how", "there are no sockets"),
)

IMPORTS: Mapping[tuple[str, str], Import] = MappingProxyType({(one.module, one.name): one for one in _ALL})
"""Every host function, by import module and name, in the order of the documentation."""
