"""The real hosts before the real gateway: what they let through, what they refuse, and what they do without it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.client.client import Session
from ringfence.client.local import LocalInstallation
from ringfence.plugin.hosts.port import ASSERTION
from tests.e2e.e2e_hosts_scene import AUTHORITY, Door, Front, end, front, restart, signed
from tests.plugin.hosts.hosts_scene import Reply

HOSTS = ("nginx", "haproxy", "caddy", "envoy")
CHALLENGE = 'Signature realm="ringfence"'


@pytest.fixture(scope="module")
def before(local: LocalInstallation, folder: Path) -> Iterator[Front]:
    with front(local, folder, HOSTS) as running:
        yield running


@pytest.fixture(scope="module")
def sessions(before: Front) -> dict[str, Session]:
    """A session of each host's client, for the whole module."""
    return {name: door.client.open_session() for name, door in before.doors.items()}


@pytest.fixture(params=HOSTS)
def door(request: pytest.FixtureRequest, before: Front) -> Door:
    """One of the hosts; nothing has arrived yet."""
    before.upstream.arrivals.clear()
    return before.doors[request.param]


@pytest.fixture
def session(door: Door, sessions: dict[str, Session]) -> Session:
    return sessions[door.name]


def code(reply: Reply) -> str:
    return str(json.loads(reply.body)["code"])


def test_an_allowed_request_arrives_with_an_assertion_that_holds(before: Front, door: Door, session: Session) -> None:
    assert door.send("/v1/things?a=1&b=%20", signed(session, "/v1/things?a=1&b=%20")).status == 200
    (arrival,) = before.upstream.arrivals
    (claims,) = arrival.claims
    assert arrival.target == "/v1/things?a=1&b=%20"
    assert (claims.sub, claims.sid, claims.aud) == (door.client.signer.key_id, session.name, "service")
    assert claims.htu == f"{AUTHORITY}/v1/things?a=1&b=%20"
    assert (claims.groups, claims.factors) == (("clients", "service-users"), ("session-mac",))
    assert claims.decision_id


def test_the_same_request_again_is_a_replay(before: Front, door: Door, session: Session) -> None:
    fields = signed(session, "/once")
    assert door.send("/once", fields).status == 200
    again = door.send("/once", fields)
    assert (again.status, code(again)) == (door.conflict, "integrity.replayed")
    assert len(before.upstream.arrivals) == 1


def test_another_target_than_the_signed_one_is_refused(before: Front, door: Door, session: Session) -> None:
    for target, method in (("/b", "GET"), ("/a?x=1", "GET"), ("/a", "DELETE")):
        reply = door.send(target, signed(session, "/a"), method)
        assert (reply.status, code(reply)) == (401, "integrity.signature_invalid"), (target, method)
    assert before.upstream.arrivals == []


def test_an_unsigned_request_is_asked_to_sign(before: Front, door: Door) -> None:
    reply = door.send("/a")
    assert (reply.status, reply.values("www-authenticate")) == (401, [CHALLENGE])
    assert before.upstream.arrivals == []


def test_a_policy_that_asks_for_a_factor_names_it(before: Front, door: Door, session: Session) -> None:
    reply = door.send("/admin/users", signed(session, "/admin/users"))
    (challenge,) = reply.values("www-authenticate")
    assert reply.status == 401
    assert 'acr_values="urn:ringfence:factor:webauthn"' in challenge
    assert json.loads(reply.body)["missing"] == ["webauthn"]
    assert before.upstream.arrivals == []


def test_a_body_that_nobody_checks_is_refused(before: Front, door: Door, session: Session) -> None:
    body = b"what was signed"
    reply = door.send("/items", signed(session, "/items", "POST", body), "POST", body)
    if door.shows_bodies:
        assert reply.status == 200
        tampered = door.send("/items", signed(session, "/items", "POST", body), "POST", b"what was written")
        assert (tampered.status, code(tampered)) == (401, "integrity.digest_mismatch")
        assert len(before.upstream.arrivals) == 1
    else:
        assert (reply.status, code(reply)) == (403, "policy.denied")
        assert "forbid-unverified-access-body" in json.loads(reply.body)["message"]
        assert before.upstream.arrivals == []


def test_a_caller_sets_no_field_of_ringfence(before: Front, door: Door, session: Session) -> None:
    forged = {"X-Ringfence-Assertion": "forged", "x-ringfence-grant": "forged", "X-RINGFENCE-Decision": "forged"}
    reply = door.send("/a", signed(session, "/a") | forged)
    assert reply.status in (200, 400, 403)
    for arrival in before.upstream.arrivals:
        assert len(arrival.values(ASSERTION)) == len(arrival.claims) == 1
        assert "forged" not in str(arrival.headers)


def test_sessions_outlive_a_gateway_that_is_killed_and_nothing_is_let_through_without_it(
    before: Front, sessions: dict[str, Session], until: Callable[..., None]
) -> None:
    spent = {name: signed(sessions[name], "/before") for name in before.doors}
    assert {door.send("/before", spent[name]).status for name, door in before.doors.items()} == {200}
    seen = _snapshot(before.local)
    until(lambda: _snapshot(before.local) > seen + 1, "the sessions are kept")

    end(before.local, signal.SIGKILL)
    before.upstream.arrivals.clear()
    for name, door in before.doors.items():
        assert door.send("/without", signed(sessions[name], "/without")).status == door.broken, name
    assert before.upstream.arrivals == []

    before.local.start("gateway")
    for name, door in before.doors.items():
        until(_answers(door, sessions[name]), f"{name} asks again")
        replayed = door.send("/before", spent[name])
        assert (replayed.status, code(replayed)) == (door.conflict, "integrity.replayed"), name
    assert "/before" not in [arrival.target for arrival in before.upstream.arrivals]


def _snapshot(local: LocalInstallation) -> int:
    """The number of the newest snapshot; the one before it is on record."""
    found = [int(path.stem.removeprefix("sessions-")) for path in (local.state / "gateway").glob("sessions-*.sealed")]
    return max(found, default=0)


def _answers(door: Door, session: Session) -> Callable[[], bool]:
    return lambda: door.send("/after", signed(session, "/after")).status == 200


@pytest.fixture(scope="module")
def _checked(before: Front) -> None:
    """From here on the gateway knows that the upstream checks bodies before it acts."""
    path = before.local.state / "gateway.toml"
    text = path.read_text()
    assert text.count("verifies_body = false") == 1
    path.write_text(text.replace("verifies_body = false", "verifies_body = true"))
    restart(before.local)


@pytest.mark.usefixtures("_checked")
def test_a_body_that_the_upstream_checks_reaches_it_and_only_as_it_was_signed(
    before: Front, door: Door, session: Session, until: Callable[..., None]
) -> None:
    until(_answers(door, session), "the host asks again")
    before.upstream.arrivals.clear()
    body = b"what was signed"
    assert door.send("/items", signed(session, "/items", "POST", body), "POST", body).status == 200
    (arrival,) = before.upstream.arrivals
    assert [claims.htm for claims in arrival.claims] == ["POST"]
    tampered = door.send("/items", signed(session, "/items", "POST", body), "POST", b"what was written")
    refused_by = "integrity.digest_mismatch" if door.shows_bodies else "assertion.body_mismatch"
    assert (tampered.status, code(tampered)) == (401, refused_by)
    assert sum(len(one.claims) for one in before.upstream.arrivals) == 1
