"""A process of its own that writes a log, for tests that kill it or take its disk away.

writing_child.py load FOLDER FIRST   appends numbered records from threads, printing each one acknowledged
writing_child.py limit FOLDER        writes up to RLIMIT_FSIZE, then lifts the limit
"""

from __future__ import annotations

import os
import resource
import sys
import threading
import time
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ringfence.audit import AuditError, AuditLog, Operator
from ringfence.audit.errors import FORGED_CHECKPOINT


class FixedSigner:
    """The same key in every run, as a process would read it from its key file."""

    key_id = "rf1child"

    def __init__(self) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)

    @property
    def public(self) -> bytes:
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._private.sign(message)


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except InvalidSignature as error:
        raise AuditError(FORGED_CHECKPOINT, "The signature does not hold.") from error


def open_log(folder: Path) -> AuditLog:
    return AuditLog.open(folder, FixedSigner(), clock_ns=time.time_ns, verify=verify)


def record(number: int) -> Operator:
    return Operator(event="started", component="child", version=str(number))


def load(folder: Path, first: int) -> None:
    log = open_log(folder)

    def work(worker: int) -> None:
        number = first + worker
        while True:
            log.wait(log.append(record(number)))
            os.write(1, b"%d\n" % number)
            number += 8

    for worker in range(8):
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    time.sleep(30)


def limit(folder: Path) -> None:
    log = open_log(folder)
    log.wait(log.append(record(0)))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, hard))
    try:
        for number in range(1, 100):
            log.wait(log.append(record(number)))
    except AuditError as error:
        print(error.code)
    print("whole" if next(folder.glob("records-*")).read_bytes().endswith(b"\n") else "torn")
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.wait(log.append(record(100)))
    log.close()
    print("recovered")


if __name__ == "__main__":
    if sys.argv[1] == "load":
        load(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        limit(Path(sys.argv[2]))
