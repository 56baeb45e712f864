"""The AuthZEN 1.0 API over an evaluator that knows who may do what."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.plugin.hosts.authzen.api import METADATA, AuthZen, AuthZenSettings
from ringfence.plugin.hosts.authzen.messages import (
    MAX_EVALUATIONS,
    Evaluation,
    Evaluations,
    SubjectSearch,
    decode,
    read_token,
    write_token,
)
from ringfence.plugin.hosts.authzen.port import Decision, Question
from ringfence.plugin.hosts.errors import LISTEN_REFUSED, HostError
from ringfence.plugin.hosts.http1 import HttpReply, HttpRequest

ALICE = {"type": "user", "id": "alice"}
READ = {"name": "read"}
BOOK = {"type": "book", "id": "1"}
ALLOWED = {("alice", "read", "1"), ("alice", "read", "3"), ("alice", "write", "1"), ("bob", "read", "1")}


class Rules:
    """Decides by a set of what is allowed, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.delay_s = 0.0
        self.failure: HostError | None = None

    async def evaluate(self, question: Question) -> Decision:
        self.asked.append(question)
        await asyncio.sleep(self.delay_s)
        if self.failure is not None:
            raise self.failure
        allowed = (question.subject.id, question.action.name, question.resource.id) in ALLOWED
        return Decision(allowed, {} if allowed else {"code": "policy.denied"})


class Known:
    def subjects(self, kind: str) -> Sequence[str]:
        return ("alice", "bob", "carol") if kind == "user" else ()

    def resources(self, kind: str) -> Sequence[str]:
        return ("1", "2", "3", "4") if kind == "book" else ()

    def actions(self) -> Sequence[str]:
        return ("read", "write")


class Api:
    def __init__(self, **settings: Any) -> None:
        self.rules = Rules()
        self.api = AuthZen(self.rules, Known(), AuthZenSettings(**settings))

    async def raw(self, path: str, body: bytes, method: str = "POST", media: str = "application/json") -> HttpReply:
        headers = [("content-type", media), ("x-request-id", "r-1")]
        return await self.api.handle(HttpRequest(method, path, headers, body))

    async def __call__(self, path: str, message: Any) -> Any:
        reply = await self.raw(f"/access/v1/{path}", msgspec.json.encode(message))
        assert reply.status == 200, reply.body
        return msgspec.json.decode(reply.body)


@pytest.fixture
def api() -> Api:
    return Api()


async def test_an_evaluation_is_decided(api: Api) -> None:
    message = {
        "subject": ALICE | {"properties": {"a": 1}},
        "action": READ,
        "resource": BOOK,
        "context": {"b": [2]},
        "more": 0,
    }
    assert await api("evaluation", message) == {"decision": True}
    (question,) = api.rules.asked
    assert (question.subject.properties, question.context) == ({"a": 1}, {"b": [2]})
    denied = await api("evaluation", {"subject": ALICE, "action": {"name": "burn"}, "resource": BOOK})
    assert denied == {"decision": False, "context": {"code": "policy.denied"}}


async def test_the_request_id_comes_back(api: Api) -> None:
    reply = await api.raw("/access/v1/evaluation", b"{}")
    assert ("x-request-id", "r-1") in reply.headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"subject":"alice"}',
        b'{"subject":{"type":"user"}}',
        b"\xff",
        b'{"a":' * 9 + b"1" + b"}" * 9,
        b'{"subject":{"type":"user","id":""}}',
        b'{"subject":{"type":"user","id":1}}',
        b'{"context":[]}',
        b"[" * 100000,
        msgspec.json.encode({"subject": ALICE, "action": READ}),
        msgspec.json.encode({"action": READ, "resource": BOOK}),
    ],
)
async def test_what_is_no_request_is_a_400(api: Api, body: bytes) -> None:
    for path in ("evaluation", "evaluations", "search/subject", "search/resource", "search/action"):
        reply = await api.raw(f"/access/v1/{path}", body)
        assert (reply.status, api.rules.asked) == (400, [])
        assert isinstance(msgspec.json.decode(reply.body), str)


async def test_other_paths_methods_and_media_are_refused(api: Api) -> None:
    body = msgspec.json.encode({"subject": ALICE, "action": READ, "resource": BOOK})
    assert (await api.raw("/access/v1/other", body)).status == 404
    assert (await api.raw("/access/v1/evaluation", body, method="GET")).status == 404
    assert (await api.raw("/access/v1/evaluation", body, media="text/plain")).status == 400
    assert (await api.raw("/access/v1/evaluation", body, media="application/json; charset=utf-8")).status == 200


async def test_the_metadata_names_the_endpoints(api: Api) -> None:
    reply = await api.raw(METADATA, b"", method="GET")
    said = msgspec.json.decode(reply.body)
    assert said["access_evaluation_endpoint"] == said["policy_decision_point"] + "/access/v1/evaluation"


BATCH = [{"resource": {"type": "book", "id": one}} for one in ("1", "2", "3", "4")]


@pytest.mark.parametrize(
    ("semantic", "decisions"),
    [
        ("execute_all", [True, False, True, False]),
        ("deny_on_first_deny", [True, False]),
        ("permit_on_first_permit", [True]),
    ],
)
async def test_a_batch_keeps_its_semantic(api: Api, semantic: str, decisions: list[bool]) -> None:
    message = {"subject": ALICE, "action": READ, "evaluations": BATCH, "options": {"evaluations_semantic": semantic}}
    answer = await api("evaluations", message)
    assert [one["decision"] for one in answer["evaluations"]] == decisions
    assert len(api.rules.asked) == len(decisions)


async def test_a_batch_takes_what_it_lacks_from_its_defaults(api: Api) -> None:
    message = {
        "subject": ALICE,
        "action": READ,
        "resource": BOOK,
        "context": {"a": 1},
        "evaluations": [{}, {"subject": {"type": "user", "id": "carol"}, "context": {}}],
    }
    answer = await api("evaluations", message)
    assert [one["decision"] for one in answer["evaluations"]] == [True, False]
    assert [question.context for question in api.rules.asked] == [{"a": 1}, {}]


async def test_a_batch_of_none_is_one_evaluation(api: Api) -> None:
    assert await api("evaluations", {"subject": ALICE, "action": READ, "resource": BOOK}) == {"decision": True}


async def test_a_batch_is_read_whole_before_anything_is_decided(api: Api) -> None:
    message = {"subject": ALICE, "action": READ, "evaluations": [*BATCH, {}]}
    reply = await api.raw("/access/v1/evaluations", msgspec.json.encode(message))
    assert (reply.status, api.rules.asked) == (400, [])
    message = {"subject": ALICE, "action": READ, "resource": BOOK, "evaluations": [{}] * (MAX_EVALUATIONS + 1)}
    assert (await api.raw("/access/v1/evaluations", msgspec.json.encode(message))).status == 400
    message = {"evaluations": [{}], "options": {"evaluations_semantic": "any"}}
    assert (await api.raw("/access/v1/evaluations", msgspec.json.encode(message))).status == 400


async def test_searches_find_the_known_that_are_allowed(api: Api) -> None:
    subjects = await api("search/subject", {"subject": {"type": "user"}, "action": READ, "resource": BOOK})
    assert subjects["results"] == [ALICE, {"type": "user", "id": "bob"}]
    resources = await api("search/resource", {"subject": ALICE, "action": READ, "resource": {"type": "book"}})
    assert [one["id"] for one in resources["results"]] == ["1", "3"]
    actions = await api("search/action", {"subject": ALICE, "resource": BOOK})
    assert (actions["results"], actions["page"]["next_token"]) == ([{"name": "read"}, {"name": "write"}], "")
    assert (await api("search/subject", {"subject": {"type": "x"}, "action": READ, "resource": BOOK}))["results"] == []


async def test_searches_are_paged_and_bounded() -> None:
    api = Api(scanned=2)
    message: dict[str, Any] = {"subject": ALICE, "action": READ, "resource": {"type": "book"}}
    first = await api("search/resource", message)
    assert ([one["id"] for one in first["results"]], len(api.rules.asked)) == (["1"], 2)
    second = await api("search/resource", message | {"page": {"token": first["page"]["next_token"]}})
    assert ([one["id"] for one in second["results"]], second["page"]["next_token"]) == (["3"], "")
    api = Api()
    page = (await api("search/resource", message | {"page": {"limit": 1}}))["page"]
    assert (page["count"], len(api.rules.asked)) == (1, 1)


@pytest.mark.parametrize("token", ["!", "AA", "MQ", write_token(1) + "\n", "LTE=", "MDE="])
async def test_a_token_that_no_answer_contained_is_refused(api: Api, token: str) -> None:
    message = {"subject": ALICE, "action": READ, "resource": {"type": "book"}, "page": {"token": token}}
    assert (await api.raw("/access/v1/search/resource", msgspec.json.encode(message))).status == 400


@given(st.integers(0, 999_999_999))
def test_tokens_come_back(position: int) -> None:
    assert read_token(write_token(position)) == position


async def test_what_cannot_be_decided_is_no_permission() -> None:
    api = Api(timeout_s=0.05, concurrent=1)
    body = msgspec.json.encode({"subject": ALICE, "action": READ, "resource": BOOK})
    api.rules.delay_s = 5
    both = await asyncio.gather(*(api.raw("/access/v1/evaluation", body) for _ in range(2)))
    assert [reply.status for reply in both] == [504, 429]
    api.rules.delay_s = 0
    api.rules.failure = HostError(LISTEN_REFUSED, "The log cannot keep records.")
    assert (await api.raw("/access/v1/evaluation", body)).status == 503


@given(st.binary(max_size=300))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    for kind in (Evaluation, Evaluations, SubjectSearch):
        with contextlib.suppress(HostError):
            decode(body, kind)
