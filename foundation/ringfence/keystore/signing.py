"""A signer in a process of its own: SLH-DSA holds the interpreter's lock for as long as it signs.

The key goes to the child over a socket pair, never by its arguments or environment, and is not kept here (best effort:
Python does not overwrite what it frees). So a child that ends is not started again. Whoever needs its signature gets
an error, as from a lost key; an audit log then denies, until its daemon is started anew.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Final, Self

from ringfence.config.audit_section import AuditSettings
from ringfence.crypto import CryptoError, key_id, signature
from ringfence.crypto.forms import KeyMaterial, import_private
from ringfence.errors import Code, Kind
from ringfence.keystore.errors import MALFORMED, KeyStoreError
from ringfence.keystore.signing_child import ALGORITHM, MAX_MESSAGE
from ringfence.trust.files import read
from ringfence.trust.keys import only_the_owner

SIGNER_LOST: Final = Code("keystore.signer_lost", Kind.UNAVAILABLE)

START_S: Final = 30.0
"""How long the child may take to start."""
DEADLINE_S: Final = 10.0
"""How long it may take for a signature, which needs some ten milliseconds of a processor."""

_COMMAND: Final = (sys.executable, "-I", "-m", "ringfence.keystore.signing_child")
_MAX_ANSWER: Final = 65_536
_GRACE_S: Final = 5.0
_PUBLIC_MARK: Final = b"PUBLIC KEY-----"


class SigningProcess:
    """Signs with an SLH-DSA-SHA2-128f key in a child process; implements `ringfence.audit.Signer`. Thread-safe.

    Start it in a thread that lives as long as it does, because the kernel ends the child with that thread. Raises
    `KeyStoreError` keystore.signer_lost where the child cannot be started.
    """

    def __init__(self, key: KeyMaterial, *, deadline_s: float = DEADLINE_S) -> None:
        self.public = key.public
        self.key_id = key_id(key.public)
        self._deadline_s = deadline_s
        self._verifying = signature(ALGORITHM).verifying_key(key.public)
        self._lock = threading.Lock()
        self._closed = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own program, no shell
                    [*_COMMAND, "--fd", str(theirs.fileno()), "--parent", str(os.getpid())],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env={},
                    cwd="/",
                    pass_fds=(theirs.fileno(),),
                    # A Ctrl-C is for the daemon, which closes its log and needs the child for it.
                    start_new_session=True,
                )
            except OSError as error:
                self._channel.close()
                raise self._lost(f"could not be started ({error.strerror})") from error
        try:
            self._hand_over(key)
        except BaseException:
            self.close()
            raise

    def sign(self, message: bytes) -> bytes:
        """The signature of `message` (at most 64 KiB), with an empty context; it has been verified.

        Raises `KeyStoreError` keystore.signer_lost where the child has ended, is late, or answers with anything else;
        then it is ended, and every later call raises too.
        """
        if not 0 < len(message) <= MAX_MESSAGE:
            raise KeyStoreError(
                SIGNER_LOST, f"A message of {len(message)} bytes cannot be signed.", hint="Sign its digest."
            )
        with self._lock:
            answer = self._ask(message, self._deadline_s)
            try:
                # A signature with a fault in it would give the key away, and make the log fail its check.
                self._verifying.verify(message, answer)
            except CryptoError as error:
                self._end(0)
                raise self._lost("gave a signature that does not hold") from error
            return answer

    def close(self) -> None:
        """Ends the child and waits until it is gone. May be called twice."""
        with self._lock:
            self._end(_GRACE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hand_over(self, key: KeyMaterial) -> None:
        if self._ask(key.private, START_S) != key.public:
            raise self._lost("holds another key")

    def _ask(self, message: bytes, deadline_s: float) -> bytes:
        if self._closed:
            raise self._lost("has ended")
        try:
            self._channel.settimeout(deadline_s)
            self._channel.send(message)
            answer = self._channel.recv(_MAX_ANSWER)
        except TimeoutError as error:
            self._end(0)
            raise self._lost(f"did not answer within {deadline_s:g} s") from error
        except OSError:
            answer = b""
        if not answer:
            raise self._lost(f"ended {_how(self._end(_GRACE_S))}")
        return answer

    def _end(self, grace_s: float) -> int:
        """Closes the channel, which the child ends at; kills it after `grace_s`. Gives its exit status."""
        self._closed = True
        self._channel.close()
        try:
            return self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _lost(self, why: str) -> KeyStoreError:
        return KeyStoreError(
            SIGNER_LOST,
            f"The process that signs with the key {self.key_id} {why}.",
            hint="Look for what ended it, such as a limit on memory or processes, and start its daemon again.",
        )


def load_second_key(settings: AuditSettings) -> KeyMaterial | None:
    """The key that the `[audit]` table names as its `second_key`, or None without one.

    Raises `TrustError` (trust.missing_file, trust.unsafe_file where others than its owner may use it) and
    `KeyStoreError` keystore.malformed for anything but an SLH-DSA-SHA2-128f private key.
    """
    path = settings.second_key.path
    if path is None:
        return None
    # Before its mode is looked at: a public key may be read by all, and its mode is no fault.
    if _PUBLIC_MARK in read(path, lambda _status, _path: None)[:64]:
        raise _unfit(path, "is a public key, and the private one is needed")
    data = read(path, only_the_owner)
    try:
        material = import_private(data)
    except CryptoError as error:
        raise _unfit(path, f"holds no {ALGORITHM} private key in PEM, DER or JWK") from error
    if material.algorithm != ALGORITHM:
        raise _unfit(path, f"holds a key of {material.algorithm}, not of {ALGORITHM}")
    return material


def _unfit(path: Path, why: str) -> KeyStoreError:
    return KeyStoreError(
        MALFORMED,
        f"{path} {why}.",
        field="audit.second_key",
        hint=f"Make one with `ringfence keys generate audit --store DIR --algorithm {ALGORITHM}`, and name "
        "DIR/audit.1.key.",
    )


def _how(status: int) -> str:
    return f"by signal {-status}" if status < 0 else f"with status {status}"
