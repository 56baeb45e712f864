"""Strangers fill no disk: their refusals are recorded up to a limit, counted beyond it, and hold up nobody else."""

from __future__ import annotations

import secrets
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence import audit
from ringfence.crypto import COMPOSITE
from ringfence.crypto.handshake import Initiator
from ringfence.plugin.api import SESSION_PURPOSE, SESSIONS_PATH
from ringfence.plugin.errors import SESSION_UNKNOWN, GateError
from ringfence.plugin.strangers import LOOPBACK, MAX_SOURCES, OTHERS, StrangerLimit
from ringfence.trust import KeyPair

UNSIGNED = [(b"host", b"localhost")]
STRANGER = KeyPair(*COMPOSITE.generate())


def records(limit: StrangerLimit, source: str) -> bool:
    """Whether a refusal of `source` has a record of its own."""
    try:
        limit.refuse(source, SESSION_UNKNOWN)
    except GateError:
        return False
    return True


def test_each_source_has_its_own_limit() -> None:
    limit = StrangerLimit(3)
    assert [records(limit, "192.0.2.1") for _ in range(5)] == [True] * 3 + [False] * 2
    assert records(limit, "192.0.2.2")
    assert records(limit, "unix")
    assert limit.suppressed() == (("192.0.2.1", 2),)
    with pytest.raises(GateError, match=r"gateway\.too_many_refusals.* refused with session\.unknown"):
        limit.refuse("192.0.2.1", SESSION_UNKNOWN)
    limit.turn()
    assert records(limit, "192.0.2.1")


def test_loopback_is_one_source_whatever_address_is_used() -> None:
    limit = StrangerLimit(2)
    assert [records(limit, source) for source in ("127.0.0.1", "127.9.8.7", "::1", "127.0.0.2")] == [
        True,
        True,
        False,
        False,
    ]
    assert limit.suppressed() == ((LOOPBACK, 2),)


def test_more_sources_than_are_told_apart_share_one_limit() -> None:
    limit = StrangerLimit(2)
    recorded = [records(limit, f"198.51.{number // 256}.{number % 256}") for number in range(1000)]
    assert sum(recorded) == MAX_SOURCES + 2
    assert limit.suppressed() == ((OTHERS, 1000 - MAX_SOURCES - 2),)


@given(st.lists(st.sampled_from(["a", "b", "127.0.0.1", "report", "turn"])))
def test_no_refusal_is_dropped_silently(steps: list[str]) -> None:
    limit = StrangerLimit(2)
    recorded = told = asked = 0
    for step in steps:
        if step == "turn":
            limit.turn()
        elif step == "report":
            for source, count in limit.suppressed():
                told += count
                limit.reported(source, count)
            assert limit.suppressed() == ()
        else:
            asked += 1
            recorded += records(limit, step)
    assert asked == recorded + told + sum(count for _, count in limit.suppressed())


def forged_hello(world: Any, *, names_the_client: bool) -> bytes:
    """A hello of a stranger's, or one that names the client and is signed by nobody."""
    if not names_the_client:
        gateway = KeyPair(*COMPOSITE.generate()).public
        made = Initiator.start(STRANGER, gateway, SESSION_PURPOSE, now=int(time.time()), random=secrets.token_bytes)
        return made.message
    hello: bytes = world.hello()
    return hello[:-1] + bytes([hello[-1] ^ 1])


@pytest.mark.parametrize("kind", ["an unsigned job", "an unknown key", "a pinned key with a bad signature"])
async def test_refusals_of_strangers_beyond_the_limit_are_counted_and_callers_pass(scarce: Any, kind: str) -> None:
    async def intrude() -> str:
        if kind == "an unsigned job":
            answer = await scarce.ask(headers=UNSIGNED, chunks=(b"x",))
        else:
            hello = forged_hello(scarce, names_the_client=kind != "an unknown key")
            answer = await scarce.ask(SESSIONS_PATH, chunks=(hello,))
        code: str = answer.problem
        return code

    codes = [await intrude() for _ in range(8)]
    assert codes[5:] == ["gateway.too_many_refusals"] * 3
    assert "gateway.too_many_refusals" not in codes[:5]
    assert [record.code for record in scarce_records(scarce, audit.Decision)] == codes[:5]

    # Whoever authenticates is not held up by them, on the same source.
    assert (await scarce.ask(headers=scarce.signed(), chunks=(scarce.job,))).status == 200
    assert (await scarce.ask(SESSIONS_PATH, chunks=(scarce.hello(),))).status == 200

    await scarce.settlement.report_suppressed()
    told = audit.Suppression(code="gateway.too_many_refusals", source="unix", refusals=3)
    assert scarce_records(scarce, audit.Suppression) == [told]
    assert await intrude() == codes[0]
    await scarce.settlement.report_suppressed()
    assert scarce_records(scarce, audit.Suppression) == [told]


async def test_a_refusal_of_an_authenticated_caller_is_always_recorded(scarce: Any) -> None:
    for _ in range(8):
        answer = await scarce.ask(headers=scarce.signed(b"no job"), chunks=(b"no job",))
        assert answer.problem == "job.malformed"
    assert len(scarce_records(scarce, audit.Decision)) == 8


async def test_a_count_that_the_log_does_not_take_is_kept(scarce: Any) -> None:
    for _ in range(7):
        await scarce.ask(headers=UNSIGNED)
    scarce.log.close()
    for _ in range(2):
        with pytest.raises(audit.AuditError):
            await scarce.settlement.report_suppressed()
    # No new window either: there would be no record for it.
    assert (await scarce.ask(headers=UNSIGNED)).problem == "gateway.too_many_refusals"


def scarce_records(world: Any, kind: type[Any]) -> list[Any]:
    """The records of one kind in the log."""
    return [entry.record for entry in world.log.records() if isinstance(entry.record, kind)]
