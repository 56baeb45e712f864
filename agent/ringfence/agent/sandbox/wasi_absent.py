"""The part of WASI preview 1 that is about files, folders and sockets: a guest has none, and here is what it hears.

A library imports these functions whether its program opens a file or not, so they have to be there. None of them does
anything or looks at the guest's memory: a descriptor that is not open is BADF, and a stream answers what POSIX says of
a pipe. There is no folder to start a path from, so no path is ever looked at.
Source: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1); POSIX.1-2017 for the errors of a pipe.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from ringfence.agent.sandbox.hostcalls import HostFunction
from ringfence.agent.sandbox.wasi_abi import BADF, INVAL, NOTCAPABLE, NOTDIR, NOTSOCK, SPIPE

# What a stream answers, where the descriptor stands among a function's parameters, and which functions they are.
_OF_A_STREAM: Final[tuple[tuple[int, int, tuple[str, ...]], ...]] = (
    # It has no place to be at.
    (SPIPE, 0, ("fd_advise", "fd_allocate", "fd_pread", "fd_pwrite", "fd_seek", "fd_tell")),
    # It is on no disk: fsync(2) and ftruncate(2) of a pipe.
    (INVAL, 0, ("fd_datasync", "fd_sync", "fd_filestat_set_size")),
    (NOTCAPABLE, 0, ("fd_filestat_set_times",)),
    # It was not there as a folder from the start; a library goes through such ones until it hears this.
    (BADF, 0, ("fd_prestat_dir_name", "fd_prestat_get")),
    (
        NOTDIR,
        0,
        (
            "fd_readdir",
            "path_create_directory",
            "path_filestat_get",
            "path_filestat_set_times",
            "path_link",
            "path_open",
            "path_readlink",
            "path_remove_directory",
            "path_rename",
            "path_unlink_file",
        ),
    ),
    # Its descriptor is behind the text that the link would hold.
    (NOTDIR, 2, ("path_symlink",)),
    (NOTSOCK, 0, ("sock_accept", "sock_recv", "sock_send", "sock_shutdown")),
)


def functions(streams: Container[int]) -> Mapping[str, HostFunction]:
    """Every such function, by its import name. `streams` are the descriptors that are open when one is called."""
    offered: dict[str, HostFunction] = {}
    for error, at, names in _OF_A_STREAM:
        # One for all of them, because every job makes them anew.
        offered.update(dict.fromkeys(names, _answering(streams, error, at)))
    return offered


def _answering(streams: Container[int], error: int, at: int) -> HostFunction:
    def answer(*arguments: int) -> int:
        return error if arguments[at] in streams else BADF

    return answer
