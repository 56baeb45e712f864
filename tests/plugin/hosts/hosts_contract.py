"""What every real host must do with the example configuration of its page. A host's tests inherit it."""

from __future__ import annotations

import concurrent.futures
import json
import threading
import time
from collections import Counter
from typing import ClassVar

import pytest

from ringfence.plugin.hosts.port import ASSERTION, Unseen
from tests.plugin.hosts.hosts_scene import CHALLENGE, TOKEN, Scene, ask, request
from tests.plugin.hosts.hosts_variants import VARIANTS


def _hidden(number: int) -> bytes:
    return b"GET /hidden%d HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n" % number


class HostContract:
    """Needs a fixture `scene`, a running host; `conflict` and `busy` are the statuses it gives for 409 and 429."""

    conflict: ClassVar[int] = 409
    busy: ClassVar[int] = 429
    broken: ClassVar[tuple[int, ...]] = (403, 500, 502, 503)
    tries: ClassVar[int] = 1

    @pytest.fixture(autouse=True)
    def _fresh(self, scene: Scene) -> None:
        scene.forget()

    def test_an_allowed_request_reaches_the_upstream_with_the_assertion(self, scene: Scene) -> None:
        reply = scene.ask(request("/a?b=c", {"X-Test": "allow"}, "POST", b"body"))
        assert reply.status == 200
        (received,) = scene.upstream.received
        assert received.line == "POST /a?b=c HTTP/1.1"
        assert received.values(ASSERTION) == [TOKEN]
        assert received.values("host") == ["h.test"]
        assert received.body == b"body"

    def test_the_gatekeeper_is_shown_the_request_as_it_came(self, scene: Scene) -> None:
        fields = {
            "X-Test": "allow",
            "Content-Digest": "sha-256=:AA==:",
            "Signature": "ringfence=:AA==:",
            "Cookie": "a=b",
        }
        scene.ask(request("/a%2Fb?c=%20", fields, "PUT", b"four"))
        (inbound,) = scene.gatekeeper.seen
        target = inbound.target
        assert (target.method, target.authority, target.path, target.query) == ("PUT", "h.test", "/a%2Fb", "?c=%20")
        assert {(name.lower(), value) for name, value in fields.items()} <= set(inbound.headers)
        assert (inbound.upstream, inbound.source, inbound.body) == ("service", "127.0.0.1", Unseen.HIDDEN)

    def test_a_request_without_a_body_is_shown_as_one(self, scene: Scene) -> None:
        scene.ask(request())
        assert [inbound.body for inbound in scene.gatekeeper.seen] == [Unseen.ABSENT]
        scene.forget()
        scene.ask(request("/", {"Content-Length": "0"}, "POST"))
        assert [inbound.body for inbound in scene.gatekeeper.seen] == [Unseen.ABSENT]

    def test_a_denied_request_reaches_no_upstream(self, scene: Scene) -> None:
        reply = scene.ask(request("/", {"X-Test": "deny"}))
        assert reply.status == 403
        assert json.loads(reply.body)["code"] == "policy.denied"
        assert reply.values("content-type") == ["application/problem+json"]
        assert scene.upstream.received == []

    def test_a_step_up_shows_the_client_its_challenge(self, scene: Scene) -> None:
        reply = scene.ask(request("/", {"X-Test": "step-up"}))
        assert (reply.status, reply.values("www-authenticate")) == (401, [CHALLENGE])
        assert json.loads(reply.body)["code"] == "identity.factor_missing"
        assert scene.upstream.received == []

    def test_a_tampered_body_and_a_replay_are_refused(self, scene: Scene) -> None:
        assert scene.ask(request("/", {"X-Test": "tampered"}, "POST", b"x")).status == 401
        assert scene.ask(request("/", {"X-Test": "replayed"})).status == self.conflict
        assert scene.upstream.received == []

    def test_a_full_plugin_refuses_and_says_when_to_come_again(self, scene: Scene) -> None:
        reply = scene.ask(request("/", {"X-Test": "full"}))
        assert (reply.status, reply.values("retry-after")) == (self.busy, ["7"])
        assert scene.upstream.received == []

    def test_fields_that_only_ringfence_sets_never_come_from_a_caller(self, scene: Scene) -> None:
        for name in ("X-Ringfence-Assertion", "x-ringfence-assertion", "X-Ringfence-Grant", "X_Ringfence_Assertion"):
            scene.forget()
            reply = scene.ask(request("/", {name: "forged"}))
            for received in scene.upstream.received:
                own = [pair for pair in received.headers if pair[0].replace("_", "-").startswith("x-ringfence-")]
                assert own == [(ASSERTION, TOKEN)], name
            assert reply.status in (200, 400, 403), name
            assert all(value != "forged" for inbound in scene.gatekeeper.seen for _, value in inbound.headers)

    def test_forwarding_fields_are_overwritten(self, scene: Scene) -> None:
        spoofed = {
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Host": "evil.test",
            "X-Forwarded-Proto": "gopher",
            "X-Real-IP": "6.6.6.6",
            "Forwarded": "for=6.6.6.6",
        }
        assert scene.ask(request("/", spoofed)).status == 200
        assert [inbound.source for inbound in scene.gatekeeper.seen] == ["127.0.0.1"]
        (received,) = scene.upstream.received
        assert received.values("x-forwarded-for") == ["127.0.0.1"]
        shown = " ".join(value for _, value in received.headers)
        assert not [evil for evil in ("6.6.6.6", "evil.test", "gopher") if evil in shown]

    @pytest.mark.parametrize(
        ("sent", "arrived"),
        [
            ("__Host-ringfence=a.b", ""),
            ("__Host-ringfence=a.b; mine=1", "mine=1"),
            ("mine=1; __Host-ringfence=a.b", "mine=1"),
            ("mine=1; __Host-ringfence=a.b; theirs=2", "mine=1; theirs=2"),
            ("mine=__Host-ringfence; theirs=2", "mine=__Host-ringfence; theirs=2"),
        ],
    )
    def test_the_session_cookie_of_a_browser_stays_here(self, scene: Scene, sent: str, arrived: str) -> None:
        assert scene.ask(request("/", {"Cookie": sent})).status == 200
        (received,) = scene.upstream.received
        assert "".join(received.values("cookie")) == arrived
        assert [value for name, value in scene.gatekeeper.seen[0].headers if name == "cookie"] == [sent]

    def test_what_the_host_says_cannot_be_said_by_a_caller(self, scene: Scene) -> None:
        spoofed = {
            "X-Original-Method": "GET",
            "X-Original-URI": "/innocent",
            "X-Original-Host": "innocent.test",
            "X-Original-Address": "10.0.0.1",
            "X-Original-Certificate": "AAAA",
            "X-Original-Content-Length": "0",
        }
        scene.ask(request("/guilty", spoofed, "POST", b"body"))
        for inbound in scene.gatekeeper.seen:
            assert (inbound.target.method, inbound.target.path) == ("POST", "/guilty")
            assert (inbound.target.authority, inbound.source) == ("h.test", "127.0.0.1")
            assert (inbound.channel.thumbprint, inbound.body) == ("", Unseen.HIDDEN)

    @pytest.mark.parametrize("named", ["Signature", "close, X-Ringfence-A", "content-digest", "Authorization,a"])
    def test_connection_cannot_drop_what_protects_a_request(self, scene: Scene, named: str) -> None:
        raw = request("/").replace(b"Connection: close", b"Connection: " + named.encode())
        reply = scene.ask(raw)
        assert reply.status in (400, 403)
        assert scene.upstream.received == []

    def test_the_upstream_receives_exactly_the_target_that_was_shown(self, scene: Scene) -> None:
        passed = 0
        for variant in VARIANTS:
            scene.forget()
            reply = scene.ask(request(variant, {"X-Test": "allow"}))
            if not scene.upstream.received:
                assert reply.status != 200, variant
                continue
            (received,), (inbound,) = scene.upstream.received, scene.gatekeeper.seen
            method, _, rest = received.line.partition(" ")
            path, mark, query = rest.removesuffix(" HTTP/1.1").partition("?")
            target = inbound.target
            assert (method, path, "?" + query if mark else "?") == (target.method, target.path, target.query), variant
            assert received.values("host") == [target.authority], variant
            passed += 1
        assert 60 < passed < len(VARIANTS)

    def test_two_hosts_are_never_two_authorities(self, scene: Scene) -> None:
        for raw in (
            b"GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\nConnection: close\r\n\r\n",
            b"GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a.test b.test\r\nConnection: close\r\n\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
        ):
            scene.forget()
            scene.ask(raw)
            for received in scene.upstream.received:
                (inbound,) = scene.gatekeeper.seen
                assert received.values("host") == [inbound.target.authority], raw

    def test_smuggling_shapes_reach_no_upstream_unseen(self, scene: Scene) -> None:
        size = len(_hidden(0))
        framings = (
            b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"Content-Length: %d\r\nContent-Length: 0\r\n\r\n" % size,
            b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
            b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n\r\n" % size,
            b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
            b"Content-Length: +%d\r\n\r\n" % size,
            b"Content-Length: 0, %d\r\n\r\n" % size,
        )
        for number, framing in enumerate(framings):
            raw = b"POST /open%d HTTP/1.1\r\nHost: h.test\r\n%s%s" % (number, framing, _hidden(number))
            ask(scene.port, raw, timeout_s=2)
        # In this order: what has reached the upstream by now has been shown before.
        passed = Counter(received.line.split(" ")[1] for received in scene.upstream.received)
        shown = Counter(inbound.target.path for inbound in scene.gatekeeper.seen)
        assert passed <= shown, (passed, shown)

    def test_a_huge_header_is_refused(self, scene: Scene) -> None:
        for size in (40_000, 400_000):
            scene.forget()
            assert scene.ask(request("/", {"Cookie": "a" * size})).status != 200
            assert scene.upstream.received == []

    def test_a_slow_plugin_is_a_refusal_in_time(self, scene: Scene) -> None:
        scene.gatekeeper.delay_s = 30.0
        began = time.monotonic()
        reply = scene.ask(request())
        assert reply.status != 200
        assert time.monotonic() - began < 5
        assert scene.upstream.received == []

    def test_a_killed_plugin_is_a_refusal_and_its_return_is_noticed(self, scene: Scene) -> None:
        scene.stop_plugin()
        try:
            assert scene.ask(request()).status in self.broken
            assert scene.upstream.received == []
        finally:
            scene.start_plugin()
        give_up = time.monotonic() + 10
        while scene.ask(request()).status != 200:
            assert time.monotonic() < give_up, "the host does not ask the plugin again"
            time.sleep(0.1)

    def test_a_reload_under_load_fails_no_request(self, scene: Scene) -> None:
        done = threading.Event()

        def load() -> list[int]:
            statuses = []
            while not done.is_set():
                for _ in range(self.tries):
                    status = scene.ask(request("/load")).status
                    if status:
                        break
                statuses.append(status)
            return statuses

        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            loads = [pool.submit(load) for _ in range(3)]
            try:
                for _ in range(2):
                    time.sleep(0.3)
                    self.reload(scene)
                time.sleep(0.5)
            finally:
                done.set()
            statuses = [status for one in loads for status in one.result()]
        assert len(statuses) > 50
        assert set(statuses) == {200}, Counter(statuses)

    def reload(self, scene: Scene) -> None:
        """Has the host read its configuration again."""
        raise AssertionError(f"nothing says how {scene.process.args!r} reloads")
