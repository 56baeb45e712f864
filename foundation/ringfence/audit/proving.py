"""Making proofs from a log's folder, in one pass and in memory that does not grow with the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ringfence.audit.checkpoint import Signed
from ringfence.audit.errors import CORRUPT, NOT_FOUND, UNSIGNED, AuditError
from ringfence.audit.files import read_blocks
from ringfence.audit.folder import Layout, last_note, read_layout
from ringfence.audit.merkle import (
    RangeHashes,
    consistency_ranges,
    cover_levels,
    inclusion_ranges,
    leaf_hash,
    levels,
    verify_consistency,
    verify_inclusion,
)
from ringfence.audit.proofs import Consistency, Inclusion
from ringfence.audit.segments import checkpoints_name, decode_covered, decode_header, records_name

Nodes = tuple[int, list[bytes], int]
"""The position of the first leaf, the roots of full subtrees from there on, and their height."""


def prove_inclusion(folder: Path, seq: int) -> Inclusion:
    """That record `seq` is in the log, under its newest checkpoint.

    Raises AuditError: audit.not_found (no such record, or it was removed), audit.unsigned (not covered yet),
    audit.bad_proof (the log does not hold), audit.corrupt.
    """
    layout = read_layout(folder)
    signed = _newest(layout)
    checkpoint = signed.checkpoint
    if not 1 <= seq <= checkpoint.size:
        raise AuditError(
            NOT_FOUND,
            f"The newest checkpoint of {folder} covers the records 1 to {checkpoint.size}, not {seq}.",
            field="SEQ",
            hint="Give the number that `ringfence audit show` prints first on a line.",
        )
    line = _line(layout, seq)
    ranges = RangeHashes(inclusion_ranges(seq - 1, checkpoint.size))
    for position, nodes, level in _nodes(layout):
        ranges.feed(position, nodes, level)
    proof = Inclusion(line, seq - 1, tuple(ranges.hashes()), signed)
    verify_inclusion(leaf_hash(line), seq - 1, checkpoint.size, proof.path, checkpoint.root)
    return proof


def prove_consistency(folder: Path, old: Signed) -> Consistency:
    """That the log of an older checkpoint is the beginning of this one, under its newest checkpoint.

    Raises AuditError: audit.not_found, audit.unsigned, audit.unprovable, audit.bad_proof, audit.corrupt.
    """
    layout = read_layout(folder)
    signed = _newest(layout)
    first, size = old.checkpoint.size, signed.checkpoint.size
    if first > size:
        raise AuditError(
            NOT_FOUND,
            f"The newest checkpoint of {folder} covers the records 1 to {size}, and the older one {first}.",
            field="--from",
            hint="The log was cut back, or the checkpoint is of another log.",
        )
    ranges = RangeHashes(consistency_ranges(first, size))
    for position, nodes, level in _nodes(layout):
        ranges.feed(position, nodes, level)
    proof = Consistency(first, tuple(ranges.hashes()), signed)
    verify_consistency(first, size, proof.path, old.checkpoint.root, signed.checkpoint.root)
    return proof


def _newest(layout: Layout) -> Signed:
    for first in reversed(layout.checkpoints):
        signed = last_note(layout.folder / checkpoints_name(first)).signed
        if signed is not None:
            return signed
    raise AuditError(
        UNSIGNED,
        f"No checkpoint of {layout.folder} covers any of its records, so nothing can be proven.",
        hint="After a crash, start its process again: opening the log signs what is there.",
    )


def _line(layout: Layout, seq: int) -> bytes:
    """A record's line, wherever its segment is."""
    for first in reversed(layout.records):
        if first > seq:
            continue
        at = seq - first + 1  # behind the header
        for lines, _ in read_blocks(layout.folder / records_name(first)):
            if at < len(lines):
                return lines[at]
            at -= len(lines)
        break
    raise AuditError(
        NOT_FOUND,
        f"Record {seq} is not in {layout.folder}: retention removed it.",
        field="SEQ",
        hint="A proof that was made while the record was there still holds.",
    )


def _nodes(layout: Layout) -> Iterator[Nodes]:
    """The whole tree from its first leaf on: the leaves, and of removed records the subtrees that are kept."""
    position = 0
    for piece in layout.pieces():
        header = True
        for lines, _ in piece.blocks:
            if header:
                tree = decode_header(lines[0] if lines else b"").tree
                if position == 0:
                    yield from _subtrees(0, tree.peaks, levels(tree.size))
                position = tree.size
            if piece.compacted:
                for line in lines[header:]:
                    covered = decode_covered(line)
                    nodes = [bytes.fromhex(node) for node in covered.nodes]
                    yield from _subtrees(position, nodes, cover_levels(position, covered.to))
                    position = covered.to
            else:
                leaves = [leaf_hash(line) for line in lines[header:]]
                yield position, leaves, 0
                position += len(leaves)
            header = False


def _subtrees(position: int, nodes: Sequence[bytes], heights: list[int]) -> Iterator[Nodes]:
    if len(nodes) != len(heights):
        raise AuditError(CORRUPT, f"The hashes from leaf {position} on do not cover what was removed there.")
    for node, height in zip(nodes, heights, strict=True):
        yield position, [node], height
        position += 1 << height
