"""What an escape leaves behind: a record, with its code, in the agent's audit log; and what a lock-down stands on."""

from __future__ import annotations

import itertools
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import wasmtime

from ringfence import audit
from ringfence.agent.admission import Presented
from ringfence.agent.api import grants, jobs
from ringfence.agent.errors import LOCKDOWN_FAILED, SandboxError
from ringfence.agent.host import HostAgent
from ringfence.agent.sandbox.lockdown import HostFeatures, Lockdown, probe
from ringfence.agent.sandbox.process import ProcessSandbox
from ringfence.agent.spent import SpentIds
from ringfence.attestation import NoTpmAttester
from ringfence.crypto import COMPOSITE, digest
from ringfence.crypto.handshake import Initiator
from ringfence.trust import KeyPair, Pin, Role, TrustList

NOW = 1_800_000_000
LIMITS = jobs.JobLimits(2**20, 2**20, 20_000, 4096, 0, 64)
PLAIN = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start")))'))
RINGED = bytes(
    wasmtime.wat2wasm("""(module (import "ringfence" "amd_gpu_sync" (func (param i32) (result i32)))
      (memory (export "memory") 1) (func (export "_start")))""")
)
TRAPS = bytes(wasmtime.wat2wasm('(module (memory (export "memory") 1) (func (export "_start") unreachable))'))


class Host:
    """An agent over a sandbox whose workers are hostile, with an audit log of its own."""

    def __init__(self, sandbox: ProcessSandbox, log: audit.AuditLog, key: KeyPair) -> None:
        self._key = key
        self._gateway, self._caller = (KeyPair(*COMPOSITE.generate()) for _ in range(2))
        pins = (Pin("g", Role.GATEWAY, self._gateway.public, NOW), Pin("c", Role.CLIENT, self._caller.public, NOW))
        self.agent = HostAgent(
            signer=key,
            trust=lambda: TrustList(pins),
            attester=NoTpmAttester("a test"),
            sandbox=sandbox,
            log=log,
            spent=SpentIds(),
            ceiling=LIMITS,
            jobs=1,
            clock_ns=lambda: NOW * 10**9,
            ticks_ns=itertools.count(0, 1000).__next__,
            random=secrets.token_bytes,
            active=sandbox.active_kernels,
        )
        initiator = Initiator.start(
            self._gateway, key.public, grants.CHANNEL_PURPOSE, now=NOW, random=secrets.token_bytes
        )
        self._channel = initiator.finish(self.agent.channels.open(initiator.message, now=NOW))

    async def submit(self, module: bytes, given: bytes) -> str:
        """Run a job; the code in its receipt, which the answer's failure has too."""
        body = jobs.sign_job(self._caller, self._statement(module, given), module, given)
        encoded, tag = grants.seal_grant(self._channel.key(grants.GRANT_KEY), self._grant(body))
        done = await self.agent.submit(self._channel.name, Presented(encoded, tag, body))
        receipt = jobs.check_receipt(done.receipt, done.signature, agent=self._key.public)
        assert receipt.code == (done.failure.code.name if done.failure else "")
        return receipt.code

    def _statement(self, module: bytes, given: bytes) -> jobs.JobStatement:
        return jobs.JobStatement(
            host=self._key.key_id,
            principal=self._caller.key_id,
            nonce=secrets.token_bytes(16),
            issued_at=NOW,
            expires_at=NOW + 60,
            module_digest=digest(module),
            input_digest=digest(given),
            limits=LIMITS,
            level=jobs.Level.HIGH,
            result=jobs.ResultType.BYTES,
        )

    def _grant(self, body: bytes) -> grants.Grant:
        return grants.Grant(
            grant_id=secrets.token_hex(16),
            audience=self._key.key_id,
            gateway=self._gateway.key_id,
            session="session",
            principal=self._caller.key_id,
            body_digest=digest(body),
            limits=LIMITS,
            bundle_digest="",
            attestation_digest="",
            issued_at=NOW,
            expires_at=NOW + 60,
        )


@pytest.fixture
def log(tmp_path: Path) -> Iterator[tuple[audit.AuditLog, KeyPair]]:
    key = KeyPair(*COMPOSITE.generate())
    with audit.AuditLog.open(tmp_path, key, clock_ns=lambda: NOW * 10**9, verify=COMPOSITE.verify) as opened:
        yield opened, key


async def test_each_attempt_is_recorded_with_its_code(
    hostile: ProcessSandbox, log: tuple[audit.AuditLog, KeyPair]
) -> None:
    host = Host(hostile, *log)
    attempts = {
        (PLAIN, b"attack socket"): "sandbox.syscall_denied",
        (PLAIN, b"attack ptrace"): "sandbox.syscall_denied",
        (PLAIN, b"attack end at once"): "sandbox.worker_lost",
        (PLAIN, b"lie " + b"\xff" * 100): "sandbox.worker_lost",
        (b"attack open", b""): "sandbox.syscall_denied",
        (b"garbage", b""): "sandbox.module_invalid",
        (TRAPS, b""): "sandbox.trap",
        (RINGED, b"attack a gap of nothing"): "",
        (PLAIN, b"attack nothing"): "",
    }
    for (module, given), code in attempts.items():
        assert await host.submit(module, given) == code
    ends = [entry.record for entry in log[0].records() if isinstance(entry.record, audit.Job)]
    assert [record.code for record in ends if record.event != "admitted"] == list(attempts.values())
    assert len({record.job_id for record in ends}) == len(attempts)
    alerts = [entry.record for entry in log[0].records() if isinstance(entry.record, audit.Alert)]
    assert [(alert.event, alert.watched) for alert in alerts] == [
        *[("killed", "system_calls")] * 3,
        ("raised", "command_ring"),
    ]


def test_a_process_whose_zygote_has_gone_does_not_start() -> None:
    lockdown = Lockdown()
    pid = os.fork()
    if pid == 0:
        # Its parent is not the process that made the lock-down, as when that has ended.
        if os.fork():
            os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
        try:
            lockdown.begin(may_make_code=False)
        except SandboxError as error:
            os._exit(17 if error.code == LOCKDOWN_FAILED else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 17


def test_probe_says_what_the_host_has() -> None:
    features = probe()
    assert isinstance(features, HostFeatures)
    assert features.seccomp
    assert features.pidfd
    assert features.landlock_abi >= 0
