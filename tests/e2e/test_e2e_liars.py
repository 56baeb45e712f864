"""A gateway that lies about a job, one that drips its answer, and one caller that asks for everything at once."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import msgspec.structs
import pytest

from ringfence.agent.api.errors import JobError
from ringfence.agent.api.jobs import JobLimits
from ringfence.client import Client, ClientError, RefusedError, Session
from ringfence.client.local import LocalInstallation
from ringfence.client.transport import Answer, Transport
from ringfence.plugin.api import JOBS_PATH, MSGPACK, PROBLEM, JobAnswer, Problem

Refusal = Callable[[Callable[[], object]], str]


class Liar:
    """A gateway's exchange whose answers to jobs pass through `lie`."""

    authority = "localhost"

    def __init__(self, local: LocalInstallation) -> None:
        self._honest = Transport(f"unix:{local.socket('gateway')}")
        self.lie: Callable[[Answer], Answer] = lambda answer: answer

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
        answer = self._honest.post(path, body, headers, timeout_s=timeout_s)
        return self.lie(answer) if path == JOBS_PATH else answer


@pytest.fixture
def liar(local: LocalInstallation) -> Liar:
    return Liar(local)


@pytest.fixture
def session(local: LocalInstallation, liar: Liar) -> Session:
    keys = local.keys
    gateway, verifiers = keys["gateway"].public, [keys["verifier"].public]
    return Client("", keys["client"], gateway=gateway, verifiers=verifiers, exchange=liar).open_session()


def test_a_killed_job_is_not_a_success(
    session: Session, liar: Liar, endless: bytes, limits: JobLimits, refusal: Refusal
) -> None:
    def succeed(answer: Answer) -> Answer:
        problem = msgspec.json.decode(answer.body, type=Problem)
        assert problem.code == "sandbox.deadline"
        invented = JobAnswer(b"", problem.receipt, problem.signature, "", "", limits, ())
        return Answer(200, MSGPACK, msgspec.msgpack.encode(invented))

    liar.lie = succeed
    short = msgspec.structs.replace(limits, deadline_ms=600)

    assert refusal(lambda: session.submit(endless, b"", limits=short)) == "client.receipt_mismatch"


def test_a_refusal_comes_with_its_own_receipt_or_none(
    session: Session, liar: Liar, endless: bytes, limits: JobLimits, refusal: Refusal
) -> None:
    short = msgspec.structs.replace(limits, deadline_ms=600)
    with pytest.raises(RefusedError) as caught:
        session.submit(endless, b"", limits=short)
    other = caught.value
    assert other.receipt is not None
    assert other.receipt.code == "sandbox.deadline"
    borrowed = Problem("sandbox.deadline", "", 504, receipt=other.receipt_bytes, signature=other.receipt_signature)
    liar.lie = lambda _: Answer(504, PROBLEM, msgspec.json.encode(borrowed))

    assert refusal(lambda: session.submit(endless, b"other", limits=short)) == "client.receipt_mismatch"


def test_another_output_than_the_receipt_s(
    session: Session, liar: Liar, nothing: bytes, limits: JobLimits, refusal: Refusal
) -> None:
    def change(answer: Answer) -> Answer:
        told = msgspec.msgpack.decode(answer.body, type=JobAnswer)
        return Answer(200, MSGPACK, msgspec.msgpack.encode(msgspec.structs.replace(told, output=b"42")))

    liar.lie = change

    assert refusal(lambda: session.submit(nothing, b"", limits=limits)) == "client.receipt_mismatch"


def test_a_receipt_that_another_host_signed(session: Session, liar: Liar, nothing: bytes, limits: JobLimits) -> None:
    def forge(answer: Answer) -> Answer:
        told = msgspec.msgpack.decode(answer.body, type=JobAnswer)
        signature = bytes([told.signature[0] ^ 1]) + told.signature[1:]
        return Answer(200, MSGPACK, msgspec.msgpack.encode(msgspec.structs.replace(told, signature=signature)))

    liar.lie = forge

    with pytest.raises(JobError) as caught:
        session.submit(nothing, b"", limits=limits)
    assert caught.value.code.name == "receipt.invalid"


@pytest.fixture
def dripping(folder: Path) -> Iterator[str]:
    """A server that sends one byte of its header every tenth of a second."""
    path = folder / "drip.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def drip() -> None:
            peer, _ = listener.accept()
            with peer:
                try:
                    for byte in b"HTTP/1.1 200 OK\r\nx-header: " + b"x" * 80:
                        peer.sendall(bytes([byte]))
                        time.sleep(0.1)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        yield f"unix:{path}"
        thread.join()


def test_a_dripping_answer_ends_at_the_deadline(dripping: str) -> None:
    started = time.monotonic()

    with pytest.raises(ClientError) as caught:
        Transport(dripping).post("/", b"", {}, timeout_s=0.5)

    assert caught.value.code.name == "client.timed_out"
    assert time.monotonic() - started < 5


def test_one_caller_that_asks_for_everything_leaves_the_host_reachable(
    local: LocalInstallation, endless: bytes, limits: JobLimits
) -> None:
    short = msgspec.structs.replace(limits, deadline_ms=3000)
    crowd = local.client().open_session()

    def ask(_: int) -> str:
        try:
            crowd.submit(endless, bytes(1024 * 1024), limits=short)
        except RefusedError as refused:
            return refused.code.name
        return ""

    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask, number) for number in range(24)]
        time.sleep(1)
        opened = [local.client().open_session().name for _ in range(3)]
        codes = {outcome.result() for outcome in asked}

    assert len(set(opened)) == 3
    assert codes == {"sandbox.deadline", "agent.busy"}
