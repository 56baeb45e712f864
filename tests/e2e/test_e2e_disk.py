"""A full disk under an audit log: what cannot be recorded is denied, nothing durable is lost, and space mends it.

The disk is filled for one running process at a time, by its limit on the size of files (setrlimit(2), RLIMIT_FSIZE).
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

import pytest

from ringfence import audit
from ringfence.agent.api.jobs import JobLimits
from ringfence.audit.records import decode_line
from ringfence.client import RefusedError
from ringfence.client.local import LocalInstallation

Full = Callable[..., AbstractContextManager[None]]


SEGMENT = "records-00000000000000000001.jsonl"


@pytest.fixture
def full(local: LocalInstallation) -> Full:
    """Leaves a process `spare` bytes for its records."""

    @contextmanager
    def fill(name: str, spare: int) -> Iterator[None]:
        pid = local.process(name).pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        size = (local.audit_folder / name / SEGMENT).stat().st_size
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + spare, hard))
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    return fill


def _whole_records(local: LocalInstallation, name: str) -> int:
    lines = (local.audit_folder / name / SEGMENT).read_bytes().split(b"\n")
    return len([decode_line(line) for line in lines[1:-1]])


@pytest.mark.parametrize("spare", [0, 1, 200])
def test_under_the_gateway_s_log(
    local: LocalInstallation,
    full: Full,
    nothing: bytes,
    limits: JobLimits,
    records: Callable[..., list[Any]],
    verify_log: Callable[..., None],
    refusal: Any,
    spare: int,
) -> None:
    session = local.client().open_session()
    session.submit(nothing, b"", limits=limits)
    before, jobs = _whole_records(local, "gateway"), len(records(local, "agent", audit.Job))
    with full("gateway", spare):
        with pytest.raises(RefusedError) as caught:
            session.submit(nothing, b"", limits=limits)
        assert caught.value.code.name == "audit.unavailable"
        assert caught.value.code.kind.http == 503
        assert [(stage.name, stage.code) for stage in caught.value.trace][-1] == ("audit", "audit.unavailable")
        assert refusal(lambda: local.client().open_session()) == "audit.unavailable"
        assert _whole_records(local, "gateway") == before
        verify_log(local, "gateway")
    assert len(records(local, "agent", audit.Job)) == jobs

    assert session.submit(nothing, b"", limits=limits).receipt.code == ""
    assert _whole_records(local, "gateway") == before + 1
    verify_log(local, "gateway")


@pytest.mark.parametrize("spare", [0, 1, 200])
def test_under_the_agent_s_log(
    local: LocalInstallation,
    full: Full,
    nothing: bytes,
    limits: JobLimits,
    records: Callable[..., list[Any]],
    job_processes: Callable[[int], set[int]],
    verify_log: Callable[..., None],
    refusal: Any,
    spare: int,
) -> None:
    session = local.client().open_session()
    session.submit(nothing, b"", limits=limits)
    before = _whole_records(local, "agent")
    with full("agent", spare):
        submission = session.sign_job(nothing, b"", limits)
        assert refusal(lambda: session.send(submission)) == "audit.unavailable"
        assert _whole_records(local, "agent") == before
        assert job_processes(local.process("agent").pid) == set()
        verify_log(local, "agent")

    # What was denied for want of a record is spent all the same: whether it ran is never in doubt.
    assert refusal(lambda: session.send(submission)) == "job.replayed"
    assert session.submit(nothing, b"", limits=limits).receipt.code == ""
    assert [job.event for job in records(local, "agent", audit.Job)[-3:]] == ["refused", "admitted", "finished"]
    verify_log(local, "agent")


def test_a_log_that_filled_up_outlives_a_restart(
    local: LocalInstallation,
    full: Full,
    nothing: bytes,
    limits: JobLimits,
    stop: Callable[..., None],
    verify_log: Callable[..., None],
    refusal: Any,
) -> None:
    session = local.client().open_session()
    with full("gateway", 50):
        assert refusal(lambda: session.submit(nothing, b"", limits=limits)) == "audit.unavailable"
        stop(local, "gateway")
    local.start("gateway")
    assert local.client().open_session().submit(nothing, b"", limits=limits).receipt.code == ""
    verify_log(local, "gateway")
