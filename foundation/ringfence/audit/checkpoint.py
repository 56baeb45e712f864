"""Checkpoints: signed notes (C2SP tlog-checkpoint) that fix every record of a log up to a position.

The text has these lines, the last three being extension lines of our own:

    ringfence.audit/NAME/KEY-ID     the log's origin, for as long as it lives
    N                               how many records it covers
    BASE64                          the root hash of the Merkle tree over them
    chain HASH                      lowercase hexadecimal leaf hash of the last of them
    time_ns T                       nanoseconds since the Unix epoch by the writer's clock
    counter C                       what the anchor's counter shows, or is about to; 0 without an anchor

No other text that these keys sign begins with `ringfence.audit/`, and all of Ringfence's other signatures by the
composite key carry a context string, so neither can be taken for the other.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ringfence.audit.errors import BAD_NOTE, CORRUPT, FORGED_CHECKPOINT, AuditError
from ringfence.audit.notes import (
    COMPOSITE_TYPE,
    MAX_NOTE,
    SLH_DSA_TYPE,
    Note,
    NoteKey,
    NoteSignature,
    Verify,
    decode_note,
    encode_note,
    is_signature_line,
    key_id,
)

ORIGIN_PREFIX = "ringfence.audit/"

_NUMBER = r"(0|[1-9][0-9]{0,18})"
_TEXT = re.compile(
    rf"(?P<origin>{re.escape(ORIGIN_PREFIX)}[^\s+]{{1,512}})\n(?P<size>{_NUMBER})\n(?P<root>[A-Za-z0-9+/]{{43}}=)\n"
    rf"chain (?P<chain>[0-9a-f]{{64}})\ntime_ns (?P<time_ns>{_NUMBER})\ncounter (?P<counter>{_NUMBER})\n"
)
_UNFIT = re.compile(r"[\s+\x00-\x1f\x7f]+")


class Signer(Protocol):
    """Who signs checkpoints: a key held somewhere, known by its identifier and raw public key."""

    @property
    def key_id(self) -> str: ...

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A statement that the log's first `size` records have this tree and end in this chain."""

    origin: str
    size: int
    root: bytes
    chain: str
    time_ns: int
    counter: int = 0

    def text(self) -> bytes:
        """The bytes under the signatures."""
        root = base64.b64encode(self.root).decode()
        return (
            f"{self.origin}\n{self.size}\n{root}\nchain {self.chain}\ntime_ns {self.time_ns}\ncounter {self.counter}\n"
        ).encode()


@dataclass(frozen=True, slots=True)
class Keys:
    """The public keys that a log is checked with: the one that signs every checkpoint, and perhaps a second."""

    public: bytes
    verify: Verify
    second_public: bytes = b""
    second_verify: Verify | None = None

    def first(self, origin: str) -> NoteKey:
        return NoteKey(origin, COMPOSITE_TYPE, self.public, self.verify)

    def second(self, origin: str) -> NoteKey | None:
        if self.second_verify is None:
            return None
        return NoteKey(origin, SLH_DSA_TYPE, self.second_public, self.second_verify)


@dataclass(frozen=True, slots=True)
class Signed:
    """A checkpoint as it was found: its note, and the whole bytes of that."""

    checkpoint: Checkpoint
    note: Note
    data: bytes

    def check(self, keys: Keys) -> bool:
        """Raises AuditError(audit.forged_checkpoint) unless the first key signed it; says whether the second did too.

        A signature by the second key that does not hold raises as well; one by an unknown key says nothing.
        """
        origin = self.checkpoint.origin
        if not self.note.signed_by(keys.first(origin)):
            raise AuditError(
                FORGED_CHECKPOINT,
                f"The checkpoint over record {self.checkpoint.size} is not signed by the key it was checked with.",
                hint="Check with the key that the log's owner published; if it is that one, the log was changed.",
            )
        second = keys.second(origin)
        return second is not None and self.note.signed_by(second)


def origin_of(name: str, signer: str) -> str:
    """The origin of a log that begins in a folder of this name; what a note's key may not hold becomes a dash.

    `signer` is the key id of Ringfence's own form, so that two logs of one name have different origins.
    """
    return ORIGIN_PREFIX + _UNFIT.sub("-", f"{name}/{signer}")[:512]


def sign_checkpoint(checkpoint: Checkpoint, signer: Signer, second: Signer | None = None) -> bytes:
    """The checkpoint's note, signed by the log's key and, where one is given, by the second."""
    text = checkpoint.text()
    signatures = [_sign(text, checkpoint.origin, COMPOSITE_TYPE, signer)]
    if second is not None:
        signatures.append(_sign(text, checkpoint.origin, SLH_DSA_TYPE, second))
    return encode_note(text, signatures)


def decode_checkpoint(data: bytes) -> Signed:
    """The checkpoint that a note is. Raises AuditError(audit.bad_note) for anything else."""
    note = decode_note(data)
    found = _TEXT.fullmatch(note.text.decode("utf-8"))
    if found is None:
        raise AuditError(BAD_NOTE, "The note is not a checkpoint of an audit log.")
    try:
        root = base64.b64decode(found["root"], validate=True)
    except binascii.Error as error:
        raise AuditError(BAD_NOTE, "The checkpoint's root hash is not base64.") from error
    checkpoint = Checkpoint(
        found["origin"], int(found["size"]), root, found["chain"], int(found["time_ns"]), int(found["counter"])
    )
    if checkpoint.text() != note.text or not checkpoint.size:
        raise AuditError(BAD_NOTE, "The checkpoint is not in the canonical encoding.")
    return Signed(checkpoint, note, data)


def decode_checkpoints(entries: Iterable[bytes]) -> Iterator[Signed]:
    """The checkpoints of a log's notes, each ending in the blank line that parts it from the next.

    A last one that is not a checkpoint was being written when its writer died, and is left out. Raises
    AuditError(audit.corrupt) for one that is none while others follow.
    """
    broken: AuditError | None = None
    for entry in entries:
        if broken is not None:
            raise AuditError(CORRUPT, f"A checkpoint cannot be read, but others follow: {broken.message}") from broken
        try:
            signed = _decode_entry(entry)
        except AuditError as error:
            broken = error
        else:
            yield signed


def _decode_entry(entry: bytes) -> Signed:
    if not entry.endswith(b"\n\n"):
        raise AuditError(BAD_NOTE, "The note has no end.")
    return decode_checkpoint(entry[:-1])


def split_entries(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The entries of a file of checkpoints, from its lines with their newlines: each a note and a blank line behind it.

    What is no note comes as an entry too, cut where it grows too long; a last one may lack its end.
    """
    entry: list[bytes] = []
    size = 0
    signed = False
    for line in lines:
        entry.append(line)
        size += len(line)
        if size > MAX_NOTE or (signed and line == b"\n"):
            yield b"".join(entry)
            entry, size = [], 0
        signed = is_signature_line(line)
    if entry:
        yield b"".join(entry)


def _sign(text: bytes, origin: str, kind: bytes, signer: Signer) -> NoteSignature:
    return NoteSignature(origin, key_id(origin, kind, signer.public), signer.sign(text))
