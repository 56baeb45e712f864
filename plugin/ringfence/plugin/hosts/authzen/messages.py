"""The messages of AuthZEN 1.0. Pure. Source: OpenID Authorization API 1.0, sections 5 to 8.

Members that are not understood are ignored, as the specification demands of receivers; everything that is understood is
checked: types, sizes, and how deeply properties nest.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from ringfence.plugin.hosts.authzen.port import Act, Entity, Question
from ringfence.plugin.hosts.errors import AUTHZEN_MALFORMED, HostError

MAX_EVALUATIONS: Final = 256
MAX_DEPTH: Final = 8
MAX_PAGE: Final = 256

Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1024)]
Object = dict[Annotated[str, msgspec.Meta(max_length=256)], Any]
Message = TypeVar("Message")
Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]


class EntityMessage(msgspec.Struct, frozen=True):
    """A subject or resource, sections 5.1 and 5.3."""

    type: Name
    id: Name
    properties: Object = {}


class ActionMessage(msgspec.Struct, frozen=True):
    """An action, section 5.2."""

    name: Name
    properties: Object = {}


class Wanted(msgspec.Struct, frozen=True):
    """A subject or resource that is searched for: its type alone, an id is ignored."""

    type: Name


class Page(msgspec.Struct, frozen=True):
    """Which part of a result is asked for, section 8.2."""

    token: Annotated[str, msgspec.Meta(max_length=64)] = ""
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = MAX_PAGE


class Options(msgspec.Struct, frozen=True):
    """How a batch is evaluated, section 7.1.2."""

    evaluations_semantic: Semantic = "execute_all"


class Evaluation(msgspec.Struct, frozen=True):
    """One evaluation, or the defaults of a batch: what is absent here must be given there."""

    subject: EntityMessage | None = None
    action: ActionMessage | None = None
    resource: EntityMessage | None = None
    context: Object | None = None


class Evaluations(Evaluation, frozen=True):
    """A batch, section 7.1; without `evaluations` it is a single evaluation."""

    evaluations: Annotated[tuple[Evaluation, ...], msgspec.Meta(max_length=MAX_EVALUATIONS)] = ()
    options: Options = Options()


class SubjectSearch(msgspec.Struct, frozen=True):
    """Who may do this, section 8.4."""

    subject: Wanted
    action: ActionMessage
    resource: EntityMessage
    context: Object = {}
    page: Page = Page()


class ResourceSearch(msgspec.Struct, frozen=True):
    """On what may this be done, section 8.5."""

    subject: EntityMessage
    action: ActionMessage
    resource: Wanted
    context: Object = {}
    page: Page = Page()


class ActionSearch(msgspec.Struct, frozen=True):
    """What may be done, section 8.6."""

    subject: EntityMessage
    resource: EntityMessage
    context: Object = {}
    page: Page = Page()


def decode(body: bytes, kind: type[Message]) -> Message:
    """A message of JSON. Raises `hosts.authzen_malformed`."""
    try:
        # Depth first, by the brackets outside strings: a decoder should not be asked to recurse.
        if _depth(body) > MAX_DEPTH:
            raise malformed(f"It nests more than {MAX_DEPTH} deep.")
        return msgspec.json.decode(body, type=kind)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise malformed(f"{error}.") from None


def question(evaluation: Evaluation, defaults: Evaluation | None = None) -> Question:
    """The question that an evaluation asks, what it lacks taken whole from `defaults` (section 7.1.1).

    Raises `hosts.authzen_malformed` where a part is given by neither.
    """
    base = defaults or evaluation
    subject = evaluation.subject or base.subject
    action = evaluation.action or base.action
    resource = evaluation.resource or base.resource
    context = evaluation.context if evaluation.context is not None else base.context
    if subject is None or action is None or resource is None:
        raise malformed("Subject, action and resource are needed.")
    return Question(entity(subject), act(action), entity(resource), context or {})


def entity(message: EntityMessage) -> Entity:
    """The subject or resource of a message."""
    return Entity(message.type, message.id, message.properties)


def act(message: ActionMessage) -> Act:
    """The action of a message."""
    return Act(message.name, message.properties)


def read_token(token: str) -> int:
    """Where a page begins; "" is the beginning. Raises `hosts.authzen_malformed` for what no answer contained."""
    if not token:
        return 0
    try:
        text = base64.b64decode(token, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        raise malformed("The page's token is none of ours.") from None
    if not re.fullmatch(r"[0-9]{1,9}", text) or write_token(int(text)) != token:
        raise malformed("The page's token is none of ours.")
    return int(text)


def write_token(position: int) -> str:
    """The token of the page that begins at `position`."""
    return base64.urlsafe_b64encode(str(position).encode("ascii")).decode("ascii")


def malformed(what: str) -> HostError:
    """The error for a message that cannot be meant."""
    return HostError(AUTHZEN_MALFORMED, f"This is no AuthZEN request. {what}", field="body")


_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)


def _depth(body: bytes) -> int:
    depth = deepest = 0
    for found in _BRACKETS.finditer(body):
        mark = found[0]
        if mark in (b"{", b"["):
            depth += 1
            deepest = max(deepest, depth)
        elif mark in (b"}", b"]"):
            depth -= 1
    return deepest
