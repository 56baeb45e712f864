"""A SPOE message as an `Inbound`, and an `Answer` as HAProxy's variables. Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

from ringfence.plugin.hosts.certificates import channel_of
from ringfence.plugin.hosts.errors import FIELDS_MALFORMED, HostError
from ringfence.plugin.hosts.fields import INITIALS, Fields, check_fields, set_by_others
from ringfence.plugin.hosts.framing import read_framing
from ringfence.plugin.hosts.hops import UNIX, Hops, client_address
from ringfence.plugin.hosts.port import NO_CHANNEL, OWN_PREFIX, Answer, Inbound
from ringfence.plugin.hosts.spoe.frames import Message
from ringfence.plugin.hosts.spoe.values import Reader, Value, violated
from ringfence.plugin.hosts.targets import read_target

MESSAGE: Final = "ringfence"
MAX_VALUE: Final = 8192

_FRAMING: Final = frozenset(("content-length", "transfer-encoding"))

Variables = list[tuple[str, bool | int | str]]


def read_message(message: Message, hops: Hops) -> Inbound:
    """The request that a message shows. Its arguments, of which the configuration names all but `certificate`:

    `upstream` the upstream's name; `method`, `target` (path and query), `version` ("1.1", "2.0"); `headers` from
    `req.hdrs_bin`; `source` the peer's address; `certificate` in DER. Raises `HostError`.
    """
    arguments = message.arguments
    headers = read_headers(_bytes(arguments, "headers"))
    check_fields(headers)
    fields: list[tuple[str, str]] = []
    framing: dict[str, str] = {}
    hosts: list[str] = []
    forwarded: list[str] = []
    for pair in headers:
        name, value = pair
        if name == "host":
            hosts.append(value)
        elif name in _FRAMING:
            if name in framing:
                raise HostError(FIELDS_MALFORMED, "The field appears more than once.", field=name)
            framing[name] = value
        elif name[0] in INITIALS and set_by_others(name):
            if name == "x-forwarded-for":
                forwarded.append(value)
            continue
        fields.append(pair)
    if len(hosts) != 1:
        raise HostError(FIELDS_MALFORMED, "There must be exactly one Host field.", field="host")
    certificate = arguments.get("certificate")
    return Inbound(
        target=read_target(_text(arguments, "method"), hosts[0], _text(arguments, "target")),
        headers=fields,
        source=client_address(_address(arguments.get("source")), forwarded, hops),
        upstream=_text(arguments, "upstream"),
        body=read_framing(
            f"HTTP/{_text(arguments, 'version')}",
            framing.get("content-length", ""),
            framing.get("transfer-encoding", ""),
        ),
        channel=channel_of(certificate) if isinstance(certificate, bytes) else NO_CHANNEL,
    )


def read_headers(raw: bytes) -> Fields:
    """The fields of `req.hdrs_bin`: names and values as strings, ended by an empty name and value."""
    # Most lengths have one byte, and all text is decoded at once; a longer length goes through the reader.
    text = raw.decode("latin-1")
    end = len(raw)
    headers: list[tuple[str, str]] = []
    position = 0
    while True:
        if position >= end:
            raise violated("the fields have no end")
        size = raw[position]
        position += 1
        if size >= 240:
            size, position = _long(raw, position - 1)
        name = text[position : position + size]
        position += size
        if position >= end:
            raise violated("the fields have no end")
        size = raw[position]
        position += 1
        if size >= 240:
            size, position = _long(raw, position - 1)
        value = text[position : position + size]
        position += size
        if not name:
            if value or position != end:
                raise violated("the fields have no end")
            return headers
        headers.append((name.lower(), value))


def _long(raw: bytes, position: int) -> tuple[int, int]:
    reader = Reader(raw, position)
    return reader.integer(), reader.position


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
