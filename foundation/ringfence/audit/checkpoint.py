"""Signed checkpoints: one line that fixes every record of a log up to a position.

A checkpoint is one JSON line, fields in this order and without any space:

    {"v":1,"origin":"NAME","seq":N,"hash":"HASH","time_ns":T,"key_id":"ID","signature":"BASE64"}\\n

It says that record `seq` of the log `origin` has the line hash `hash`, and through the chain that every record before
it is what it is. The signature covers these UTF-8 bytes, one field a line, none of which may hold a control character:

    ringfence audit checkpoint v1\\nORIGIN\\nSEQ\\nHASH\\nTIME_NS\\nKEY_ID\\n

The first line separates these signatures from everything else that the same key signs.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Annotated, Literal, Protocol

import msgspec

from ringfence.audit.errors import CORRUPT, FORGED_CHECKPOINT, AuditError
from ringfence.audit.records import Count, Position
from ringfence.errors import RingfenceError

Verify = Callable[[bytes, bytes, bytes], None]
"""(public key, message, signature): returns, or raises a RingfenceError when the signature is not the key's."""

_DOMAIN = "ringfence audit checkpoint v1"
MAX_CHECKPOINT_LINE = 16_384

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Signer(Protocol):
    """Who signs checkpoints: a key held somewhere, known by its identifier and raw public key."""

    @property
    def key_id(self) -> str: ...

    @property
    def public(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


class Checkpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A signed statement that the log's first `seq` records end in the line hash `hash`."""

    v: Literal[1]
    origin: Name
    seq: Position
    hash: Hash
    time_ns: Count
    key_id: Name
    signature: Annotated[str, msgspec.Meta(max_length=8192)]


_DECODER = msgspec.json.Decoder(Checkpoint)


def signed_bytes(origin: str, seq: int, line_hash: str, time_ns: int, key_id: str) -> bytes:
    """The bytes under a checkpoint's signature."""
    return f"{_DOMAIN}\n{origin}\n{seq}\n{line_hash}\n{time_ns}\n{key_id}\n".encode()


def sign_checkpoint(signer: Signer, *, origin: str, seq: int, line_hash: str, time_ns: int) -> bytes:
    """A checkpoint's line, newline included."""
    signature = signer.sign(signed_bytes(origin, seq, line_hash, time_ns, signer.key_id))
    encoded = base64.b64encode(signature).decode()
    checkpoint = Checkpoint(1, origin, seq, line_hash, time_ns, signer.key_id, encoded)
    return msgspec.json.encode(checkpoint) + b"\n"


def decode_checkpoint(line: bytes) -> Checkpoint:
    """The checkpoint of one line. Raises AuditError(audit.corrupt) for anything but a canonical line."""
    if len(line) > MAX_CHECKPOINT_LINE:
        raise AuditError(CORRUPT, f"A checkpoint line is longer than {MAX_CHECKPOINT_LINE} bytes.")
    try:
        checkpoint = _DECODER.decode(line)
    except (ValueError, RecursionError) as error:
        raise AuditError(CORRUPT, f"A line is not a checkpoint: {error}.") from error
    if msgspec.json.encode(checkpoint) + b"\n" != line:
        raise AuditError(CORRUPT, "A checkpoint is not in the canonical encoding.")
    return checkpoint


def check_signature(checkpoint: Checkpoint, public: bytes, verify: Verify) -> None:
    """Raises AuditError(audit.forged_checkpoint) unless the key `public` signed the checkpoint."""
    message = signed_bytes(checkpoint.origin, checkpoint.seq, checkpoint.hash, checkpoint.time_ns, checkpoint.key_id)
    try:
        verify(public, message, base64.b64decode(checkpoint.signature, validate=True))
    except (RingfenceError, ValueError) as error:
        raise AuditError(
            FORGED_CHECKPOINT,
            f"The checkpoint over record {checkpoint.seq}, which names the key {checkpoint.key_id!r}, "
            "is not signed by the key it was checked with.",
            hint="Check with the key that the log's owner published; if it is that one, the log was changed.",
        ) from error
