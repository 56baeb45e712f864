"""The process that holds one SLH-DSA key and signs with it, so that no thread of a daemon stands still meanwhile.

    python -m ringfence.keystore.signing_child --fd N --parent PID

Over the inherited socket N (SOCK_SEQPACKET, one message a packet) comes the private key; the public key is the answer.
Then each packet is a message, and its signature the answer. It ends when the other end is closed, and with its parent.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import signal
import socket
import sys
from typing import Final

from ringfence.crypto import signature

ALGORITHM: Final = "SLH-DSA-SHA2-128f"
MAX_MESSAGE: Final = 65_536
"""Longest message in bytes: as long as a signed note may be (`ringfence.audit.notes`)."""

_PRIVATE_BYTES: Final = 64
# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38


def harden(parent: int) -> None:
    """Makes this process die with `parent`, and keeps its memory from others; raises `OSError` where it cannot.

    Signals to the daemon's whole group are ignored: it still needs signatures while it closes its log.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_PDEATHSIG, signal.SIGKILL),
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), *(ctypes.c_ulong(0),) * 3) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option} was refused")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != parent:
        raise ProcessLookupError("the process that started this one has gone")


def serve(channel: socket.socket) -> int:
    """Answers until the other end is closed; gives the exit status, 1 for a packet that cannot be meant."""
    algorithm = signature(ALGORITHM)
    private = channel.recv(_PRIVATE_BYTES + 1)
    if len(private) != _PRIVATE_BYTES:
        return 1
    key = algorithm.signing_key(private)
    channel.send(algorithm.public(private))
    while message := channel.recv(MAX_MESSAGE + 1):
        if len(message) > MAX_MESSAGE:
            return 1
        channel.send(key.sign(message))
    return 0


def main() -> int:
    """Parses the command line, hardens the process and serves."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.keystore.signing_child", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="this end of the socket pair")
    parser.add_argument("--parent", type=int, required=True, help="the process that it dies with")
    arguments = parser.parse_args()
    harden(arguments.parent)
    with socket.socket(fileno=arguments.fd) as channel:
        try:
            return serve(channel)
        except ConnectionError:  # the daemon went away while a signature was on its way
            return 0


if __name__ == "__main__":
    sys.exit(main())
