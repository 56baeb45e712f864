"""The audit log's anchor over a TPM: an NV counter that belongs to one log, and the file that says where it is.

The file holds the counter's authorisation value, so it is its owner's alone. It holds nothing that a log could be cut
back with: what the counter shows, where it began and whose it is are in the TPM.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import msgspec

from ringfence.attestation.address import parse_address
from ringfence.attestation.tpm_asking import DEFAULT_DEADLINE_S, GRACE_S, ask, refused
from ringfence.attestation.tpm_messages import (
    CountAnswer,
    CountRequest,
    DefineRequest,
    Removed,
    RemoveRequest,
    Request,
)
from ringfence.config import convert, tables
from ringfence.errors import BAD_ARGUMENT, UsageError
from ringfence.trust.files import erase, read, write_new
from ringfence.trust.keys import only_the_owner
from ringfence.trust.store import quoted

FIRST_INDEX: Final = 0x01805200
LAST_INDEX: Final = 0x018052FE
"""Counters are at even NV indices, each with its beginning at the one above, in the owner's range of the TCG
(Registry of Reserved TPM 2.0 Handles and Localities: 01800000 to 01BFFFFF)."""

_AUTH_SIZE: Final = 32
_LOG_LABEL: Final = b"ringfence audit anchor 1\0"
_HEADING: Final = """\
# A counter in this host's TPM that anchors an audit log. Written by `ringfence anchor define`; keep it secret.
version = 1
"""


class _WireFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: Annotated[int, msgspec.Meta(ge=1, le=1)]
    tcti: str
    index: int
    auth: Annotated[bytes, msgspec.Meta(min_length=_AUTH_SIZE, max_length=_AUTH_SIZE)]


@dataclass(frozen=True, slots=True)
class TpmCounterAnchor:
    """The counter at the NV index `index` of the TPM at `tcti`, opened by `auth`, of the log that the key `log` signs.

    Each call starts a worker process and blocks. Raises `AttestationError`: attestation.counter_missing,
    attestation.counter_foreign where it is another log's, and attestation.tpm_* where the TPM is out of reach.
    """

    tcti: str
    index: int
    auth: bytes = field(repr=False)
    log: str
    deadline_s: float = DEFAULT_DEADLINE_S

    def read(self) -> int:
        """How often the counter was incremented since it was made for its log."""
        return self._count(increment=False)

    def increment(self) -> int:
        """Counts up by one, durably, and returns the new value."""
        return self._count(increment=True)

    def _count(self, *, increment: bool) -> int:
        request = CountRequest(
            tcti=self.tcti,
            lifetime_s=self.deadline_s + GRACE_S,
            index=self.index,
            auth=self.auth,
            log=_log_digest(self.log),
            increment=increment,
        )
        return _value(request, self.deadline_s)


def open_anchor(path: Path, log: str, deadline_s: float = DEFAULT_DEADLINE_S) -> TpmCounterAnchor:
    """The anchor that the counter file at `path` describes, for the log whose checkpoints the key with id `log` signs.

    Asks no TPM. Raises `TrustError` (trust.missing_file, trust.unsafe_file), `ConfigError` with the line at fault.
    """
    values, text = tables(read(path, only_the_owner), str(path))
    hint = "`ringfence anchor define` writes this file."
    wire = convert(values, text, _WireFile, source=str(path), folder=path.parent, hint=hint)
    parse_address(wire.tcti)
    return TpmCounterAnchor(wire.tcti, check_index(wire.index), wire.auth, log, deadline_s)


def configured_anchor(path: Path | None, log: str) -> TpmCounterAnchor | None:
    """The anchor of a daemon whose `[audit] anchor` names the file at `path`, or None; see `open_anchor`."""
    return None if path is None else open_anchor(path, log)


def define_anchor(
    path: Path,
    log: str,
    tcti: str,
    *,
    random: Callable[[int], bytes],
    index: int = FIRST_INDEX,
    owner_auth: bytes = b"",
    deadline_s: float = DEFAULT_DEADLINE_S,
) -> TpmCounterAnchor:
    """Makes a counter for the log of the key `log`, and the file (mode 0600) that describes it.

    `owner_auth` is the authorisation value of the TPM's owner hierarchy. The file is there before the counter, so that
    a power cut leaves none that nobody can use; where the TPM refuses, the file is erased. Raises `FileExistsError`,
    and `AttestationError` attestation.counter_exists or attestation.tpm_*.
    """
    parse_address(tcti)
    check_index(index)
    # A TPM drops zeros at the end of an authorisation value, and its callers may not: so none is there.
    anchor = TpmCounterAnchor(tcti, index, random(_AUTH_SIZE - 1) + b"\1", log, deadline_s)
    write_new(path, _emit(anchor), 0o600)
    request = DefineRequest(
        tcti=tcti,
        lifetime_s=deadline_s + GRACE_S,
        index=index,
        auth=anchor.auth,
        log=_log_digest(log),
        owner_auth=owner_auth,
    )
    with contextlib.ExitStack() as undo:
        undo.callback(erase, path)
        _value(request, deadline_s)
        undo.pop_all()
    return anchor


def remove_anchor(index: int, tcti: str, *, owner_auth: bytes = b"", deadline_s: float = DEFAULT_DEADLINE_S) -> None:
    """Removes the counter at `index` for good; the log that it anchored is refused from then on."""
    parse_address(tcti)
    request = RemoveRequest(tcti=tcti, lifetime_s=deadline_s + GRACE_S, index=check_index(index), owner_auth=owner_auth)
    answer = ask(request, deadline_s)
    if not isinstance(answer, Removed):
        raise refused(answer)


def check_index(index: int) -> int:
    """`index`, if a counter may be there; else `UsageError` usage.bad_argument."""
    if not FIRST_INDEX <= index <= LAST_INDEX or index % 2:
        raise UsageError(
            BAD_ARGUMENT,
            f"A counter's index is an even number from {FIRST_INDEX:#010x} to {LAST_INDEX:#010x}, not {index:#x}.",
            field="index",
        )
    return index


def _value(request: Request, deadline_s: float) -> int:
    answer = ask(request, deadline_s)
    if not isinstance(answer, CountAnswer):
        raise refused(answer)
    return answer.value


def _log_digest(log: str) -> bytes:
    return hashlib.sha256(_LOG_LABEL + log.encode()).digest()


def _emit(anchor: TpmCounterAnchor) -> bytes:
    lines = [
        f"tcti = {quoted(anchor.tcti)}",
        f"index = {anchor.index:#010x}",
        f"auth = {quoted(base64.b64encode(anchor.auth).decode('ascii'))}",
    ]
    return (_HEADING + "\n".join([*lines, ""])).encode()
