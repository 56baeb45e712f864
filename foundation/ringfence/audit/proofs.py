"""Proofs that stand alone: that a record is in the log, and that one checkpoint's log is the beginning of another's.

An inclusion proof is a C2SP tlog-proof, with the record's line in the `extra` field, so that nothing else is needed to
read what was logged:

    c2sp.org/tlog-proof@v1
    extra BASE64
    index N
    BASE64 of a hash, one a line

    the checkpoint

A consistency proof has the form in which C2SP tlog-witness takes one:

    old N
    BASE64 of a hash, one a line

    the checkpoint
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ringfence.audit.checkpoint import Keys, Signed, decode_checkpoint
from ringfence.audit.errors import BAD_PROOF, AuditError
from ringfence.audit.merkle import HASH_SIZE, leaf_hash, verify_consistency, verify_inclusion
from ringfence.audit.notes import MAX_NOTE
from ringfence.audit.records import MAX_LINE, Entry, decode_line

MAX_PROOF = MAX_NOTE + 2 * MAX_LINE + 64 * 64

_INCLUSION = re.compile(rb"c2sp\.org/tlog-proof@v1\nextra ([A-Za-z0-9+/=]*)\nindex (0|[1-9][0-9]{0,18})\n")
_CONSISTENCY = re.compile(rb"old ([1-9][0-9]{0,18})\n")


@dataclass(frozen=True, slots=True)
class Inclusion:
    """A record's line, its place (from 0), the hashes from its sibling up, and the checkpoint that they lead to."""

    line: bytes
    index: int
    path: tuple[bytes, ...]
    signed: Signed

    def check(self, keys: Keys) -> Entry:
        """The record, proven to be in the log of the keys' owner.

        Raises AuditError: audit.forged_checkpoint, audit.bad_proof, audit.corrupt.
        """
        self.signed.check(keys)
        checkpoint = self.signed.checkpoint
        verify_inclusion(leaf_hash(self.line), self.index, checkpoint.size, self.path, checkpoint.root)
        entry = decode_line(self.line)
        if entry.seq != self.index + 1:
            raise AuditError(BAD_PROOF, f"The record says that it is number {entry.seq}, and is {self.index + 1}.")
        return entry

    def encode(self) -> bytes:
        """The proof's file."""
        start = b"c2sp.org/tlog-proof@v1\nextra %s\nindex %d\n" % (base64.b64encode(self.line), self.index)
        return start + _encode_path(self.path) + self.signed.data


@dataclass(frozen=True, slots=True)
class Consistency:
    """The size of an older tree, the hashes that lead from it to a newer one, and the newer one's checkpoint."""

    old: int
    path: tuple[bytes, ...]
    signed: Signed

    def check(self, keys: Keys, expect: Signed) -> None:
        """Raises AuditError unless the log of `expect` is the beginning of this one: audit.forged_checkpoint (either
        is not signed), audit.bad_proof."""
        self.signed.check(keys)
        expect.check(keys)
        old, new = expect.checkpoint, self.signed.checkpoint
        if old.origin != new.origin or old.size != self.old:
            raise AuditError(
                BAD_PROOF,
                f"The proof begins at record {self.old} of {new.origin}, the expected checkpoint is over record "
                f"{old.size} of {old.origin}.",
            )
        verify_consistency(old.size, new.size, self.path, old.root, new.root)

    def encode(self) -> bytes:
        """The proof's file."""
        return b"old %d\n" % self.old + _encode_path(self.path) + self.signed.data


def decode_proof(data: bytes) -> Inclusion | Consistency:
    """The proof of a file. Raises AuditError(audit.bad_proof or audit.bad_note) for anything else."""
    if len(data) > MAX_PROOF:
        raise AuditError(BAD_PROOF, f"The proof is longer than {MAX_PROOF} bytes.")
    head, blank, note = data.partition(b"\n\n")
    head += blank[:1]
    if (found := _INCLUSION.match(head)) is not None:
        path = _decode_path(head[found.end() :])
        proof: Inclusion | Consistency = Inclusion(_decode(found[1]), int(found[2]), path, decode_checkpoint(note))
    elif (found := _CONSISTENCY.match(head)) is not None:
        proof = Consistency(int(found[1]), _decode_path(head[found.end() :]), decode_checkpoint(note))
    else:
        raise AuditError(BAD_PROOF, "The file is no proof.", hint="Give a file that `ringfence audit prove` wrote.")
    if proof.encode() != data:
        raise AuditError(BAD_PROOF, "The proof is not in the canonical encoding.")
    return proof


def _encode_path(path: Sequence[bytes]) -> bytes:
    return b"".join(base64.b64encode(one) + b"\n" for one in path) + b"\n"


def _decode_path(lines: bytes) -> tuple[bytes, ...]:
    return tuple(_sized(_decode(line)) for line in lines.split(b"\n")[:-1])


def _decode(text: bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise AuditError(BAD_PROOF, "A line of the proof is not base64.") from error


def _sized(value: bytes) -> bytes:
    if len(value) != HASH_SIZE:
        raise AuditError(BAD_PROOF, f"A hash of the proof has {len(value)} bytes, not {HASH_SIZE}.")
    return value
