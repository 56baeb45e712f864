"""The AuthZEN 1.0 API: evaluation, evaluations and search. Source: OpenID Authorization API 1.0, sections 6 to 10.

Whoever asks is believed about subject and context, so this is served on Unix sockets with a checked peer alone.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Final

import msgspec

from ringfence.errors import RingfenceError
from ringfence.plugin.hosts.authzen import messages
from ringfence.plugin.hosts.authzen.messages import (
    MAX_PAGE,
    ActionSearch,
    Evaluation,
    Evaluations,
    Page,
    ResourceSearch,
    SubjectSearch,
)
from ringfence.plugin.hosts.authzen.port import Act, Decision, Directory, Entity, Evaluator, Question
from ringfence.plugin.hosts.http1 import HttpReply, HttpRequest

PREFIX: Final = "/access/v1/"
METADATA: Final = "/.well-known/authzen-configuration"
JSON: Final = "application/json"

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,256}")


class AuthZenSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`identifier` is the PDP's URL in its metadata; `scanned` how many candidates a search evaluates at a time;
    `concurrent` requests are answered at a time, each, whole batches too, within `timeout_s`."""

    identifier: str = "https://ringfence.invalid"
    concurrent: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 5.0
    scanned: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1000


class AuthZen:
    """Answers AuthZEN requests by an evaluator; a search tries the entities that the directory knows."""

    def __init__(self, evaluator: Evaluator, directory: Directory, settings: AuthZenSettings) -> None:
        self._evaluator = evaluator
        self._directory = directory
        self._settings = settings
        self._free = settings.concurrent
        self._routes: Mapping[str, Callable[[bytes], Awaitable[Any]]] = MappingProxyType(
            {
                PREFIX + "evaluation": self._evaluation,
                PREFIX + "evaluations": self._evaluations,
                PREFIX + "search/subject": self._search_subject,
                PREFIX + "search/resource": self._search_resource,
                PREFIX + "search/action": self._search_action,
            }
        )

    async def handle(self, request: HttpRequest) -> HttpReply:
        """The answer to one request. Never raises `RingfenceError`; what cannot be decided is no permission."""
        headers = [("content-type", JSON), ("cache-control", "no-store")]
        headers += [
            (name, value) for name, value in request.headers if name == "x-request-id" and _REQUEST_ID.fullmatch(value)
        ]
        status, answer = await self._answer(request)
        return HttpReply(status, tuple(headers), msgspec.json.encode(answer))

    async def _answer(self, request: HttpRequest) -> tuple[int, Any]:
        if request.target == METADATA and request.method == "GET":
            return 200, self._metadata()
        route = self._routes.get(request.target)
        if route is None:
            return 404, "There is nothing at this path."
        if request.method != "POST":
            return 404, "This path takes POST only."
        media = [value for name, value in request.headers if name == "content-type"]
        if len(media) != 1 or media[0].partition(";")[0].strip().lower() != JSON:
            return 400, "The content type must be application/json."
        if self._free <= 0:
            return 429, "As many requests as allowed are under way."
        self._free -= 1
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return 200, await route(request.body)
        except RingfenceError as error:
            return error.code.kind.http, error.message
        except TimeoutError:
            return 504, "There was no decision in time."
        finally:
            self._free += 1

    async def _evaluation(self, body: bytes) -> Any:
        return _said(await self._evaluator.evaluate(messages.question(messages.decode(body, Evaluation))))

    async def _evaluations(self, body: bytes) -> Any:
        batch = messages.decode(body, Evaluations)
        if not batch.evaluations:
            return _said(await self._evaluator.evaluate(messages.question(batch)))
        # All of them are read before the first is decided on.
        questions = [messages.question(one, batch) for one in batch.evaluations]
        ends_with = {"deny_on_first_deny": False, "permit_on_first_permit": True}.get(
            batch.options.evaluations_semantic
        )
        answers = []
        for question in questions:
            decision = await self._evaluator.evaluate(question)
            answers.append(_said(decision))
            if decision.allowed is ends_with:
                break
        return {"evaluations": answers}

    async def _search_subject(self, body: bytes) -> Any:
        search = messages.decode(body, SubjectSearch)
        kind, action, resource = search.subject.type, messages.act(search.action), messages.entity(search.resource)

        def ask(name: str) -> Question:
            return Question(Entity(kind, name), action, resource, search.context)

        return await self._search(
            self._directory.subjects(kind), ask, search.page, lambda name: {"type": kind, "id": name}
        )

    async def _search_resource(self, body: bytes) -> Any:
        search = messages.decode(body, ResourceSearch)
        kind, action, subject = search.resource.type, messages.act(search.action), messages.entity(search.subject)

        def ask(name: str) -> Question:
            return Question(subject, action, Entity(kind, name), search.context)

        return await self._search(
            self._directory.resources(kind), ask, search.page, lambda name: {"type": kind, "id": name}
        )

    async def _search_action(self, body: bytes) -> Any:
        search = messages.decode(body, ActionSearch)
        subject, resource = messages.entity(search.subject), messages.entity(search.resource)

        def ask(name: str) -> Question:
            return Question(subject, Act(name), resource, search.context)

        return await self._search(self._directory.actions(), ask, search.page, lambda name: {"name": name})

    async def _search(
        self,
        candidates: Sequence[str],
        ask: Callable[[str], Question],
        page: Page,
        show: Callable[[str], dict[str, str]],
    ) -> Any:
        """A page of the candidates that are allowed: at most `limit` results of at most `scanned` evaluations."""
        start = position = messages.read_token(page.token)
        limit = min(page.limit, MAX_PAGE)
        results: list[dict[str, str]] = []
        while position < len(candidates) and len(results) < limit and position - start < self._settings.scanned:
            name = candidates[position]
            position += 1
            if (await self._evaluator.evaluate(ask(name))).allowed:
                results.append(show(name))
        token = messages.write_token(position) if position < len(candidates) else ""
        return {"page": {"next_token": token, "count": len(results)}, "results": results}

    def _metadata(self) -> dict[str, str]:
        base = self._settings.identifier.rstrip("/")
        return {
            "policy_decision_point": base,
            "access_evaluation_endpoint": f"{base}{PREFIX}evaluation",
            "access_evaluations_endpoint": f"{base}{PREFIX}evaluations",
            "search_subject_endpoint": f"{base}{PREFIX}search/subject",
            "search_resource_endpoint": f"{base}{PREFIX}search/resource",
            "search_action_endpoint": f"{base}{PREFIX}search/action",
        }


def _said(decision: Decision) -> dict[str, Any]:
    answer: dict[str, Any] = {"decision": decision.allowed is True}
    if decision.context:
        answer["context"] = dict(decision.context)
    return answer
