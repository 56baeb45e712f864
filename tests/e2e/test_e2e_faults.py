"""What goes wrong while jobs run: garbage, cut bodies, clients that leave, agents that are killed, a second agent."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from ringfence import audit
from ringfence.agent.api.jobs import JobLimits, parse_submission
from ringfence.client import JobResult, RefusedError, Session
from ringfence.client.errors import ClientError
from ringfence.client.local import LocalInstallation
from ringfence.plugin.api import JOBS_PATH

Children = Callable[[int], set[int]]
Until = Callable[..., None]
Records = Callable[..., list[Any]]


@pytest.fixture
def session(local: LocalInstallation) -> Session:
    return local.client().open_session()


@pytest.fixture
def works(local: LocalInstallation, nothing: bytes, limits: JobLimits) -> Callable[[], None]:
    """Sees that the installation still opens sessions and runs jobs."""

    def check() -> None:
        done = local.client().open_session().submit(nothing, b"", limits=limits)
        assert done.receipt.code == ""

    return check


@pytest.fixture
def running(local: LocalInstallation, job_processes: Children, until: Until) -> Callable[[], set[int]]:
    """Waits until a job runs, and gives its processes."""

    def find() -> set[int]:
        agent = local.process("agent").pid
        until(lambda: job_processes(agent), "a job runs")
        return job_processes(agent)

    return find


def _outcome(attempt: Callable[[], object]) -> str:
    """The code of a refusal; empty where nothing was refused."""
    try:
        attempt()
    except RefusedError as error:
        return error.code.name
    return ""


@pytest.fixture
def recovers(session: Session, nothing: bytes, limits: JobLimits, until: Until) -> Callable[[], None]:
    """Sees that after a restart of the agent the gateway finds it again by itself and jobs run in the same session."""

    def check() -> None:
        codes: list[str] = []

        def runs() -> bool:
            codes.append(_outcome(lambda: session.submit(nothing, b"", limits=limits)))
            return codes[-1] == ""

        until(runs, "the gateway has found the agent again", 5.0)
        assert set(codes) <= {"", "channel.unknown", "agent.unavailable", "device.not_attested"}

    return check


def _request(session: Session, body: bytes, *, length: int) -> bytes:
    headers = session.sign_request(body) | {"host": "localhost", "content-length": str(length)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {JOBS_PATH} HTTP/1.1\r\n{head}\r\n".encode()


def _connect(local: LocalInstallation) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(local.socket("gateway")))
    return connection


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (b"", "sandbox.module_invalid"),
        (b"#!/bin/sh\nexit 0\n", "sandbox.module_invalid"),
        (b"\0asm\1\0\0\0" + b"\xff" * 4096, "sandbox.module_invalid"),
        (b"\0asm\1\0\0\0", "sandbox.entry_point_missing"),
    ],
)
def test_garbage_in_place_of_a_module(
    local: LocalInstallation,
    session: Session,
    limits: JobLimits,
    records: Records,
    job_processes: Children,
    module: bytes,
    code: str,
) -> None:
    with pytest.raises(RefusedError) as caught:
        session.submit(module, b"", limits=limits)
    assert caught.value.code.name == code
    assert caught.value.receipt is not None
    assert caught.value.receipt.code == code
    assert job_processes(local.process("agent").pid) == set()
    last = records(local, "agent", audit.Job)[-1]
    assert (last.event, last.code, last.job_id) == ("finished", code, caught.value.receipt.job_id)


def test_a_connection_that_ends_half_way_forwards_nothing(
    local: LocalInstallation, session: Session, nothing: bytes, limits: JobLimits, records: Records, works: Any
) -> None:
    body = session.sign_job(nothing, b"x" * 100_000, limits)
    before = len(records(local, "agent", audit.Job))
    for sent in (0, 1, len(body) // 2, len(body) - 1):
        with _connect(local) as connection:
            connection.sendall(_request(session, body, length=len(body)) + body[:sent])
    time.sleep(0.3)
    assert len(records(local, "agent", audit.Job)) == before
    works()


def test_a_shorter_body_under_the_old_digest(
    local: LocalInstallation, session: Session, nothing: bytes, limits: JobLimits, records: Records, refusal: Any
) -> None:
    body = session.sign_job(nothing, b"x" * 1000, limits)
    before = len(records(local, "agent", audit.Job))
    for cut in (body[:-1], body[: len(body) // 2], b""):
        assert refusal(lambda cut=cut: session.send(cut, session.sign_request(body))) == "integrity.digest_mismatch"
    # Cut short before it was signed: the digest holds, the submission inside does not parse.
    with pytest.raises(RefusedError) as caught:
        session.client.post(JOBS_PATH, body[:-1], session.sign_request(body[:-1]))
    assert caught.value.code.name == "job.malformed"
    submission, _ = parse_submission(body)
    shorter = msgspec.msgpack.encode(msgspec.structs.replace(submission, input=submission.input[:-1]))
    assert refusal(lambda: session.send(shorter)) == "job.digest_mismatch"
    later = records(local, "agent", audit.Job)[before:]
    assert [record.event for record in later] == ["refused"]


@pytest.mark.parametrize("how", ["leaves", "is reset", "loses patience"])
def test_a_client_that_disconnects_mid_job(
    local: LocalInstallation,
    session: Session,
    endless: bytes,
    limits: JobLimits,
    records: Records,
    running: Callable[[], set[int]],
    alive: Callable[[set[int]], set[int]],
    until: Until,
    works: Any,
    how: str,
) -> None:
    if how == "loses patience":
        with ThreadPoolExecutor(1) as executor:
            waiting = executor.submit(session.submit, endless, b"", limits=limits, timeout_s=1.5)
            processes = running()
            error = waiting.exception()
        assert isinstance(error, ClientError)
        assert error.code.name == "client.timed_out"
    else:
        body = session.sign_job(endless, b"", limits)
        with _connect(local) as connection:
            connection.sendall(_request(session, body, length=len(body)) + body)
            processes = running()
            if how == "is reset":
                connection.shutdown(socket.SHUT_RDWR)
    until(lambda: not alive(processes), "the job's processes are gone", 2.0)
    until(lambda: records(local, "agent", audit.Job)[-1].event == "killed", "the log says so")
    admitted, killed = records(local, "agent", audit.Job)[-2:]
    assert (admitted.event, killed.code) == ("admitted", "sandbox.cancelled")
    assert admitted.job_id == killed.job_id
    works()


def test_an_agent_killed_mid_job(
    local: LocalInstallation,
    session: Session,
    endless: bytes,
    nothing: bytes,
    limits: JobLimits,
    records: Records,
    running: Callable[[], set[int]],
    alive: Callable[[set[int]], set[int]],
    until: Until,
    stop: Callable[..., None],
    refusal: Any,
    verify_log: Callable[..., None],
    recovers: Callable[[], None],
    works: Any,
) -> None:
    acknowledged = session.submit(nothing, b"", limits=limits).receipt.job_id
    with ThreadPoolExecutor(1) as executor:
        waiting: Future[JobResult] = executor.submit(session.submit, endless, b"", limits=limits)
        processes = running()
        stop(local, "agent", signal.SIGKILL)
        error = waiting.exception(timeout=5)
    assert isinstance(error, RefusedError)
    assert error.code.name == "agent.unavailable"
    assert error.code.kind.http == 503
    until(lambda: not alive(processes), "the job's processes are gone", 2.0)

    # While the agent is away, nothing is granted and nobody waits.
    started = time.monotonic()
    assert refusal(lambda: session.submit(nothing, b"", limits=limits)) == "device.not_attested"
    assert refusal(lambda: local.client().open_session()) == "device.not_attested"
    assert time.monotonic() - started < 5

    local.start("agent")
    verify_log(local, "agent")
    jobs = records(local, "agent", audit.Job)
    assert {"admitted", "finished"} <= {record.event for record in jobs if record.job_id == acknowledged}
    assert (jobs[-1].event, jobs[-1].code) == ("admitted", "")
    recovers()
    works()


def test_a_session_outlives_a_restart_of_an_idle_agent(
    local: LocalInstallation, stop: Callable[..., None], recovers: Callable[[], None], works: Any
) -> None:
    stop(local, "agent")
    local.start("agent")
    recovers()
    works()


def test_a_second_agent_on_the_same_socket(
    local: LocalInstallation, command: Callable[..., list[str]], works: Any
) -> None:
    words = command("agent", "--config", local.state / "agent.toml", "--json")
    second = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert msgspec.json.decode(second.stdout)["error"]["code"] == "agent.already_running"
    assert second.stderr.count("\n") == 1
    assert local.socket("agent").is_socket()
    works()


def test_a_second_gateway_on_the_same_socket(
    local: LocalInstallation, command: Callable[..., list[str]], works: Any
) -> None:
    words = command("gateway", "--config", local.state / "gateway.toml", "--json")
    second = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode == 1
    assert msgspec.json.decode(second.stdout)["error"]["code"] == "gateway.listen_failed"
    assert local.socket("gateway").is_socket()
    works()
