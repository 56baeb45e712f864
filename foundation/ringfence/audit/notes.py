"""Signed notes (C2SP signed-note v1): a text, a blank line, and one line a signature.

A signature line is `— NAME BASE64`, where the base64 holds four bytes of key id and the signature over the text with
its last newline. The id is the beginning of `SHA-256(NAME || 0x0A || 0xFF || IDENTIFIER || public key)`; 0xFF is the
type for algorithms that the specification gives no number, and `IDENTIFIER` is one of the two below.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ringfence.audit.errors import BAD_NOTE, FORGED_CHECKPOINT, AuditError
from ringfence.errors import RingfenceError

COMPOSITE_TYPE = b"ringfence ML-DSA-65-Ed25519"
SLH_DSA_TYPE = b"ringfence SLH-DSA-SHA2-128f"
MAX_NOTE = 65_536
"""Longest note in bytes; a signature by SLH-DSA-SHA2-128f takes 23 KB of it."""
MAX_SIGNATURES = 16

Verify = Callable[[bytes, bytes, bytes], None]
"""(public key, message, signature): returns, or raises a RingfenceError when the signature is not the key's."""

_ID_SIZE = 4
_DASH = "— ".encode()
_SIGNATURE_LINE = re.compile(r"— (?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/]+={0,2})")
_CONTROL = re.compile(rb"[\x00-\x09\x0b-\x1f]")


def key_id(name: str, kind: bytes, public: bytes) -> bytes:
    """The four bytes that, with the name, say which key made a signature."""
    return hashlib.sha256(name.encode() + b"\n\xff" + kind + public).digest()[:_ID_SIZE]


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A public key under the name that it signs notes with, and how its signatures are checked."""

    name: str
    type: bytes
    public: bytes
    verify: Verify

    @property
    def id(self) -> bytes:
        return key_id(self.name, self.type, self.public)


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature of a note, not checked yet."""

    name: str
    key_id: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signatures, not checked yet."""

    text: bytes
    signatures: tuple[NoteSignature, ...]

    def signed_by(self, key: NoteKey) -> bool:
        """Whether the key signed the text; False where it did not sign at all.

        Raises AuditError(audit.forged_checkpoint) for a signature under the key's name and id that does not hold.
        """
        for one in self.signatures:
            if one.name == key.name and hmac.compare_digest(one.key_id, key.id):
                try:
                    key.verify(key.public, self.text, one.signature)
                except RingfenceError as error:
                    raise AuditError(
                        FORGED_CHECKPOINT,
                        f"A signature in the name of {key.name!r} is not the key's.",
                        hint="Check with the key that the log's owner published; if it is that one, the log was "
                        "changed.",
                    ) from error
                return True
        return False


def encode_note(text: bytes, signatures: Iterable[NoteSignature]) -> bytes:
    """The bytes of a signed note."""
    lines = [f"— {one.name} {base64.b64encode(one.key_id + one.signature).decode()}\n".encode() for one in signatures]
    return text + b"\n" + b"".join(lines)


def decode_note(data: bytes) -> Note:
    """The note that the bytes are. Raises AuditError(audit.bad_note) for anything else."""
    if len(data) > MAX_NOTE:
        raise _bad(f"it is longer than {MAX_NOTE} bytes")
    if _CONTROL.search(data):
        raise _bad("it holds a control character")
    text, blank, block = data.rpartition(b"\n\n")
    if not text or not block.endswith(b"\n"):
        raise _bad("it has not a text, a blank line and signatures")
    try:
        block.decode("utf-8")
        text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad("it is not UTF-8") from error
    lines = block.decode("utf-8").split("\n")[:-1]
    if len(lines) > MAX_SIGNATURES:
        raise _bad(f"it has more than {MAX_SIGNATURES} signatures")
    return Note(text + blank[:1], tuple(_signature(line) for line in lines))


def _signature(line: str) -> NoteSignature:
    found = _SIGNATURE_LINE.fullmatch(line)
    if found is None:
        raise _bad("a line of its signatures is none")
    encoded = found["signature"]
    try:
        signature = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise _bad("a signature is not base64") from error
    if len(signature) <= _ID_SIZE or base64.b64encode(signature).decode() != encoded:
        raise _bad("a signature is not canonical base64 of a key id and a signature")
    return NoteSignature(found["name"], signature[:_ID_SIZE], signature[_ID_SIZE:])


def is_signature_line(line: bytes) -> bool:
    """Whether a line of a file of notes belongs to the signatures of one."""
    return line.startswith(_DASH)


def _bad(reason: str) -> AuditError:
    return AuditError(BAD_NOTE, f"This is not a signed note: {reason}.", hint="Give the whole checkpoint, unchanged.")
