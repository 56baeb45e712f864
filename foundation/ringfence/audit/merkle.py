"""The Merkle tree over the log's lines (RFC 9162 section 2.1): its frontier, and proofs of inclusion and consistency.

Leaf `i` (from 0) is the log's record `i + 1`. `MTH({d}) = SHA-256(0x00 || d)`, an inner node is
`SHA-256(0x01 || left || right)`, split at the largest power of two below the size; the empty tree is `SHA-256("")`.

A tree of any size is kept as its *frontier*, the roots of the full subtrees that it is made of, one for each bit that
is set in the size. It is enough to append, to take the root, and to go on after the leaves themselves are gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ringfence.audit.errors import BAD_PROOF, CORRUPT, UNPROVABLE, AuditError

HASH_SIZE = 32

Range = tuple[int, int]
"""Leaves from the first number up to, but not with, the second."""

_sha256 = hashlib.sha256


def leaf_hash(data: bytes) -> bytes:
    """The hash of one leaf."""
    return _sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """The hash of an inner node."""
    return _sha256(b"\1" + left + right).digest()


def _pairs(nodes: Sequence[bytes]) -> list[bytes]:
    """The parents of `nodes`, two by two; an odd last one is left out."""
    each = iter(nodes)
    return [_sha256(b"\1" + left + right).digest() for left, right in zip(each, each, strict=False)]


def levels(size: int) -> list[int]:
    """The heights of a frontier's subtrees, the tallest (and leftmost) first."""
    return [level for level in range(size.bit_length() - 1, -1, -1) if size >> level & 1]


@dataclass(frozen=True, slots=True)
class Frontier:
    """A tree of `size` leaves, known by the roots of its full subtrees, the tallest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.peaks) != self.size.bit_count() or any(len(peak) != HASH_SIZE for peak in self.peaks):
            raise AuditError(CORRUPT, f"A frontier of {self.size} leaves has not {len(self.peaks)} such hashes.")

    def extend(self, nodes: Sequence[bytes], level: int = 0) -> Frontier:
        """The tree with the roots of further full subtrees, each of `2**level` leaves, behind it.

        Raises AuditError(audit.corrupt) where such a subtree cannot begin at this size.
        """
        if self.size % (1 << level):
            raise AuditError(CORRUPT, f"No subtree of height {level} begins behind {self.size} leaves.")
        size = self.size + (len(nodes) << level)
        held = dict(zip(levels(self.size), self.peaks, strict=True))
        while nodes:
            before = held.pop(level, None)
            if before is not None:
                nodes = [before, *nodes]
            if len(nodes) & 1:
                held[level] = nodes[-1]
            nodes = _pairs(nodes)
            level += 1
        return Frontier(size, tuple(held[level] for level in levels(size)))

    def extend_covered(self, nodes: Sequence[bytes], end: int) -> Frontier:
        """The tree with `end` leaves, from what `cover` made of the leaves from here to there."""
        tree = self
        for node, level in zip(nodes, cover_levels(self.size, end), strict=False):
            tree = tree.extend([node], level)
        if tree.size != end or len(nodes) != len(cover_levels(self.size, end)):
            raise AuditError(CORRUPT, f"The hashes from leaf {self.size} on do not cover the leaves to {end}.")
        return tree

    def root(self) -> bytes:
        """The tree's root hash."""
        if not self.peaks:
            return _sha256(b"").digest()
        *left, root = self.peaks
        for peak in reversed(left):
            root = node_hash(peak, root)
        return root


def cover_levels(start: int, end: int) -> list[int]:
    """The heights of the subtrees that `cover` makes of the leaves from `start` up to `end`, from left to right."""
    heights: list[int] = []
    while start < end:
        heights.append(min(_trailing_zeros(start), (end - start).bit_length() - 1))
        start += 1 << heights[-1]
    return heights


def cover(start: int, leaves: Sequence[bytes]) -> list[bytes]:
    """The fewest full subtrees of the whole tree that hold exactly the `leaves` from position `start` on."""
    left: list[bytes] = []
    right: list[bytes] = []
    nodes = leaves
    while nodes:
        if start & 1:
            left.append(nodes[0])
            nodes = nodes[1:]
            start += 1
        if len(nodes) & 1:
            right.append(nodes[-1])
            nodes = nodes[:-1]
        nodes = _pairs(nodes)
        start >>= 1
    return left + right[::-1]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaves under each hash of the inclusion proof of leaf `index`, in the proof's order (section 2.1.3.1)."""
    if not 0 <= index < size:
        raise AuditError(BAD_PROOF, f"A tree of {size} leaves has no leaf {index}.")
    start, end = 0, size
    ranges: list[Range] = []
    while end - start > 1:
        split = _split(start, end)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    return ranges[::-1]


def consistency_ranges(first: int, size: int) -> list[Range]:
    """The leaves under each hash of the proof that `first` leaves are a prefix of `size` (section 2.1.4.1)."""
    if not 0 < first <= size:
        raise AuditError(BAD_PROOF, f"A tree of {size} leaves has no prefix of {first} to prove.")
    start, end = 0, size
    ranges: list[Range] = []
    while first != end:
        split = _split(start, end)
        if first <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    if start:
        ranges.append((start, end))
    return ranges[::-1]


class RangeHashes:
    """Hashes the leaves of several ranges in one pass over the tree, in memory that does not grow with it."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._asked = list(ranges)
        self._trees: dict[Range, Frontier] = {one: Frontier() for one in self._asked}
        self._open = sorted(self._trees)
        if any(before[1] > after[0] for before, after in pairwise(self._open)):
            raise AuditError(BAD_PROOF, "The ranges of a proof overlap.")

    def feed(self, position: int, nodes: Sequence[bytes], level: int = 0) -> None:
        """Takes the roots of the full subtrees of `2**level` leaves from `position` on; positions only grow.

        Raises AuditError(audit.unprovable) where a range ends inside one of them.
        """
        end = position + (len(nodes) << level)
        for one in self._open:
            if one[0] >= end:
                break
            inside = max(one[0] - position, 0), min(one[1], end) - position
            first, last = (bound >> level for bound in inside)
            if (first << level, last << level) != inside:
                raise AuditError(
                    UNPROVABLE,
                    f"The records {one[0] + 1} to {one[1]} were removed, and what is kept of them is too coarse.",
                    hint="Prove it from a newer checkpoint.",
                )
            self._trees[one] = self._trees[one].extend(nodes[first:last], level)
        self._open = [one for one in self._open if one[1] > end]

    def hashes(self) -> list[bytes]:
        """The root of each range, in the order asked for. Raises AuditError(audit.bad_proof) for missing leaves."""
        for (start, end), tree in self._trees.items():
            if tree.size != end - start:
                raise AuditError(BAD_PROOF, f"The leaves {start} to {end} are not there to prove with.")
        return [self._trees[one].root() for one in self._asked]


def verify_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> None:
    """Raises AuditError(audit.bad_proof) unless `leaf` is leaf `index` of the tree (section 2.1.3.2)."""
    if not 0 <= index < size:
        raise AuditError(BAD_PROOF, f"A tree of {size} leaves has no leaf {index}.")
    at, last, found = index, size - 1, leaf
    for sibling in path:
        if last == 0:
            raise AuditError(BAD_PROOF, "The proof is longer than the tree is high.")
        if at & 1 or at == last:
            found = node_hash(sibling, found)
            shift = _trailing_zeros(at)
            at, last = at >> shift, last >> shift
        else:
            found = node_hash(found, sibling)
        at, last = at >> 1, last >> 1
    if last or found != root:
        raise AuditError(BAD_PROOF, f"The proof does not lead from leaf {index} to the root of {size} leaves.")


def verify_consistency(first: int, size: int, path: Sequence[bytes], first_root: bytes, root: bytes) -> None:
    """Raises AuditError(audit.bad_proof) unless the first tree is a prefix of the second (section 2.1.4.2)."""
    if not 0 < first <= size:
        raise AuditError(BAD_PROOF, f"A tree of {size} leaves has no prefix of {first} to prove.")
    if first == size:
        if path or first_root != root:
            raise AuditError(BAD_PROOF, f"Two trees of {size} leaves each have different roots.")
        return
    nodes = iter(path)
    shift = _trailing_zeros(first)
    at, last = (first - 1) >> shift, (size - 1) >> shift
    old = new = first_root if at == 0 else _next(nodes)
    for node in nodes:
        if last == 0:
            raise AuditError(BAD_PROOF, "The proof is longer than the tree is high.")
        if at & 1 or at == last:
            old, new = node_hash(node, old), node_hash(node, new)
            shift = _trailing_zeros(at)
            at, last = at >> shift, last >> shift
        else:
            new = node_hash(new, node)
        at, last = at >> 1, last >> 1
    if last or old != first_root or new != root:
        raise AuditError(BAD_PROOF, f"The proof does not make {first} leaves a prefix of the {size}.")


def _next(nodes: Iterator[bytes]) -> bytes:
    try:
        return next(nodes)
    except StopIteration:
        raise AuditError(BAD_PROOF, "The proof is too short.") from None


def _split(start: int, end: int) -> int:
    """Where a tree over these leaves is split: behind the largest power of two below their number."""
    return start + (1 << (end - start - 1).bit_length() - 1)


def _trailing_zeros(number: int) -> int:
    """How often `number` can be halved; as often as any position can, for 0."""
    return (number & -number).bit_length() - 1 if number else 64
