"""The offline verifier against everything an attacker can do to the files."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from ringfence.audit import AuditError, Checkpoint, Keys, Report, verify_log
from ringfence.audit.checkpoint import decode_checkpoint, origin_of, sign_checkpoint
from ringfence.audit.merkle import Frontier, leaf_hash
from ringfence.audit.records import GENESIS, check_data, encode_data, encode_line
from ringfence.audit.segments import Start, encode_header
from ringfence.audit.verifier import Block, Piece
from tests.audit.conftest import Ed25519Signer, started, verify_ed25519

ORIGIN = origin_of("agent", "rf1test")
HEADER = encode_header(Start(ORIGIN))[:-1]


def chain(numbers: Sequence[int], prev: bytes = GENESIS, first: int = 1, commit: int = 1) -> list[bytes]:
    """Lines of records, `commit` of them at a time."""
    lines: list[bytes] = []
    for at, number in enumerate(numbers):
        data = encode_data(started(number))
        seq = first + at
        base = first + at // commit * commit - 1
        lines.append(encode_line(seq, base, prev, 1_000 + seq, check_data(started(number), data), data))
        prev = leaf_hash(lines[-1]).hex().encode()
    return lines


def point(signer: Ed25519Signer, lines: list[bytes], size: int, origin: str = ORIGIN) -> bytes:
    tree = Frontier().extend([leaf_hash(line) for line in lines[:size]])
    checkpoint = Checkpoint(origin, size, tree.root(), leaf_hash(lines[size - 1]).hex(), 9)
    return sign_checkpoint(checkpoint, signer) + b"\n"


def verify(
    lines: list[bytes], points: list[bytes], signer: Ed25519Signer, torn: bytes = b"", expect: bytes = b""
) -> Report:
    blocks: list[Block] = [([HEADER, *lines[:4]], b""), (lines[4:], b""), ([], torn)]
    return verify_log(
        [Piece(1, blocks)],
        points,
        Keys(signer.public, verify_ed25519),
        expect=decode_checkpoint(expect[:-1]) if expect else None,
    )


def fails(report: Report, code: str, bad_record: int | None, text: str) -> None:
    assert report.error is not None
    assert text in report.error.message
    assert (report.error.code.name, report.bad_record) == (code, bad_record)
    with pytest.raises(AuditError):
        report.check()


LINES = chain(range(10))
ONE_COMMIT = chain(range(10), commit=10)


@pytest.fixture
def points(signer: Ed25519Signer) -> list[bytes]:
    return [point(signer, LINES, 3), point(signer, LINES, 8)]


def test_an_untouched_log_holds(signer: Ed25519Signer, points: list[bytes]) -> None:
    report = verify(LINES, points, signer)
    report.check()
    assert (report.first, report.records, report.checkpoints, report.uncovered, report.torn) == (1, 10, 2, 2, 0)
    assert report.head == leaf_hash(LINES[-1]).hex()
    assert report.tree == Frontier().extend([leaf_hash(line) for line in LINES])
    assert report.size == sum(map(len, [HEADER, *LINES])) + 11
    assert report.last is not None
    assert (report.last.size, report.origin) == (8, ORIGIN)


def test_an_empty_log_holds(signer: Ed25519Signer) -> None:
    report = verify([], [], signer)
    report.check()
    assert (report.first, report.records, report.head) == (1, 0, "0" * 64)


@pytest.mark.parametrize("torn", [b'{"v":2,"se', b"\0" * 500])
def test_a_half_written_end_is_no_failure(signer: Ed25519Signer, points: list[bytes], torn: bytes) -> None:
    report = verify(LINES, [*points, points[0][:20]], signer, torn)
    report.check()
    assert (report.records, report.torn, report.checkpoints) == (10, len(torn), 2)


@pytest.mark.parametrize("seq", range(1, 11))
def test_an_edited_record_is_named(signer: Ed25519Signer, points: list[bytes], seq: int) -> None:
    lines = list(LINES)
    lines[seq - 1] = lines[seq - 1].replace(b'"started"', b'"stopped"')
    report = verify(lines, points, signer)
    if seq == 10:
        # Neither a checkpoint nor a later record speaks for the newest one: it counts as not covered.
        assert report.uncovered == 2
    elif seq in (3, 8):
        fails(report, "audit.corrupt", {3: 1, 8: 4}[seq], f"to {seq} was changed after it was signed")
    else:
        fails(report, "audit.corrupt", seq, f"Record {seq} does not hold")


@pytest.mark.parametrize("seq", range(1, 10))
def test_a_deleted_record_is_named(signer: Ed25519Signer, points: list[bytes], seq: int) -> None:
    fails(verify(LINES[: seq - 1] + LINES[seq:], points, signer), "audit.corrupt", seq, "missing, repeated")


def test_swapped_repeated_and_inserted_records_are_named(signer: Ed25519Signer, points: list[bytes]) -> None:
    swapped = [*LINES[:4], LINES[5], LINES[4], *LINES[6:]]
    fails(verify(swapped, points, signer), "audit.corrupt", 5, "out of order")
    fails(verify([*LINES[:5], LINES[4], *LINES[5:]], points, signer), "audit.corrupt", 6, "repeated")
    forged = chain([99], leaf_hash(LINES[4]).hex().encode(), first=6)
    fails(verify([*LINES[:5], *forged, *LINES[5:]], points, signer), "audit.corrupt", 7, "repeated")
    fails(verify([*LINES[:5], b"garbage", *LINES[5:]], points, signer), "audit.corrupt", 6, "not a record")


def test_a_record_after_a_checkpoint_with_a_foreign_parent_is_named(signer: Ed25519Signer, points: list[bytes]) -> None:
    lines = [*LINES[:8], *chain([8, 9], b"ab" * 32, first=9)]
    fails(verify(lines, points, signer), "audit.corrupt", 9, "not chained")


def test_a_log_rewritten_with_a_fresh_chain_does_not_meet_its_checkpoints(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    rewritten = [*LINES[:5], *chain([99, 6, 7, 8, 9], leaf_hash(LINES[4]).hex().encode(), first=6)]
    report = verify(rewritten, points, signer)
    fails(report, "audit.corrupt", 4, "was signed over other records")
    assert report.checkpoints == 1


def test_an_end_cut_off_under_a_checkpoint_is_seen_and_after_it_is_not(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    fails(verify(LINES[:7], points, signer), "audit.corrupt", 8, "its end was cut off")
    fails(verify(LINES[:7], points, signer, torn=LINES[7]), "audit.corrupt", 8, "its end was cut off")
    assert verify(LINES[:8], points, signer).error is None


def test_a_checkpoint_by_another_key_is_refused(signer: Ed25519Signer, points: list[bytes]) -> None:
    other = Ed25519Signer()
    fails(verify(LINES, points, other), "audit.forged_checkpoint", None, "over record 3")
    forged = [points[0], point(other, LINES, 8)]
    fails(verify(LINES, forged, signer), "audit.forged_checkpoint", None, "over record 8")


def test_checkpoints_out_of_order_of_another_log_or_unreadable_are_refused(
    signer: Ed25519Signer, points: list[bytes]
) -> None:
    fails(verify(LINES, points[::-1], signer), "audit.forged_checkpoint", None, "out of order")
    foreign = [points[0], point(signer, LINES, 8, origin_of("gateway", "rf1test"))]
    fails(verify(LINES, foreign, signer), "audit.forged_checkpoint", None, "is of the log")
    fails(verify(LINES, [points[0][:-1], points[1]], signer), "audit.corrupt", None, "but others follow")


# What a crash may leave, and what it cannot.


@pytest.mark.parametrize("seq", range(4, 11))
@pytest.mark.parametrize("hole", [b"", b"\0" * 64])
def test_a_hole_in_a_commit_that_nobody_was_told_of_is_set_aside(signer: Ed25519Signer, seq: int, hole: bytes) -> None:
    lines = [*LINES[:3], *chain(range(3, 10), leaf_hash(LINES[2]).hex().encode(), first=4, commit=7)]
    lines[seq - 1] = hole + lines[seq - 1][len(hole) :] if hole else b"\0" * len(lines[seq - 1])
    report = verify(lines, [point(signer, LINES, 3)], signer)
    report.check()
    assert (report.records, report.torn) == (seq - 1, sum(map(len, lines[seq - 1 :])) + 11 - seq)


@pytest.mark.parametrize("seq", range(4, 10))
def test_a_hole_before_a_record_that_says_it_was_acknowledged_is_an_error(signer: Ed25519Signer, seq: int) -> None:
    lines = list(LINES)
    lines[seq - 1] = b"\0" * len(lines[seq - 1])
    report = verify(lines, [point(signer, LINES, 3)], signer)
    # Record 10 says that 9 was durable; nothing says so of 10, and nothing after 9 of 9 itself but record 10.
    fails(report, "audit.corrupt", seq, "a later one says that it was acknowledged")


def test_a_hole_that_swallowed_its_newline_does_not_hide_what_speaks_for_it(signer: Ed25519Signer) -> None:
    merged = [*LINES[:3], b"\0" * 70_000 + LINES[5], *LINES[6:]]
    fails(verify(merged, [point(signer, LINES, 3)], signer), "audit.corrupt", 4, "says that it was acknowledged")
    report = verify(LINES[:3], [point(signer, LINES, 3)], signer, torn=b"\0" * 100 + LINES[5])
    fails(report, "audit.corrupt", 4, "says that it was acknowledged")
    cut_between = verify_log(
        [Piece(1, [([HEADER, *LINES[:3]], b"\0" * 100 + LINES[5][:20]), ([], LINES[5][20:])])],
        [],
        Keys(signer.public, verify_ed25519),
    )
    fails(cut_between, "audit.corrupt", 4, "says that it was acknowledged")


def test_a_hole_under_a_checkpoint_is_an_error(signer: Ed25519Signer) -> None:
    lines = list(ONE_COMMIT)
    lines[4] = b"\0" * len(lines[4])
    fails(verify(lines, [point(signer, ONE_COMMIT, 7)], signer), "audit.corrupt", 5, "not a record")
    assert verify(lines, [point(signer, ONE_COMMIT, 4)], signer).error is None
    fails(verify(lines, [], signer, expect=point(signer, ONE_COMMIT, 7)), "audit.corrupt", 5, "Record 5 does not hold")


def test_commits_begin_where_their_base_says(signer: Ed25519Signer) -> None:
    wrong = [*LINES[:3], *chain(range(3, 10), leaf_hash(LINES[2]).hex().encode(), first=4, commit=7)]
    data = encode_data(started(3))
    wrong[3] = encode_line(4, 1, leaf_hash(LINES[2]).hex().encode(), 1_004, check_data(started(3), data), data)
    fails(verify(wrong[:4], [], signer), "audit.corrupt", 4, "not how commits begin")


def test_a_hole_in_any_but_the_last_segment_is_an_error(signer: Ed25519Signer) -> None:
    second = encode_header(
        Start(ORIGIN, leaf_hash(LINES[4]).hex().encode(), Frontier().extend([leaf_hash(line) for line in LINES[:5]]))
    )[:-1]

    def check(first: list[bytes], torn: bytes = b"", header: bytes = second, name: int = 6) -> Report:
        pieces = [Piece(1, [([HEADER, *first], torn)]), Piece(name, [([header, *LINES[5:]], b"")])]
        return verify_log(pieces, [point(signer, LINES, 9)], Keys(signer.public, verify_ed25519))

    check(LINES[:5]).check()
    fails(check(LINES[:4]), "audit.corrupt", 5, "does not follow record 4")
    fails(check(LINES[:4], LINES[4]), "audit.corrupt", 5, "the line has no end")
    fails(check([*LINES[:4], b"\0" * 90]), "audit.corrupt", 5, "not a record")
    fails(check(LINES[:5], header=HEADER), "audit.corrupt", 6, "renamed or replaced")
    fails(check(LINES[:5], name=5), "audit.corrupt", 6, "renamed or replaced")
    fails(check(LINES[:5], header=second[:-1]), "audit.corrupt", 6, "not the header")


def test_a_log_without_its_beginning_needs_a_checkpoint_that_proves_where_it_begins(signer: Ed25519Signer) -> None:
    tree = Frontier().extend([leaf_hash(line) for line in LINES[:5]])
    header = encode_header(Start(ORIGIN, leaf_hash(LINES[4]).hex().encode(), tree))[:-1]
    keys = Keys(signer.public, verify_ed25519)

    def check(points: list[bytes], first: bytes = header) -> Report:
        return verify_log([Piece(6, [([first, *LINES[5:]], b"")])], points, keys)

    report = check([point(signer, LINES, 9)])
    report.check()
    assert (report.first, report.records) == (6, 10)
    fails(check([]), "audit.unsigned", None, "no checkpoint proves what was before it")
    other = Frontier(5, (tree.peaks[0], b"\1" * 32))
    forged = encode_header(Start(ORIGIN, leaf_hash(LINES[4]).hex().encode(), other))[:-1]
    fails(check([point(signer, LINES, 9)], forged), "audit.corrupt", 6, "was signed over other records")


# Checkpoints from elsewhere.


@pytest.mark.parametrize("size", range(1, 11))
def test_an_older_checkpoint_is_a_prefix(signer: Ed25519Signer, points: list[bytes], size: int) -> None:
    report = verify(LINES, points, signer, expect=point(signer, LINES, size))
    report.check()
    assert report.expected


def test_an_expected_checkpoint_finds_a_cut_a_fork_and_a_forgery(signer: Ed25519Signer, points: list[bytes]) -> None:
    fails(verify(LINES[:9], points, signer, expect=point(signer, LINES, 10)), "audit.corrupt", 10, "was cut off")
    fork = [*LINES[:8], *chain([88, 99], leaf_hash(LINES[7]).hex().encode(), first=9)]
    fails(verify(fork, points, signer, expect=point(signer, LINES, 9)), "audit.corrupt", 9, "signed over other records")
    stranger = point(Ed25519Signer(), LINES, 9)
    fails(verify(LINES, points, signer, expect=stranger), "audit.forged_checkpoint", None, "over record 9")
    elsewhere = point(signer, LINES, 9, origin_of("gateway", "rf1test"))
    fails(verify(LINES, points, signer, expect=elsewhere), "audit.forged_checkpoint", None, "is of the log")
