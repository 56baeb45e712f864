"""What `poll_oneoff` of WASI preview 1 answers, and how a locked-down worker sleeps.

A guest's streams are always ready, so only clocks are ever waited for. All of it but `sleep` is pure.
Source: WebAssembly/WASI, phases/snapshot/docs.md (wasi_snapshot_preview1), subscription and event.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from typing import Final

from ringfence.agent.sandbox.wasi_abi import INVAL, SUCCESS

READ: Final = 1
"""The event that there is something to read."""
WRITE: Final = 2
"""The event that there is room to write."""

# userdata, type, then the clock's id or the descriptor, timeout, precision, flags.
_SUBSCRIPTION: Final = struct.Struct("<QB7xI4xQQH6x")
# userdata, error, type, bytes, flags.
_EVENT: Final = struct.Struct("<QHB5xQH6x")
SUBSCRIPTION_BYTES: Final = _SUBSCRIPTION.size
EVENT_BYTES: Final = _EVENT.size
_CLOCK: Final = 0
_ABSOLUTE: Final = 1


def poll(
    subscriptions: bytes,
    *,
    clocks: Sequence[Callable[[], int]],
    ready: Callable[[int, int], tuple[int, int]],
    sleep: Callable[[int], None],
) -> bytes:
    """The events of one subscription or more, at least one and never more than there are subscriptions.

    `clocks` give nanoseconds by the clock's number. `ready` says of `READ` or `WRITE` and a descriptor which error it
    has (0: none) and how many bytes it is ready for. `sleep` waits nanoseconds, and is called once at most: when
    nothing has happened yet, for the clock that is due first.

    Raises `ValueError` for a subscription to something that does not exist.
    """
    events: list[bytes] = []
    due: list[tuple[int, bytes]] = []
    for userdata, kind, subject, timeout, _precision, flags in _SUBSCRIPTION.iter_unpack(subscriptions):
        if kind in (READ, WRITE):
            error, size = ready(kind, subject)
            events.append(_EVENT.pack(userdata, error, kind, size, 0))
        elif kind != _CLOCK:
            raise ValueError(f"there are no events of type {kind}")
        elif subject >= len(clocks) or flags & ~_ABSOLUTE:
            events.append(_EVENT.pack(userdata, INVAL, kind, 0, 0))
        else:
            wait = max(0, timeout - clocks[subject]()) if flags & _ABSOLUTE else timeout
            due.append((wait, _EVENT.pack(userdata, SUCCESS, kind, 0, 0)))
    waited = 0 if events else min(wait for wait, _ in due)
    if waited:
        sleep(waited)
    return b"".join([*events, *(event for wait, event in due if wait <= waited)])


def sleep(nanoseconds: int) -> None:
    """Sleep at least that long, or until the process is killed; it costs no processor time.

    A lock that nobody will release is waited for by futex(2), which a worker may call anyway. A system call that does
    nothing but sleep would be one more that its filter lets a guest reach.
    """
    never = threading.Lock()
    never.acquire()
    never.acquire(timeout=min(nanoseconds / 1e9, threading.TIMEOUT_MAX))
