"""The agent around a fake sandbox: what it records, signs and answers, whatever guest, clock and caller do."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from ringfence import audit
from ringfence.agent.admission import Presented
from ringfence.agent.api import jobs
from ringfence.agent.api.errors import GrantError
from ringfence.agent.errors import GUEST_TRAP, SYSCALL_DENIED
from ringfence.agent.sandbox.monitor import Event, Watched
from ringfence.agent.sandbox.port import GuestError, GuestJob, Limits, Outcome
from ringfence.crypto import digest
from tests.agent.agent_bench import CLIENT, HOST, LIMITS, USAGE, Bench, chunks, code_of, finishes


async def test_a_job_that_finishes_is_recorded_and_signed(bench: Bench) -> None:
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert (done.output, done.failure) == (b"INPUT", None)
    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert (receipt.code, receipt.result_digest) == ("", digest(b"INPUT"))
    assert (receipt.limits, receipt.level, receipt.result) == (LIMITS, jobs.Level.QUANTUM, jobs.ResultType.JSON)
    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_the_sandbox_gets_what_the_caller_signed(bench: Bench) -> None:
    seen: list[GuestJob] = []

    async def looks(job: GuestJob) -> Outcome:
        seen.append(job)
        return await finishes(job)

    bench.sandbox.behaviour = looks
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert [(job.job_id, job.level, job.result) for job in seen] == [
        (receipt.job_id, jobs.Level.QUANTUM, jobs.ResultType.JSON)
    ]
    assert seen[0].limits == Limits(2**20, 2**20, 1000, 4096, 0, 32)


async def test_what_the_monitor_sees_is_recorded_with_the_job_it_saw(bench: Bench) -> None:
    async def goes_too_far(job: GuestJob) -> Outcome:
        for event in (Event(Watched.COMMANDS, 11, 10, False), Event(Watched.CHECKPOINTS, 501, 500, True)):
            bench.agent.alert(job.job_id, event)
        error = event.error()
        raise GuestError(error.code, error.message, USAGE, field=error.field, hint=error.hint)

    bench.sandbox.behaviour = goes_too_far
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    about = {"job_id": receipt.job_id, "session": "session", "principal": CLIENT.key_id}
    assert [entry.record for entry in bench.log.records() if isinstance(entry.record, audit.Alert)] == [
        audit.Alert(event="raised", watched="commands", measured=11, allowed=10, **about),
        audit.Alert(event="killed", watched="checkpoints", measured=501, allowed=500, **about),
    ]
    assert bench.events() == [("admitted", ""), ("killed", "sandbox.monitor_killed")]


async def test_an_event_of_a_job_that_has_ended_is_recorded_too(bench: Bench) -> None:
    bench.agent.alert("gone", Event(Watched.MEMORY, 2**63 - 1, 1, False))
    await bench.agent.submit(bench.channel.name, bench.presented())  # whose records are durable, and so is this one
    assert [entry.record for entry in bench.log.records() if isinstance(entry.record, audit.Alert)] == [
        audit.Alert(event="raised", job_id="gone", watched="memory", measured=2**63 - 1, allowed=1)
    ]


async def test_a_guest_that_fails_has_a_receipt_too(bench: Bench) -> None:
    async def traps(_: GuestJob) -> Outcome:
        raise GuestError(GUEST_TRAP, "It trapped.", USAGE)

    bench.sandbox.behaviour = traps

    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is not None
    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert (receipt.code, done.failure.code.name) == ("sandbox.trap", "sandbox.trap")
    assert bench.events() == [("admitted", ""), ("finished", "sandbox.trap")]


async def test_a_clock_that_goes_back_costs_no_answer(bench: Bench) -> None:
    async def turns_back(job: GuestJob) -> Outcome:
        bench.now -= 3600
        return await finishes(job)

    bench.sandbox.behaviour = turns_back

    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is None
    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_a_cancelled_job_is_recorded_as_killed_and_frees_its_place(bench: Bench) -> None:
    started = asyncio.Event()

    async def hangs(_: GuestJob) -> Outcome:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    bench.sandbox.behaviour = hangs
    running = asyncio.create_task(bench.agent.submit(bench.channel.name, bench.presented()))
    await started.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    bench.sandbox.behaviour = finishes
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert done.failure is None
    assert ("killed", "sandbox.cancelled") in bench.events()


async def test_a_job_that_a_defect_of_the_agent_ends_has_an_end_on_record(bench: Bench) -> None:
    async def breaks(_: GuestJob) -> Outcome:
        raise LookupError("nobody has thought of this")

    bench.sandbox.behaviour = breaks
    with pytest.raises(LookupError):
        await bench.agent.submit(bench.channel.name, bench.presented())
    bench.sandbox.behaviour = finishes
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [("admitted", ""), ("killed", "internal.bug"), ("admitted", ""), ("finished", "")]
    admitted, killed, *_ = bench.jobs()
    assert (killed.job_id, killed.grant_id) == (admitted.job_id, admitted.grant_id)


async def test_a_job_cancelled_while_its_admission_becomes_durable_has_an_end_on_record(bench: Bench) -> None:
    running = asyncio.create_task(bench.agent.submit(bench.channel.name, bench.presented()))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [
        *(("admitted", ""), ("killed", "sandbox.cancelled")),
        *(("admitted", ""), ("finished", "")),
    ]


async def test_a_denied_system_call_is_an_event_of_its_own_and_a_kill(bench: Bench) -> None:
    async def tries(_: GuestJob) -> Outcome:
        raise GuestError(SYSCALL_DENIED, "It tried.", USAGE, field="module")

    bench.sandbox.behaviour = tries
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    receipt = jobs.check_receipt(done.receipt, done.signature, agent=HOST.public)
    assert receipt.code == "sandbox.syscall_denied"
    assert bench.events() == [("admitted", ""), ("killed", "sandbox.syscall_denied")]
    (alert,) = [entry.record for entry in bench.log.records() if isinstance(entry.record, audit.Alert)]
    assert (alert.event, alert.job_id, alert.watched, alert.measured) == ("killed", receipt.job_id, "system_calls", 1)
    assert (alert.session, alert.principal) == ("session", CLIENT.key_id)


async def test_a_forged_ring_is_an_event_of_its_own_whatever_the_worker_says(bench: Bench) -> None:
    async def forges(_: GuestJob) -> Outcome:
        return Outcome(b"all is well", replace(USAGE, forged_batches=3))

    bench.sandbox.behaviour = forges
    done = await bench.agent.submit(bench.channel.name, bench.presented())

    assert (done.failure, done.output) == (None, b"all is well")
    (alert,) = [entry.record for entry in bench.log.records() if isinstance(entry.record, audit.Alert)]
    assert (alert.event, alert.watched, alert.measured) == ("raised", "command_ring", 3)
    assert (alert.session, alert.principal) == ("session", CLIENT.key_id)


async def test_a_job_whose_end_cannot_be_recorded_is_no_refusal(bench: Bench) -> None:
    async def fills_the_disk(job: GuestJob) -> Outcome:
        bench.disk.full = True
        return await finishes(job)

    bench.sandbox.behaviour = fills_the_disk
    with pytest.raises(audit.AuditError, match=r"audit\.unavailable"):
        await bench.agent.submit(bench.channel.name, bench.presented())
    bench.sandbox.behaviour = finishes
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [("admitted", ""), ("admitted", ""), ("finished", "")]


async def test_a_job_whose_admission_cannot_be_recorded_does_not_run_and_keeps_no_place(bench: Bench) -> None:
    async def must_not_run(_: GuestJob) -> Outcome:
        raise AssertionError

    bench.sandbox.behaviour = must_not_run
    bench.disk.full = True
    with pytest.raises(audit.AuditError, match=r"audit\.unavailable"):
        await bench.agent.submit(bench.channel.name, bench.presented())
    bench.sandbox.behaviour = finishes
    await bench.agent.submit(bench.channel.name, bench.presented())

    assert bench.events() == [("admitted", ""), ("finished", "")]


async def test_a_busy_host_refuses_on_record_and_spends_no_grant(bench: Bench) -> None:
    started, proceed = asyncio.Event(), asyncio.Event()

    async def waits(job: GuestJob) -> Outcome:
        started.set()
        await proceed.wait()
        return await finishes(job)

    bench.sandbox.behaviour = waits
    running = asyncio.create_task(bench.agent.submit(bench.channel.name, bench.presented()))
    await started.wait()
    second = bench.presented()
    with pytest.raises(GrantError, match=r"agent\.busy"):
        await bench.agent.submit(bench.channel.name, second)
    proceed.set()
    await running
    await bench.agent.submit(bench.channel.name, second)

    assert bench.events() == [
        *(("admitted", ""), ("refused", "agent.busy"), ("finished", "")),
        *(("admitted", ""), ("finished", "")),
    ]


async def test_a_submission_is_refused_on_record_once_wherever_it_fails(bench: Bench) -> None:
    unread = bench.presented()
    forged = Presented(unread.grant, bytes(32), unread.body)
    assert await code_of(bench, chunks(bench, forged)) == "grant.forged"
    assert await code_of(bench, chunks(bench, bench.presented(), cut=1)) == "grant.body_mismatch"

    assert bench.events() == [("refused", "grant.forged"), ("refused", "grant.body_mismatch")]
    assert len({job.job_id for job in bench.jobs()}) == 2


async def test_every_record_of_an_admitted_job_holds_its_limits_and_a_refusal_none(bench: Bench) -> None:
    async def hangs(_: GuestJob) -> Outcome:
        await asyncio.Event().wait()
        raise AssertionError

    presented = bench.presented()
    await bench.agent.submit(bench.channel.name, presented)
    with pytest.raises(GrantError):
        await bench.agent.submit(bench.channel.name, presented)
    bench.sandbox.behaviour = hangs
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(bench.agent.submit(bench.channel.name, bench.presented()), 0.1)
    bench.sandbox.behaviour = finishes  # whose record is durable, and so is the one before it
    await bench.agent.submit(bench.channel.name, bench.presented())

    limits = audit.JobLimits(
        memory_bytes=2**20, gpu_memory_bytes=2**20, deadline_ms=1000, output_bytes=4096, qubits=0, compute_units=32
    )
    assert [(job.event, job.limits) for job in bench.jobs()] == [
        *(("admitted", limits), ("finished", limits), ("refused", None)),
        *(("admitted", limits), ("killed", limits), ("admitted", limits), ("finished", limits)),
    ]
