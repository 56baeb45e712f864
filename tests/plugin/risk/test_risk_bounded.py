"""The bounded table: what it holds, what it forgets, and that nobody waits for all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.plugin.risk.bounded import CANDIDATES, SHARDS, Bounded


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9)), max_size=200), st.integers(1, 20))
def test_it_never_holds_more_than_its_capacity_and_never_forgets_the_heaviest(
    added: list[tuple[int, int]], capacity: int
) -> None:
    table: Bounded[int] = Bounded(capacity, float)
    for key, value in added:
        before = dict(table.pairs())
        if table.get(str(key)) is not None:
            continue
        table.add(str(key), value)
        after = dict(table.pairs())
        assert after[str(key)] == value
        assert len(after) == len(table) <= capacity
        gone = before.keys() - after.keys()
        assert len(gone) == (1 if len(before) == capacity else 0)
        if capacity <= CANDIDATES:
            assert all(before[name] == min(before.values()) for name in gone)


@pytest.mark.parametrize("capacity", [1, 100, 4095, 4096, 100_000])
def test_small_and_large_tables_find_what_was_put_in(capacity: int) -> None:
    table: Bounded[str] = Bounded(capacity, lambda _: 0.0)
    for number in range(20_000):
        table.add(str(number), f"value {number}")
        assert table.get(str(number)) == f"value {number}"
    assert len(table) <= -(-capacity // SHARDS) * SHARDS
    table.remove("19999")
    assert table.get("19999") is None
    assert "19999" not in dict(table.pairs())


def test_no_shard_of_a_large_table_holds_much_more_than_its_share() -> None:
    table: Bounded[int] = Bounded(100_000, float)
    for number in range(200_000):
        table.add(str(number), number)
    assert max(map(len, table.shards)) == 100_000 // SHARDS
    assert len(table) == 100_000


def test_entries_may_come_and_go_while_they_are_read() -> None:
    table: Bounded[int] = Bounded(100, float)
    for number in range(100):
        table.add(str(number), number)
    read = []
    for key, _ in table.pairs():
        read.append(key)
        table.add(f"new {key}", 1000)
    assert len(table) == 100
    assert 0 < len(read) <= 100
