"""RFC 9113 and RFC 7541, section by section, against the real server on its socket: what is sent, and the reaction.

The sections and cases are those of h2spec's list, with the floods of the last years added.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ringfence.plugin.hosts.http2.errors import H2Error
from ringfence.plugin.hosts.http2.limits import Http2Limits
from ringfence.plugin.hosts.http2.server import GrpcServer
from tests.plugin.hosts.envoy_h2_cases import ANSWERED, CASES, GOES_ON, Case
from tests.plugin.hosts.envoy_h2_wire import (
    ACK,
    GOAWAY,
    METHOD,
    PING,
    PREFACE,
    SETTINGS,
    Client,
    Seen,
    frame,
)

LIMITS = Http2Limits(streams=8, header_bytes=4096, request_s=0.5, resets_per_s=20, control_frames_per_s=50)
MARK = b"the mark"


async def echo(message: bytes) -> bytes:
    await asyncio.sleep(3600 if message == b"never" else 0)
    return message


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    with tempfile.TemporaryDirectory(prefix="rf-h2-") as folder:
        path = Path(folder) / "h2.sock"
        server = await GrpcServer(METHOD, echo, LIMITS, [os.getuid()]).start(path)
        client = Client(*await asyncio.open_unix_connection(str(path)))
        yield client
        client.close()
        await server.close()


def reached(case: Case, seen: Seen) -> bool:
    match case.expected:
        case H2Error() as number if case.stream:
            return seen.reset(case.stream) == number
        case H2Error() as number:
            return seen.goaway == number and seen.closed
        case "answered":
            return seen.ended(case.stream)
        case _:
            return any(payload == MARK and flags & ACK for _, flags, _, payload in seen.of(PING))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.what}")
async def test_the_reaction_is_the_one_that_the_standard_asks_for(client: Client, case: Case) -> None:
    begin = case.begins if case.begins is not None else PREFACE + frame(SETTINGS)
    await client.send(begin + case.sent)
    if case.expected == GOES_ON:
        await client.send(frame(PING, 0, 0, MARK))

    async with asyncio.timeout(3):
        while not reached(case, client.seen) and await client.read_one():
            pass

    assert reached(case, client.seen), client.seen
    if case.expected in (ANSWERED, GOES_ON):
        assert not client.seen.of(GOAWAY)
        assert not client.seen.closed
    elif case.stream:
        # One stream is wrong, the connection goes on.
        await client.send(frame(PING, 0, 0, MARK))
        async with asyncio.timeout(3):
            while not client.seen.of(PING) and await client.read_one():
                pass
        assert not client.seen.of(GOAWAY)


def test_the_list_is_long_enough_and_has_no_case_twice() -> None:
    names = [(case.section, case.what) for case in CASES]
    assert len(names) == len(set(names))
    assert len(names) >= 80
