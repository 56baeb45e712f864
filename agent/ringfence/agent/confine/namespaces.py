"""Moves the calling process into namespaces of its own: an empty network, and no process but its own to be seen.

Done once, by the zygote, before it holds anything: every worker is forked inside, so a job pays nothing for it. The
system-call filter already denies what the namespaces hide; they hold where the filter would have a gap.
"""

from __future__ import annotations

import ctypes
import os
import signal

# include/uapi/linux/sched.h
_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER, _NEWPID, _NEWNET = 0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000
_ALL = _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
_PR_SET_PDEATHSIG = 1


def enter(keep: frozenset[int]) -> bool:
    """Whether this process now runs in namespaces of its own, as the first process (pid 1) of its process namespace.

    The caller must have one thread. It goes on in a child: the process that called waits for that child with no
    descriptor open but the standard three (the child keeps `keep` too) and ends as it ended. When either ends, the
    kernel kills every process in the namespace. False where the host does not allow it; nothing has changed then.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_NEWUSER | _ALL) != 0 and libc.unshare(_ALL) != 0:
        return False
    child = os.fork()
    if child == 0:
        libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        return True
    for descriptor in keep:
        os.close(descriptor)
    _, status = os.waitpid(child, 0)
    os._exit(min(255, abs(os.waitstatus_to_exitcode(status))))
