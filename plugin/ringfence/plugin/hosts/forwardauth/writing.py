"""An `Answer` as the host's HTTP question is answered. Pure."""

from __future__ import annotations

from typing import Final

from ringfence.plugin.hosts.http1 import HttpReply
from ringfence.plugin.hosts.port import Answer

STATUS_FIELD: Final = "x-ringfence-status"
PROBLEM_FIELD: Final = "x-ringfence-problem"
CHALLENGE_FIELD: Final = "x-ringfence-challenge"


def write_answer(answer: Answer) -> HttpReply:
    """For a host that passes any refusal on to its caller: Caddy, Envoy."""
    if answer.allowed:
        return HttpReply(200, answer.forward)
    return HttpReply(_refused(answer.status), answer.headers, answer.body)


def write_auth_request(answer: Answer) -> HttpReply:
    """For nginx, whose auth_request knows 401 and 403 and drops the body; anything else it turns into a 500.

    A refusal becomes one of both. Its real status, its challenge and its body are in fields, from which the example
    configuration makes the caller's answer.
    """
    if answer.allowed:
        return HttpReply(200, answer.forward)
    status = _refused(answer.status)
    fields = [*answer.headers, (STATUS_FIELD, str(status)), (PROBLEM_FIELD, _one_line(answer.body))]
    fields += [(CHALLENGE_FIELD, value) for name, value in answer.headers if name.lower() == "www-authenticate"]
    return HttpReply(401 if status == 401 else 403, tuple(fields))


def _refused(status: int) -> int:
    # An answer that claims another success than 200 is no permission.
    return status if 400 <= status <= 599 else 500


def _one_line(body: bytes) -> str:
    text = body.decode("utf-8", "replace")
    return "".join(character if " " <= character <= "~" else "?" for character in text)
