"""The agent itself: checks what a gateway hands over, runs it in the sandbox, signs and records what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from ringfence import attestation, audit
from ringfence.agent.admission import Admitted, Presented, admit
from ringfence.agent.api.errors import AGENT_BUSY, GrantError
from ringfence.agent.api.grants import open_grant
from ringfence.agent.api.jobs import (
    HOST_PROOF_CONTEXT,
    ActiveJob,
    JobLimits,
    Receipt,
    Usage,
    host_proof_message,
    sign_receipt,
)
from ringfence.agent.channels import Channels
from ringfence.agent.errors import (
    CANCELLED,
    DEADLINE,
    MEMORY_LIMIT,
    MONITOR_KILLED,
    OUTPUT_LIMIT,
    PROCESS_STUCK,
    SYSCALL_DENIED,
    SandboxError,
)
from ringfence.agent.sandbox import port
from ringfence.agent.sandbox.monitor import ActiveKernel, Event
from ringfence.agent.spent import SpentIds
from ringfence.attestation import evidence
from ringfence.crypto import Signer, digest, verify_mac
from ringfence.crypto.handshake import NO_SHARES, Random, Shares
from ringfence.errors import INTERNAL, Code, RingfenceError
from ringfence.trust import TrustList

_KILLED = (DEADLINE, MEMORY_LIMIT, MONITOR_KILLED, OUTPUT_LIMIT, PROCESS_STUCK, SYSCALL_DENIED)


@dataclass(frozen=True, slots=True)
class Finished:
    """What the agent answers about a job that it admitted; `failure` says how the guest ended otherwise."""

    output: bytes
    receipt: bytes
    signature: bytes
    failure: RingfenceError | None


@dataclass(frozen=True, slots=True)
class _Run:
    output: bytes
    usage: port.Usage
    failure: SandboxError | None


class HostAgent:
    """One host's agent. Everything it needs is handed to it; it opens nothing itself.

    `active` says what the sandbox runs now.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        trust: Callable[[], TrustList],
        attester: attestation.Attester,
        sandbox: port.Sandbox,
        log: audit.AuditLog,
        spent: SpentIds,
        ceiling: JobLimits,
        jobs: int,
        clock_ns: Callable[[], int],
        ticks_ns: Callable[[], int],
        random: Random,
        active: Callable[[], tuple[ActiveKernel, ...]],
        shares: Shares = NO_SHARES,
    ) -> None:
        self.channels = Channels(signer, trust, random, shares)
        self._signer = signer
        self._trust = trust
        self._attester = attester
        self._sandbox = sandbox
        self._log = log
        self._spent = spent
        self._ceiling = ceiling
        self._free = jobs
        self._clock_ns = clock_ns
        self._ticks_ns = ticks_ns
        self._random = random
        self._active = active
        self._admitted: dict[str, Admitted] = {}

    def now(self) -> int:
        """Seconds since the Unix epoch."""
        return self._clock_ns() // 1_000_000_000

    async def collect_evidence(self, nonce: bytes) -> bytes:
        """This host's encoded evidence for a verifier's nonce."""
        return evidence.encode(await self._attester.collect(nonce, self._signer.public))

    def prove_host(self, channel: str, nonce: bytes, tag: bytes) -> bytes:
        """The signature that puts this host into a session, for a gateway that holds the channel."""
        held = self.channels.find(channel, now=self.now())
        verify_mac(held.proof_key, nonce, tag)
        return self._signer.sign(host_proof_message(nonce, held.gateway), HOST_PROOF_CONTEXT)

    def authenticate(self, channel: str, grant: bytes, tag: bytes) -> None:
        """Raises unless the grant is a live channel's, so that nothing is read for a stranger."""
        now = self.now()
        held = self.channels.find(channel, now=now)
        open_grant(held.grant_key, grant, tag, audience=self._signer.key_id, gateway=held.gateway, now=now)

    async def refused(self, error: RingfenceError) -> None:
        """Records that a submission was refused: while it arrived, or by admission."""
        await self._record(audit.Job(event="refused", job_id=self._random(16).hex(), code=error.code.name))

    async def submit(self, channel: str, presented: Presented) -> Finished:
        """Runs one job. Raises what admission raises; a guest that fails is an answer with a receipt, not an error."""
        try:
            job = self._admit(channel, presented)
        except RingfenceError as error:
            await self.refused(error)
            raise
        # From here on it is a job, and no failure makes it a refused one, not even of the log.
        try:
            return await self._run_admitted(self._random(16).hex(), job)
        finally:
            self._free += 1

    def active(self) -> tuple[ActiveJob, ...]:
        """The jobs that run now, the oldest first."""
        return tuple(
            ActiveJob(kernel.job_id, kernel.since, kernel.level, _told_limits(kernel.limits), _told(kernel.usage))
            for kernel in self._active()
        )

    def alert(self, job_id: str, event: Event) -> None:
        """Records what the monitor of a running job has seen. Nobody waits for the record."""
        job = self._admitted.get(job_id)
        self._log.append(
            audit.Alert(
                event="killed" if event.kill else "raised",
                job_id=job_id,
                session=job.grant.session if job else "",
                principal=job.grant.principal if job else "",
                watched=event.watched.value,
                measured=event.measured,
                allowed=event.allowed,
            )
        )

    def _admit(self, channel: str, presented: Presented) -> Admitted:
        """The job, with a place taken for it."""
        # Checked before admission, so that a busy host does not spend the grant.
        if self._free <= 0:
            raise GrantError(AGENT_BUSY, "As many jobs as this host allows are running.", hint="Try again later.")
        now = self.now()
        held = self.channels.find(channel, now=now)
        job = admit(
            presented,
            key=held.grant_key,
            gateway=held.gateway,
            host=self._signer.key_id,
            trust=self._trust(),
            ceiling=self._ceiling,
            spent=self._spent,
            now=now,
        )
        self._free -= 1
        return job

    async def _run_admitted(self, job_id: str, job: Admitted) -> Finished:
        code: Code | None = None
        try:
            # Durable before the guest starts: a restart must know that this grant and this nonce are spent.
            await self._record(_admission(job_id, job))
            # Until it has an end of its own, what ends it is a defect of this agent.
            code = INTERNAL
            finished, record = await self._finish(job_id, job)
            code = None
        except asyncio.CancelledError:
            code = CANCELLED
            raise
        finally:
            if code is not None:
                # Nobody waits for the answer any more; the record is written, not awaited.
                self._log.append(
                    audit.Job(
                        event="killed",
                        job_id=job_id,
                        session=job.grant.session,
                        principal=job.grant.principal,
                        grant_id=job.grant.grant_id,
                        code=code.name,
                        limits=_limits(job),
                    )
                )
        await self._record(record)
        return finished

    async def _finish(self, job_id: str, job: Admitted) -> tuple[Finished, audit.Job]:
        """Run a job to its end; the answer, and the record that must be durable before it leaves."""
        started_at, started_ns = self.now(), self._ticks_ns()
        self._admitted[job_id] = job
        try:
            run = await self._run(job_id, job)
        finally:
            del self._admitted[job_id]
        receipt, signature = sign_receipt(
            self._signer, self._receipt(job_id, job, run, started_at=started_at, finished_at=self.now())
        )
        record = audit.Job(
            event="killed" if run.failure and run.failure.code in _KILLED else "finished",
            job_id=job_id,
            session=job.grant.session,
            principal=job.grant.principal,
            grant_id=job.grant.grant_id,
            code=run.failure.code.name if run.failure else "",
            result_digest=digest(run.output).hex(),
            receipt_digest=digest(receipt).hex(),
            limits=_limits(job),
            duration_us=(self._ticks_ns() - started_ns) // 1000,
        )
        for attempt in _attempts(job_id, job, run):
            self._log.append(attempt)
        return Finished(run.output, receipt, signature, run.failure), record

    async def _run(self, job_id: str, job: Admitted) -> _Run:
        limits = job.statement.limits
        try:
            guest = port.GuestJob(
                job.submission.module,
                job.submission.input,
                port.Limits(
                    memory_bytes=limits.memory_bytes,
                    gpu_memory_bytes=limits.gpu_memory_bytes,
                    deadline_ms=limits.deadline_ms,
                    output_bytes=limits.output_bytes,
                    qubits=limits.qubits,
                    compute_units=limits.compute_units,
                ),
                level=job.statement.level,
                result=job.statement.result,
                job_id=job_id,
            )
            outcome = await self._sandbox.run(guest)
        except port.GuestError as error:
            return _Run(b"", error.usage, error)
        except SandboxError as error:
            return _Run(b"", port.Usage(wall_ms=0.0, cpu_ms=0.0, peak_memory_bytes=0), error)
        return _Run(outcome.output, outcome.usage, None)

    def _receipt(self, job_id: str, job: Admitted, run: _Run, *, started_at: int, finished_at: int) -> Receipt:
        return Receipt(
            job_id=job_id,
            host=self._signer.key_id,
            principal=job.grant.principal,
            session=job.grant.session,
            grant_id=job.grant.grant_id,
            statement_digest=digest(job.submission.statement),
            module_digest=job.statement.module_digest,
            input_digest=job.statement.input_digest,
            result_digest=digest(run.output),
            bundle_digest=job.grant.bundle_digest,
            attestation_digest=job.grant.attestation_digest,
            limits=job.statement.limits,
            level=job.statement.level,
            result=job.statement.result,
            usage=_told(run.usage),
            code=run.failure.code.name if run.failure else "",
            started_at=started_at,
            finished_at=finished_at,
        )

    async def _record(self, record: audit.Record) -> None:
        await self._log.durable(self._log.append(record))


def recover_spent(log: audit.AuditLog, *, now: int) -> SpentIds:
    """What the audit log says is spent. What has expired is not kept, but stays closed to a clock that goes back."""
    spent = SpentIds()
    for entry in log.records():
        record = entry.record
        if isinstance(record, audit.Job) and record.event == "admitted":
            spent.spend(record.grant_id, expires_at=record.spent_until, now=now)
            spent.spend(record.nonce, expires_at=record.spent_until, now=now)
    return spent


def _admission(job_id: str, job: Admitted) -> audit.Job:
    return audit.Job(
        event="admitted",
        job_id=job_id,
        session=job.grant.session,
        principal=job.grant.principal,
        grant_id=job.grant.grant_id,
        spent_until=job.spent_until,
        nonce=job.nonce_id,
        module_digest=job.statement.module_digest.hex(),
        input_digest=job.statement.input_digest.hex(),
        limits=_limits(job),
    )


def _attempts(job_id: str, job: Admitted, run: _Run) -> Iterator[audit.Alert]:
    """What a job's processes did that none does which is still its own master, however the job then ended."""
    about = partial(audit.Alert, job_id=job_id, session=job.grant.session, principal=job.grant.principal)
    if run.failure and run.failure.code is SYSCALL_DENIED:
        yield about(event="killed", watched="system_calls", measured=1)
    if run.usage.forged_batches:
        yield about(event="raised", watched="command_ring", measured=run.usage.forged_batches)


def _limits(job: Admitted) -> audit.JobLimits:
    limits = job.statement.limits
    return audit.JobLimits(
        memory_bytes=limits.memory_bytes,
        gpu_memory_bytes=limits.gpu_memory_bytes,
        deadline_ms=limits.deadline_ms,
        output_bytes=limits.output_bytes,
        qubits=limits.qubits,
        compute_units=limits.compute_units,
    )


def _told(usage: port.Usage) -> Usage:
    return Usage(
        wall_ms=round(usage.wall_ms, 3),
        cpu_ms=round(usage.cpu_ms, 3),
        peak_memory_bytes=usage.peak_memory_bytes,
        peak_gpu_bytes=usage.peak_gpu_bytes,
        launches=usage.launches,
        gates=usage.gates,
        measurements=usage.measurements,
        checkpoints=usage.checkpoints,
    )


def _told_limits(limits: port.Limits) -> JobLimits:
    return JobLimits(
        memory_bytes=limits.memory_bytes,
        gpu_memory_bytes=limits.gpu_memory_bytes,
        deadline_ms=limits.deadline_ms,
        output_bytes=limits.output_bytes,
        qubits=limits.qubits,
        compute_units=limits.compute_units,
    )
