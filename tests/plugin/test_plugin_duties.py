"""The duties of a running gateway: none dies unnoticed, and what is over ends soon, however much of it there is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import cast

from msgspec import structs

from ringfence.agent.api.errors import AGENT_UNAVAILABLE
from ringfence.audit import AuditError, Record
from ringfence.audit.errors import UNAVAILABLE
from ringfence.audit.kinds import Session as SessionRecord
from ringfence.plugin.composition import Gatehouse
from ringfence.plugin.duties import WATCH_S, Duties, kept_up
from ringfence.plugin.errors import GateError
from ringfence.plugin.host import Attested, Host, Unreachable
from ringfence.plugin.pipeline.means import Means
from ringfence.plugin.sessions.ending import PENDING, Endings
from ringfence.plugin.sessions.port import Ended, Selection
from ringfence.plugin.sessions.store import MemorySessions
from ringfence.plugin.threats.watch import Broadcast
from ringfence.trust import Pin, Role, TrustList
from tests.plugin.test_plugin_access import AGENT, BUNDLE, HOST, NOW, Gateway

FAULT = AuditError(UNAVAILABLE, "The log cannot be written.")


@dataclass
class Link:
    """A host that is attested until it is asked anew."""

    latest: Host | None = HOST
    renewed: list[Host | None] = field(default_factory=list)

    async def renew(self, stale: Host | None) -> Host:
        self.renewed.append(stale)
        self.latest = Unreachable(AGENT.key_id, FAULT)
        return self.latest


@dataclass
class Journal:
    """A log whose disk takes a while for each commit."""

    records: list[Record] = field(default_factory=list)
    failures: int = 0

    async def record(self, record: Record) -> None:
        await asyncio.sleep(0.005)
        if self.failures:
            self.failures -= 1
            raise FAULT
        self.records.append(record)

    @property
    def closed(self) -> set[str]:
        return {one.session for one in self.records if isinstance(one, SessionRecord) and one.event == "closed"}


class House:
    """What `Duties` need of a gateway in which `count` clients have a session each, opened under `bundle`."""

    def __init__(self, count: int, *, bundle: str = BUNDLE) -> None:
        world = Gateway()
        self.policies = world.policies
        self.policies.bundle_digest = bundle
        self.sessions = MemorySessions(count)
        self.means: Means = replace(world.means, sessions=self.sessions, trust=lambda: TrustList(self.pins))
        self.endings = Endings(self.sessions, ticks_ns=lambda: 0)
        self.link, self.settlement, self.broadcast = Link(), Journal(), Broadcast()
        clients = [Pin(f"p{n}", Role.CLIENT, secrets.token_bytes(1984), 1) for n in range(count)]
        self.agent = Pin("agent", Role.AGENT, AGENT.public, 1)
        self.pins = (self.agent, *clients)
        for client in clients:
            opened = {"name": secrets.token_hex(16), "principal": client.key_id, "bundle_digest": bundle}
            self.sessions.add(structs.replace(world.session, **opened), now=NOW)
        self.told: list[str] = []
        self.duties = Duties(cast(Gatehouse, self), clock=lambda: NOW, tell=self.told.append)

    async def run(self, done: Callable[[], bool], change: Callable[[], None]) -> None:
        """Runs the duties, changes the world once they have seen it, and waits until it is `done`."""
        duties = (self.duties.watch_the_world, self.duties.reconsider_sessions, self.duties.end_sessions)
        tasks = [asyncio.ensure_future(duty()) for duty in duties]
        await asyncio.sleep(2 * WATCH_S)
        change()
        try:
            for _ in range(200):
                if done():
                    return
                await asyncio.sleep(0.01)
            raise AssertionError("it took longer than two seconds")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_a_duty_that_fails_is_told_once_and_done_again() -> None:
    faults = iter([FAULT, FAULT, KeyError("secret")])
    told: list[str] = []

    async def duty() -> None:
        for fault in faults:
            raise fault

    asyncio.run(kept_up("the duty", duty, told.append, pause_s=0))
    assert told == [
        f"the duty failed and begins anew: AuditError: {FAULT}",
        "the duty failed and begins anew: KeyError",
    ]


def test_a_thousand_sessions_end_with_their_hosts_trust_and_on_record() -> None:
    house = House(1000)
    status = type(HOST.trust.status)("warning")

    def change() -> None:
        house.link.latest = replace(HOST, trust=replace(HOST.trust, status=status))

    asyncio.run(house.run(lambda: len(house.settlement.closed) == 1000, change))
    assert len(house.sessions) == 0


def test_sessions_outlive_a_restart_of_the_agent_but_not_a_host_that_cannot_be_attested() -> None:
    house, away = House(10), GateError(AGENT_UNAVAILABLE, "The agent is away.")

    async def scenario() -> None:
        house.link.latest = HOST

        def restart() -> None:
            house.link.latest = Unreachable(AGENT.key_id, away)
            asyncio.get_running_loop().call_later(3 * WATCH_S, lost)

        def lost() -> None:
            survivors.append(len(house.sessions))
            house.link.latest = Unreachable(AGENT.key_id, FAULT)

        await house.run(lambda: not house.sessions, restart)

    survivors: list[int] = []
    asyncio.run(scenario())
    assert survivors == [10]


def test_an_end_that_could_not_be_recorded_is_recorded_later() -> None:
    house = House(10)

    def change() -> None:
        house.settlement.failures = 25
        for session in list(house.sessions.select(Selection())):
            house.sessions.retire(session.name, Ended.POLICY)

    asyncio.run(house.run(lambda: len(house.settlement.closed) == 10, change))


def test_a_host_whose_agent_is_not_pinned_any_more_is_asked_at_once() -> None:
    house = House(1)

    def change() -> None:
        house.pins = house.pins[1:]

    asyncio.run(house.run(lambda: not house.sessions, change))
    assert isinstance(house.link.renewed[0], Attested)


def test_more_changes_than_may_wait_are_carried_out_all_the_same() -> None:
    house = House(PENDING + 200)

    def change() -> None:
        house.pins = (house.agent,)

    asyncio.run(house.run(lambda: not house.sessions, change))


def test_changed_policies_are_asked_about_sessions_that_make_no_request() -> None:
    house = House(100, bundle="c" * 64)

    def change() -> None:
        house.policies.bundle_digest = BUNDLE

    asyncio.run(house.run(lambda: bool(house.told), change))
    assert {session.bundle_digest for session in house.sessions.select(Selection())} == {BUNDLE}
