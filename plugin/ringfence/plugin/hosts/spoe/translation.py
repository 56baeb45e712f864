"""A SPOE message as an `Inbound`, and an `Answer` as HAProxy's variables. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

from ringfence.plugin.hosts.certificates import channel_of
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, HostError
from ringfence.plugin.hosts.fields import Fields, check_fields, is_forwarding, single, strip_own
from ringfence.plugin.hosts.framing import read_framing
from ringfence.plugin.hosts.hops import UNIX, Hops, client_address
from ringfence.plugin.hosts.port import OWN_PREFIX, Answer, Inbound
from ringfence.plugin.hosts.spoe.frames import Message
from ringfence.plugin.hosts.spoe.values import Reader, Value, violated
from ringfence.plugin.hosts.targets import read_target

MESSAGE: Final = "ringfence"
MAX_VALUE: Final = 8192

Variables = list[tuple[str, bool | int | str]]


def read_message(message: Message, hops: Hops) -> Inbound:
    """The request that a message shows. Its arguments, of which the configuration names all but `certificate`:

    `upstream` the upstream's name; `method`, `target` (path and query), `version` ("1.1", "2.0"); `headers` from
    `req.hdrs_bin`; `source` the peer's address; `certificate` in DER. Raises `HostError`.
    """
    arguments = message.arguments
    headers = read_headers(_bytes(arguments, "headers"))
    check_fields(headers)
    fields = strip_own(headers)
    hosts = [value for name, value in fields if name == "host"]
    if len(hosts) != 1:
        raise HostError(FIELDS_MALFORMED, "There must be exactly one Host field.", field="host")
    certificate = arguments.get("certificate")
    return Inbound(
        target=read_target(_text(arguments, "method"), hosts[0], _text(arguments, "target")),
        headers=[pair for pair in fields if not is_forwarding(pair[0])],
        source=client_address(
            _address(arguments.get("source")), [value for name, value in fields if name == "x-forwarded-for"], hops
        ),
        upstream=_text(arguments, "upstream"),
        body=read_framing(
            f"HTTP/{_text(arguments, 'version')}",
            single(fields, "content-length"),
            single(fields, "transfer-encoding"),
        ),
        channel=channel_of(certificate if isinstance(certificate, bytes) else b""),
    )


def read_headers(raw: bytes) -> Fields:
    """The fields of `req.hdrs_bin`: names and values as strings, ended by an empty name and value."""
    reader = Reader(raw)
    headers: list[tuple[str, str]] = []
    while True:
        name, value = reader.string(), reader.string()
        if not name:
            if value or not reader.ended:
                raise violated("the fields have no end")
            return headers
        headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))


def write_variables(answer: Answer) -> Variables:
    """The variables of an answer, without HAProxy's prefix.

    `allow` is set, and true, for an allowed request alone; a field `X-Ringfence-Name` for the upstream is `name` then.
    A refusal has `status`, `problem` (its body), and where they apply `challenge`, `code` and `retry_after`.
    """
    if answer.status == 200:
        variables: Variables = [("allow", True), ("status", 200), ("decision", answer.decision_id)]
        for name, value in answer.forward:
            lower = name.lower()
            if not lower.startswith(OWN_PREFIX) or not _plain(value):
                return [("status", 500)]
            variables.append((lower.removeprefix(OWN_PREFIX).replace("-", "_"), value))
        return variables
    refused: Variables = [("status", answer.status if 400 <= answer.status <= 599 else 500)]
    named = {"www-authenticate": "challenge", "retry-after": "retry_after", "x-ringfence-code": "code"}
    for name, value in answer.headers:
        variable = named.get(name.lower())
        if variable and _plain(value):
            refused.append((variable, value))
    problem = answer.body.decode("utf-8", "replace")
    if _plain(problem):
        refused.append(("problem", problem))
    return refused


def _plain(text: str) -> bool:
    return len(text) <= MAX_VALUE and text.isascii() and (not text or text.isprintable())


def _text(arguments: dict[str, Value], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str):
        raise violated(f"the argument {name} is missing")
    return value


def _bytes(arguments: dict[str, Value], name: str) -> bytes:
    value = arguments.get(name)
    if not isinstance(value, bytes):
        raise violated(f"the argument {name} is missing")
    return value


def _address(value: Value) -> str:
    if isinstance(value, tuple):
        return str(ipaddress.ip_address(value[1]))
    # A connection over a Unix socket has no address.
    return UNIX if value is None else ""
