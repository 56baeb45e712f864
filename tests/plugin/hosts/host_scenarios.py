"""What every host must do, whichever gateway it is: one list of scenarios over a `RunningHost`.

A host's own test file gives a fixture `host` and parametrises `test` over `SCENARIOS`. Each scenario is a function
that asserts; the gatekeeper behind the host is scripted by the field `x-script` (host_gatekeeper.py).
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.plugin.hosts.host_gatekeeper import CALLS, CHALLENGE, SHOWN, content_digest
from tests.plugin.hosts.host_upstream import Arrived

Fields = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reply:
    """What the client was answered; status 0: nothing that is HTTP."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["code"])


class RunningHost(Protocol):
    """A real gateway with a scripted plugin and an echo upstream."""

    name: str
    sees_bodies: bool
    """Whether the host shows bodies to the plugin."""

    authority: str

    def send(self, method: str, target: str, fields: Fields = (), body: bytes = b"") -> Reply:
        """One request on a connection of its own; `target` goes out as it is."""
        ...

    @property
    def arrived(self) -> list[Arrived]:
        """What the upstream got, in order."""
        ...

    def kill_plugin(self) -> None: ...

    def start_plugin(self) -> None: ...

    def freeze_plugin(self) -> None: ...

    def thaw_plugin(self) -> None: ...

    def replace_plugin(self) -> None:
        """A successor takes over, and the one before drains."""
        ...


def shown(arrived: Arrived) -> dict[str, Any]:
    """What the gatekeeper was shown of a request that arrived."""
    (value,) = arrived.values(SHOWN)
    view: dict[str, Any] = json.loads(base64.b64decode(value))
    return view


def allow(host: RunningHost) -> None:
    reply = host.send("GET", "/v1/things?a=1&b=%20", [("x-mine", "1")])
    assert reply.status == 200
    arrived = host.arrived[-1]
    view = shown(arrived)
    assert arrived.target == "/v1/things?a=1&b=%20"
    assert view["target"] == ["GET", host.authority, "/v1/things", "?a=1&b=%20"]
    assert view["source"] == "127.0.0.1"
    assert view["upstream"] == "upstream"
    assert ["x-mine", "1"] in view["headers"]
    assert arrived.values("x-ringfence-assertion") == ["signed"]


def deny(host: RunningHost) -> None:
    reply = refused(host, 403, [("x-script", "deny")])
    assert reply.code == "policy.denied"
    assert reply.values("content-type") == ["application/problem+json"]


def step_up(host: RunningHost) -> None:
    reply = refused(host, 401, [("x-script", "step-up")])
    assert reply.values("www-authenticate") == [CHALLENGE, "Basic"]


def rate_limit(host: RunningHost) -> None:
    assert refused(host, 429, [("x-script", "limit")]).values("retry-after") == ["7"]


def tampered_body(host: RunningHost) -> None:
    body = b"what was signed" * 100
    fields = [("content-digest", content_digest(body))]
    before = len(host.arrived)
    reply = host.send("POST", "/v1/jobs", fields, body)
    if host.sees_bodies:
        assert reply.status == 200
        assert shown(host.arrived[-1])["body"] == body.hex()
        before += 1
    tampered = host.send("POST", "/v1/jobs", fields, body + b"!")
    assert (tampered.status, tampered.code) == (401, "integrity.digest_mismatch")
    assert len(host.arrived) == before


def replay(host: RunningHost) -> None:
    fields = [("x-nonce", f"{host.name}-{time.monotonic_ns()}")]
    assert host.send("GET", "/", fields).status == 200
    assert refused(host, 409, fields).code == "integrity.replayed"


def spoofed_fields(host: RunningHost) -> None:
    spoofed = [
        ("X-Ringfence-Assertion", "forged"),
        ("x-ringfence-shown", "forged"),
        ("X-RINGFENCE-Anything", "forged"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "gopher"),
        ("x-envoy-auth-partial-body", "false"),
        ("x-forwarded-client-cert", "Hash=00"),
        ("cookie", "a=1; __Host-ringfence=b.c; d=2"),
    ]
    assert host.send("GET", "/spoofed", spoofed).status == 200
    arrived = host.arrived[-1]
    view = shown(arrived)
    assert arrived.values("x-ringfence-assertion") == ["signed"]
    assert arrived.values("x-ringfence-anything") == []
    assert not [name for name, _ in view["headers"] if name.startswith("x-ringfence-")]
    assert view["source"] == "127.0.0.1"
    assert arrived.values("cookie") == ["a=1; d=2"]
    assert arrived.values("x-forwarded-proto") != ["gopher"]
    assert "Hash=00" not in str(arrived.values("x-forwarded-client-cert"))
    assert view["body"] == "absent"


def nominated_fields(host: RunningHost) -> None:
    # Either refused, or gatekeeper and upstream agree that the field is not there.
    for name in ("signature", "content-digest", "authorization", "x-ringfence-assertion", "x-other"):
        before = len(host.arrived)
        reply = host.send("GET", "/", [("connection", f"close, {name}"), (name, "forged")])
        if reply.status == 200:
            arrived = host.arrived[-1]
            seen = [value for known, value in shown(arrived)["headers"] if known == name]
            assert arrived.values(name) == (["signed"] if name == "x-ringfence-assertion" else seen)
        else:
            assert len(host.arrived) == before


def unknown_script(host: RunningHost) -> None:
    # The gatekeeper raises, which it never may.
    refused(host, None, [("x-script", "broken")])


def killed(host: RunningHost) -> None:
    host.kill_plugin()
    try:
        refused(host, None, [])
    finally:
        host.start_plugin()
    assert host.send("GET", "/").status == 200


def frozen(host: RunningHost) -> None:
    assert host.send("GET", "/").status == 200
    host.freeze_plugin()
    try:
        began = time.monotonic()
        refused(host, None, [])
        assert time.monotonic() - began < 5
    finally:
        host.thaw_plugin()
    assert host.send("GET", "/").status == 200


def slow(host: RunningHost) -> None:
    assert host.send("GET", "/", [("x-script", "slow")]).status == 200
    began = time.monotonic()
    refused(host, None, [("x-script", "stuck")])
    assert time.monotonic() - began < 5


def full(host: RunningHost) -> None:
    before = len(host.arrived)
    statuses = together(host, 3 * CALLS, lambda: [("x-script", "slow")])
    assert set(statuses) - {200}, "nobody was refused"
    assert statuses.count(200) == len(host.arrived) - before
    assert host.send("GET", "/").status == 200


def reload_under_load(host: RunningHost) -> None:
    stop, failures, done = threading.Event(), list[Reply](), list[int]()

    def load() -> None:
        while not stop.is_set():
            reply = host.send("GET", "/load")
            done.append(reply.status)
            if reply.status != 200:
                failures.append(reply)

    threads = [threading.Thread(target=load) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(2):
        time.sleep(0.2)
        host.replace_plugin()
    time.sleep(0.2)
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(done) > 50


SCENARIOS: tuple[Callable[[RunningHost], None], ...] = (
    *(allow, deny, step_up, rate_limit, tampered_body, replay, spoofed_fields, nominated_fields, unknown_script),
    *(killed, frozen, slow, full, reload_under_load),
)


def refused(host: RunningHost, status: int | None, fields: Fields) -> Reply:
    """Sends a request that must not reach the upstream; `status` None: any refusal of the host's own."""
    before = len(host.arrived)
    reply = host.send("GET", "/refused", fields)
    assert len(host.arrived) == before
    assert reply.status == status if status is not None else reply.status in (403, 500, 502, 503, 504)
    return reply


def together(host: RunningHost, count: int, fields: Callable[[], Fields]) -> list[int]:
    """The statuses of `count` requests at one time."""
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(host.send("GET", "/", fields()).status)) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses
