"""Strangers at a real gateway: they stop no caller, fill no memory and no disk, and their connections end."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ringfence import audit, httpsig
from ringfence.agent.api.jobs import JobLimits
from ringfence.client import Client, RefusedError
from ringfence.client.local import LocalInstallation
from ringfence.crypto import COMPOSITE
from ringfence.crypto.handshake import Initiator
from ringfence.plugin.api import JOBS_PATH, SESSION_PURPOSE, SESSIONS_PATH
from ringfence.trust import KeyPair

MIB = 1024 * 1024
CONNECTIONS = 100
HEADER = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
LIMITS = f"""
[limits]
connections = {CONNECTIONS}
header_timeout_s = 2.0
refusals_per_minute = 20
"""


@pytest.fixture(scope="module")
def guarded(folder: Path) -> Iterator[LocalInstallation]:
    """An installation whose gateway has small limits against strangers."""
    with LocalInstallation(folder / "state") as installation:
        gateway = installation.process("gateway")
        gateway.send_signal(signal.SIGTERM)
        gateway.wait(20)
        with (installation.state / "gateway.toml").open("a") as file:
            file.write(LIMITS)
        installation.start("gateway")
        yield installation


@pytest.fixture
def works(guarded: LocalInstallation, nothing: bytes, limits: JobLimits) -> Callable[[], None]:
    """Sees that a caller opens a session and runs a job."""
    return lambda: check(guarded, nothing, limits)


def check(installation: LocalInstallation, module: bytes, limits: JobLimits) -> None:
    done = installation.client().open_session().submit(module, b"", limits=limits)
    assert done.receipt.code == ""


@pytest.fixture
def strangers(guarded: LocalInstallation) -> Iterator[Callable[[bytes, int], list[socket.socket]]]:
    """Opens connections that send the same bytes and then wait."""
    with contextlib.ExitStack() as opened:

        def open_some(start: bytes, count: int) -> list[socket.socket]:
            sockets = []
            for _ in range(count):
                made = opened.enter_context(socket.socket(socket.AF_UNIX))
                made.settimeout(20)
                made.connect(str(guarded.socket("gateway")))
                # The gateway may have closed it already, to make room.
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    made.sendall(start)
                sockets.append(made)
            return sockets

        yield open_some


def pour(stranger: socket.socket, most: int) -> int:
    """How many MiB the gateway took before it closed the connection."""
    chunk = b"x" * MIB
    for sent in range(most):
        try:
            stranger.sendall(chunk)
        except OSError:
            return sent
    return most


def resident_mib(installation: LocalInstallation) -> int:
    status = Path(f"/proc/{installation.process('gateway').pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.parametrize("path", [b"/v1/jobs", b"/v1/sessions"])
def test_slow_bodies_of_strangers_stop_no_caller(works: Any, strangers: Any, path: bytes) -> None:
    strangers(HEADER % (path, 100) + b"1", CONNECTIONS + 50)
    works()


def test_strangers_do_not_push_out_a_running_job(
    guarded: LocalInstallation, endless: bytes, limits: JobLimits, strangers: Any, refusal: Any
) -> None:
    session = guarded.client().open_session()
    short = msgspec.structs.replace(limits, deadline_ms=1500)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: refusal(lambda: session.submit(endless, b"", limits=short)))
        time.sleep(0.5)
        strangers(b"", 3 * CONNECTIONS)
        assert not running.done()
        assert running.result() == "sandbox.deadline"


def test_whoever_sends_a_large_body_learns_why_it_is_refused(guarded: LocalInstallation, refusal: Any) -> None:
    body, now = b"x" * 32 * MIB, int(time.time())
    target = httpsig.Target("POST", "localhost", JOBS_PATH)
    headers = httpsig.sign(bytes(32), target, body, session="nobody", nonce="n" * 16, now=now, lifetime_s=60)
    code = refusal(lambda: guarded.client().post(JOBS_PATH, body, headers))
    # The other tests' strangers may have used up what is recorded of this source.
    assert code in ("session.unknown", "gateway.too_many_refusals")


def test_bodies_of_strangers_take_no_memory(guarded: LocalInstallation, works: Any, strangers: Any) -> None:
    works()
    before = resident_mib(guarded)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda stranger: pour(stranger, 8), strangers(HEADER % (b"/v1/jobs", 64 * MIB), 32)))
    assert resident_mib(guarded) - before < 64
    works()


def test_a_header_without_end_takes_no_memory(guarded: LocalInstallation, works: Any, strangers: Any) -> None:
    before = resident_mib(guarded)
    stranger = strangers(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: ", 1)[0]
    assert pour(stranger, 300) < 4
    assert resident_mib(guarded) - before < 16
    works()


def test_idle_connections_are_bounded_and_end(
    guarded: LocalInstallation, works: Any, strangers: Any, until: Callable[..., None]
) -> None:
    descriptors = Path(f"/proc/{guarded.process('gateway').pid}/fd")
    before = len(os.listdir(descriptors))
    strangers(b"", 3 * CONNECTIONS)
    works()
    assert len(os.listdir(descriptors)) <= before + CONNECTIONS
    until(lambda: len(os.listdir(descriptors)) <= before, "idle connections are closed", 10)


def test_refusals_of_strangers_fill_no_disk_and_are_all_counted(
    guarded: LocalInstallation, works: Any, records: Any, verify_log: Any
) -> None:
    stranger, gateway = KeyPair(*COMPOSITE.generate()), guarded.keys["gateway"].public
    client = guarded.client()
    now = int(time.time())
    hello = Initiator.start(stranger, gateway, SESSION_PURPOSE, now=now, random=secrets.token_bytes).message

    def counted() -> tuple[int, int]:
        refused = [
            record for record in records(guarded, "gateway", audit.Decision) if record.code == "identity.unknown_key"
        ]
        told = records(guarded, "gateway", audit.Suppression)
        return len(refused), sum(record.refusals for record in told)

    asked = 200
    log = guarded.audit_folder / "gateway" / "records-00000000000000000001.jsonl"
    size = log.stat().st_size
    codes = [post(client, hello) for _ in range(asked)]
    assert log.stat().st_size - size < 100_000
    assert set(codes) <= {"identity.unknown_key", "gateway.too_many_refusals"}
    works()

    # The other tests' strangers were refused too, with other codes, and their count is in the same record.
    process = guarded.process("gateway")
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    recorded, told = counted()
    assert recorded == codes.count("identity.unknown_key") <= 40
    assert told >= codes.count("gateway.too_many_refusals") >= asked - 40
    verify_log(guarded, "gateway")
    guarded.start("gateway")


def post(client: Client, hello: bytes) -> str:
    """The code with which a stranger's hello is refused."""
    with pytest.raises(RefusedError) as caught:
        client.post(SESSIONS_PATH, hello, {})
    code: str = caught.value.code.name
    return code
