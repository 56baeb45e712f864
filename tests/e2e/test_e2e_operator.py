"""What an operator sees and ends of a running gateway, as its callers behind nginx notice it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence.client.client import Session
from ringfence.client.local import LocalInstallation
from ringfence.plugin.sessions.desk import List
from ringfence.plugin.sessions.desk_client import Desk
from ringfence.trust import Role
from ringfence.trust.store import change
from tests.e2e.e2e_hosts_scene import MANIFEST, Door, Front, end, front, get, signed

Command = Callable[..., list[str]]
SOON_S = 1.0


@pytest.fixture(scope="module")
def before(local: LocalInstallation, folder: Path) -> Iterator[Front]:
    with front(local, folder, ("nginx",), others=("leaving", "revoked")) as running:
        yield running


@pytest.fixture
def door(before: Front) -> Door:
    return before.doors["nginx"]


@pytest.fixture
def session(door: Door) -> Session:
    return door.client.open_session()


def status(door: Door, session: Session) -> int:
    return door.send("/a", signed(session, "/a")).status


def refused(door: Door, session: Session, until: Callable[..., None], within_s: float) -> None:
    """Waits until the session's requests are refused; each of them is a request of its own."""
    until(lambda: status(door, session) in (401, 403), "the session has ended", within_s)


def live(before: Front, session: Session) -> bool:
    """Whether the gateway still has the session: one that it only refuses would come back with what it is bound to."""
    with Desk(before.local.socket("admin")) as desk:
        return any(desk.sessions(List(session=session.name)))


def told(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_session_is_listed_and_revoked_by_the_name_of_its_principal(
    before: Front, door: Door, command: Command
) -> None:
    admin, client = before.local.socket("admin"), before.local.client("revoked")
    session = client.open_session()
    listed = ("gateway", "sessions", "--socket", admin, "--principal", "revoked")
    assert status(door, session) == 200
    assert session.name in told(command(*listed))
    (shown,) = json.loads(told(command("--json", *listed)))["sessions"]
    assert (shown["session"], shown["principal"]) == (session.name, client.signer.key_id)

    assert "1 live session ended" in told(command("gateway", "revoke", "--socket", admin, "--principal", "revoked"))
    reply = door.send("/a", signed(session, "/a"))
    assert (reply.status, json.loads(reply.body)["code"]) == (401, "session.unknown")
    assert session.name not in told(command(*listed))


def test_revoking_a_session_ends_it_alone(before: Front, door: Door, session: Session, command: Command) -> None:
    other = door.client.open_session()
    told(command("gateway", "revoke", "--socket", before.local.socket("admin"), "--session", session.name))
    assert (status(door, session), status(door, other)) == (401, 200)


def test_nobody_of_an_unknown_name_is_revoked_in_silence(before: Front, command: Command) -> None:
    words = ("gateway", "revoke", "--socket", before.local.socket("admin"), "--principal", "nobody")
    done = subprocess.run(command(*words), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode != 0
    assert "nobody" in done.stderr


def test_a_decision_is_seen_as_it_happens_and_explained_afterwards(
    before: Front, door: Door, session: Session, command: Command, until: Callable[..., None]
) -> None:
    words = ("--json", "gateway", "watch", "--socket", before.local.socket("feed"), "--only", "decision", "--limit", 1)
    with subprocess.Popen(command(*words), stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None

        def seen() -> bool:
            # The feed tells of what happens from the connection on, so the request is sent until it is seen.
            assert door.send("/admin/x", signed(session, "/admin/x")).status == 401
            return watching.poll() is not None

        until(seen, "the watch has ended by its limit")
        event = json.loads(watching.stdout.read())
    assert (event["verdict"], event["code"], event["action"]) == ("challenge", "policy.step_up_required", "Access")
    assert event["session"] == session.name
    log = before.local.audit_folder / "gateway"
    said = told(command("gateway", "explain", event["decision_id"], "--log", log))
    assert "forbid-admin-without-key" in said
    assert "webauthn" in said


def test_a_question_over_authzen_is_decided_by_the_same_policies(before: Front, command: Command) -> None:
    stated = {"source": "192.0.2.1", "factors": ["session-mac"], "risk": 0}
    request = {"method": "GET", "authority": "h", "path": "/admin/x", "body_bytes": 0}
    question = {
        "subject": {"type": "client", "id": "nginx"},
        "action": {"name": "Access"},
        "resource": {"type": "upstream", "id": "service"},
        "context": stated | request,
    }
    ask = before.local.socket("forward_auth")
    denied = json.loads(get(ask, "/access/v1/evaluation", question)[1])
    assert (denied["decision"], denied["context"]["missing"]) == (False, ["webauthn"])
    log = before.local.audit_folder / "gateway"
    assert "ASKED FOR MORE" in told(command("gateway", "explain", denied["context"]["decision_id"], "--log", log))

    found = {**question, "subject": {"type": "client"}, "context": stated | request | {"path": "/a"}}
    results = json.loads(get(ask, "/access/v1/search/subject", found)[1])["results"]
    assert {"type": "client", "id": "nginx"} in results


def test_a_client_that_is_no_longer_pinned_is_out_within_a_second(before: Front, until: Callable[..., None]) -> None:
    door, client = before.doors["nginx"], before.local.client("leaving")
    session = client.open_session()
    assert status(door, session) == 200
    assert live(before, session)
    change(before.local.state / "gateway-trust.toml", lambda pins: pins.remove(Role.CLIENT, "leaving"))
    until(lambda: not live(before, session), "the session has ended by itself", SOON_S)
    refused(door, session, until, SOON_S)


def test_policies_that_forbid_end_what_they_would_not_open(
    before: Front, door: Door, session: Session, until: Callable[..., None]
) -> None:
    assert status(door, session) == 200
    policies = before.local.state / "policies"
    forbids = '@id("forbid-all")\n@description("Nobody.")\nforbid (principal, action, resource);\n'
    (policies / "policies" / "closed.cedar").write_text(forbids)
    (policies / "manifest.toml").write_text(MANIFEST.format(version=2))
    until(lambda: not live(before, session), "the session has ended by itself", 3.0)
    reply = door.send("/a", signed(session, "/a"))
    assert json.loads(reply.body)["code"].startswith(("session.", "policy."))


def test_a_gateway_that_is_stopped_leaves_no_socket_behind(before: Front, door: Door) -> None:
    assert before.local.socket("forward_auth").is_socket()
    end(before.local, signal.SIGTERM)
    left = {path.name for path in before.local.socket("gateway").parent.glob("*.sock")}
    assert left == {"agent.sock"}
    assert door.send("/a").status == door.broken
