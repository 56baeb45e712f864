"""The Merkle tree against RFC 9162's own definition, and against roots that Certificate Transparency published."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.audit import AuditError
from ringfence.audit.merkle import (
    Frontier,
    RangeHashes,
    consistency_ranges,
    cover,
    inclusion_ranges,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)

# The reference tree of Certificate Transparency's own tests (google/certificate-transparency, merkle_tree_test.cc).
CT_LEAVES = [
    bytes.fromhex(leaf)
    for leaf in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]

DATA = [number.to_bytes(2, "big") for number in range(70)]
LEAVES = [leaf_hash(data) for data in DATA]


def mth(data: Sequence[bytes]) -> bytes:
    """Section 2.1.1, word for word."""
    if not data:
        return hashlib.sha256(b"").digest()
    if len(data) == 1:
        return hashlib.sha256(b"\x00" + data[0]).digest()
    k = 1
    while k * 2 < len(data):
        k *= 2
    return hashlib.sha256(b"\x01" + mth(data[:k]) + mth(data[k:])).digest()


def hashes(ranges: list[tuple[int, int]], size: int) -> list[bytes]:
    found = RangeHashes(ranges)
    at, some = 0, size % 9 + 1
    while at < size:
        found.feed(at, LEAVES[at : min(at + some, size)])
        at += some
    return found.hashes()


def test_the_published_roots_come_out() -> None:
    for size, root in enumerate(CT_ROOTS):
        assert Frontier().extend([leaf_hash(leaf) for leaf in CT_LEAVES[:size]]).root().hex() == root


def test_any_split_gives_the_root_of_the_definition() -> None:
    for size in range(len(DATA)):
        assert Frontier().extend(LEAVES[:size]).root() == mth(DATA[:size])
        for split in range(size):
            assert Frontier().extend(LEAVES[:split]).extend(LEAVES[split:size]).root() == mth(DATA[:size])


def test_every_inclusion_proof_holds_for_its_leaf_alone() -> None:
    for size in range(1, 34):
        root = mth(DATA[:size])
        for index in range(size):
            path = hashes(inclusion_ranges(index, size), size)
            verify_inclusion(LEAVES[index], index, size, path, root)
            for wrong in range(size + 1):
                if wrong != index:
                    with pytest.raises(AuditError):
                        verify_inclusion(LEAVES[index], wrong, size, path, root)
            for changed in (path[:-1], [*path, root], path[::-1] if path[::-1] != path else [*path, root]):
                if changed != path:
                    with pytest.raises(AuditError):
                        verify_inclusion(LEAVES[index], index, size, changed, root)
            with pytest.raises(AuditError):
                verify_inclusion(LEAVES[index + 1], index, size, path, root)


def test_every_consistency_proof_holds_for_its_sizes_alone() -> None:
    for size in range(1, 34):
        root = mth(DATA[:size])
        for first in range(1, size + 1):
            path = hashes(consistency_ranges(first, size), size)
            verify_consistency(first, size, path, mth(DATA[:first]), root)
            other = mth([*DATA[: first - 1], b"other"])
            for wrong in ((first, path, other, root), (first, path, mth(DATA[:first]), other), (0, path, other, root)):
                with pytest.raises(AuditError):
                    verify_consistency(wrong[0], size, wrong[1], wrong[2], wrong[3])
            with pytest.raises(AuditError):
                verify_consistency(first, size, [*path, root], mth(DATA[:first]), root)
            if path:
                with pytest.raises(AuditError):
                    verify_consistency(first, size, path[:-1], mth(DATA[:first]), root)


@settings(max_examples=200)
@given(st.integers(0, 70), st.integers(0, 70), st.integers(0, 70))
def test_what_covers_a_stretch_of_leaves_stands_for_them(a: int, b: int, c: int) -> None:
    start, middle, end = sorted((a, b, c))
    tree = Frontier().extend(LEAVES[:start])
    nodes = cover(start, LEAVES[start:middle])
    joined = tree.extend_covered(nodes, middle).extend_covered(cover(middle, LEAVES[middle:end]), end)
    assert joined == Frontier().extend(LEAVES[:end])
    if nodes:
        for wrong, to in ((nodes[:-1], middle), ([*nodes, nodes[0]], middle), (nodes, start)):
            with pytest.raises(AuditError):
                tree.extend_covered(wrong, to)


def test_impossible_trees_and_proofs_are_refused() -> None:
    for act in (
        lambda: Frontier(3, (b"x" * 32,)),
        lambda: Frontier(1, (b"short",)),
        lambda: Frontier().extend(LEAVES[:1]).extend(LEAVES[:1], 1),
        lambda: inclusion_ranges(3, 3),
        lambda: inclusion_ranges(-1, 3),
        lambda: consistency_ranges(0, 3),
        lambda: consistency_ranges(4, 3),
        lambda: RangeHashes([(0, 2), (1, 3)]),
        lambda: RangeHashes([(0, 2)]).hashes(),
        lambda: RangeHashes([(0, 2)]).feed(0, LEAVES[:1], 2),
        lambda: verify_inclusion(LEAVES[0], 0, 0, [], b""),
    ):
        with pytest.raises(AuditError):
            act()
