"""The broker as a process: end to end over its ring, locked down, and gone with its parent."""

from __future__ import annotations

import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ringfence.agent.broker import account
from ringfence.agent.broker.account import Usage
from ringfence.agent.ring import (
    ANSWER_BYTES,
    REPLY_BYTES,
    REQUEST_BYTES,
    SLOTS,
    Alloc,
    Command,
    Gate,
    Launch,
    Measure,
    Outlet,
    Read,
    Refusal,
    Sync,
    Write,
    encode,
)

POOL = 1 << 20
TIMEOUT_S = 20


def ring_file(stack: ExitStack, size: int) -> int:
    """A memory file of a fixed size, as an agent makes it."""
    descriptor = os.memfd_create("ring", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    stack.callback(os.close, descriptor)
    os.ftruncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor


@dataclass(frozen=True, slots=True)
class Ends:
    """A job's ring: the broker's descriptors, and what the worker has of it."""

    theirs: tuple[int, int, int]
    channel: socket.socket
    request: mmap.mmap
    reply: mmap.mmap

    @classmethod
    def make(cls, stack: ExitStack) -> Ends:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(TIMEOUT_S)
        stack.enter_context(ours)
        request, reply = ring_file(stack, REQUEST_BYTES), ring_file(stack, REPLY_BYTES)
        descriptor = theirs.detach()
        stack.callback(os.close, descriptor)
        mapped = mmap.mmap(request, REQUEST_BYTES), mmap.mmap(reply, REPLY_BYTES, access=mmap.ACCESS_READ)
        return cls((descriptor, request, reply), ours, *mapped)

    def command_line(self, *, qubits: int = 0, memory: int = POOL) -> list[str]:
        names = zip(("--fd", "--request-fd", "--reply-fd"), map(str, self.theirs), strict=True)
        limits = ["--gpu-memory", str(memory), "--qubits", str(qubits)]
        return [
            sys.executable,
            "-I",
            "-m",
            "ringfence.agent.broker",
            *(word for pair in names for word in pair),
            *limits,
        ]


@dataclass(frozen=True, slots=True)
class Running:
    """A broker process with the worker's end of its ring and the file of its account."""

    process: subprocess.Popen[bytes]
    ends: Ends
    report: int
    outlet: Outlet = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outlet", Outlet(memoryview(self.ends.request)))

    def ask(self, *commands: Command) -> bytes | Refusal:
        self.send(*commands)
        return self.receive()

    def receive(self) -> bytes | Refusal:
        result = self.outlet.settle(self.ends.channel.recv(ANSWER_BYTES), memoryview(self.ends.reply))
        return result if isinstance(result, Refusal) else bytes(result)

    def send(self, *commands: Command) -> None:
        self.ends.channel.send(self.outlet.put(b"".join(map(encode, commands))))

    def send_raw(self, message: bytes) -> tuple[int, ...]:
        """The answer to any message at all."""
        self.ends.channel.send(message)
        return struct.unpack("<QII", self.ends.channel.recv(ANSWER_BYTES))

    def address(self, size: int) -> int:
        payload = self.ask(Alloc(size))
        assert isinstance(payload, bytes)
        return int.from_bytes(payload, "little")

    def finish(self) -> tuple[int, Usage]:
        """Close the job's socket; the exit status and the usage that was reported."""
        self.ends.channel.close()
        status = self.process.wait(TIMEOUT_S)
        usage = account.decode(os.pread(self.report, account.ACCOUNT_BYTES, 0), most=2**63 - 1)
        assert usage is not None
        return status, usage


@pytest.fixture(params=[0])
def broker(request: pytest.FixtureRequest) -> Iterator[Running]:
    with ExitStack() as stack:
        ends = Ends.make(stack)
        report = ring_file(stack, account.ACCOUNT_BYTES)
        line = [*ends.command_line(qubits=request.param), "--report-fd", str(report)]
        process = subprocess.Popen(line, pass_fds=(*ends.theirs, report))
        # The broker's own end of the socket must be its alone, or nobody's end ends it.
        os.dup2(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), ends.theirs[0])
        try:
            yield Running(process, ends, report)
        finally:
            process.kill()
            process.wait(TIMEOUT_S)


with_qubits = pytest.mark.parametrize("broker", [3], indirect=True)


@with_qubits
def test_a_job_runs_and_its_usage_is_reported(broker: Running) -> None:
    address = broker.address(8 * 64)
    values = b"".join(number.to_bytes(8, "little") for number in range(64))
    launch = Launch("square_i64", 1, 64, (address, address, 64))
    payload = broker.ask(Write(address, values), launch, Read(address, 8 * 64))
    assert payload == b"".join((number**2).to_bytes(8, "little") for number in range(64))
    assert broker.ask(Gate(3, 0, 0.0), Gate(3, 0, 0.0), Gate(0, 2, 0.0), Measure(0, 0)) == b"\x00"
    assert broker.ask(Measure(2, 0)) == b"\x01"
    assert broker.finish() == (
        0,
        Usage(commands=9, launches=1, gates=3, measurements=2, peak_gpu_bytes=512),
    )


@with_qubits
def test_batches_are_executed_while_the_worker_goes_on_and_answered_in_turn(broker: Running) -> None:
    for _ in range(5):
        broker.send(*[Gate(0, 0, 0.0)] * 101)
    assert broker.outlet.unanswered == 5
    for _ in range(5):
        assert broker.receive() == b""
    assert broker.ask(Measure(0, 0)) == b"\x01"
    assert broker.finish()[1].gates == 505


def test_a_fault_is_answered_again_and_again_and_the_job_still_ends_well(broker: Running) -> None:
    address = broker.address(8)
    first = broker.ask(Launch("square_i64", 1024, 1024, (address, address, 2**32 - 1)), Sync(0))
    assert isinstance(first, Refusal)
    assert first.code == "gpu.fault"
    assert broker.ask(Read(address, 8)) == first
    assert broker.finish()[0] == 0


def test_a_job_without_qubits_is_told_so(broker: Running) -> None:
    refusal = broker.ask(Measure(0, 0))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "quantum.disabled"


def test_a_broker_loads_numpy_for_jobs_with_qubits_only() -> None:
    check = "import sys, ringfence.agent.broker.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-c", check], check=False).returncode == 0


def test_a_whole_ring_passes_at_once(broker: Running) -> None:
    address = broker.address(POOL)
    payload = os.urandom(REQUEST_BYTES - 64 - 32)
    assert broker.ask(Write(address, payload), Sync(0)) == b""
    assert broker.ask(Read(address, len(payload))) == payload


@pytest.mark.parametrize(
    "message",
    [
        b"x",
        b"x" * 7,
        struct.pack("<Q", 2) + b"x",
        b"x" * 4096,
        struct.pack("<Q", SLOTS + 2),
        b"\xff" * 8,
        struct.pack("<Q", 0),
    ],
)
def test_a_forged_crossing_ends_the_job_and_nothing_else(broker: Running, message: bytes) -> None:
    broker.ask(Sync(0))
    consumed, status, length = broker.send_raw(message)
    assert (consumed, status) == (1, 1)
    assert b"sandbox.broker_protocol" in broker.ends.reply[:length]
    assert broker.send_raw(struct.pack("<Q", 2))[1] == 1
    status, usage = broker.finish()
    assert (status, usage.commands) == (0, 1)


# Turns the ring's first commands into others, as long as it lives.
HOSTILE_WRITER = r"""
import mmap, os, random, sys
ring = mmap.mmap(int(sys.argv[1]), 0)
chosen = random.Random(7)
words = (b"\0\0\0\0", b"\2\0\0\0", b"\5\0\0\0", b"\7\0\0\0", b"\xff\xff\xff\xff")
print(flush=True)
while True:
    at = chosen.randrange(0, 4096, 4)
    ring[at : at + 4] = chosen.choice(words)
"""


@with_qubits
def test_a_worker_that_rewrites_its_batch_while_it_is_taken_harms_only_its_own_job(broker: Running) -> None:
    request = broker.ends.theirs[1]
    line = [sys.executable, "-I", "-S", "-c", HOSTILE_WRITER, str(request)]
    writer = subprocess.Popen(line, pass_fds=(request,), stdout=subprocess.PIPE)
    assert writer.stdout is not None
    try:
        with writer.stdout:
            writer.stdout.readline()
        for appended in range(0, SLOTS, 128):
            _, status, length = broker.send_raw(struct.pack("<Q", appended))
            assert status == 0 or broker.ends.reply[1 : 1 + broker.ends.reply[0]].split(b".")[0] in (
                b"gpu",
                b"quantum",
                b"sandbox",
            )
            assert length <= REPLY_BYTES
    finally:
        writer.kill()
        writer.wait(TIMEOUT_S)
    assert broker.finish()[0] == 0


@pytest.mark.parametrize("read", [True, False])
def test_a_worker_that_dies_ends_its_broker(broker: Running, read: bool) -> None:
    broker.ask(Sync(0))
    broker.send(Sync(0))
    if read:
        broker.ends.channel.recv(ANSWER_BYTES)
    else:
        assert select.select([broker.ends.channel], [], [], TIMEOUT_S)[0] == [broker.ends.channel]
    status, usage = broker.finish()
    assert (status, usage.commands) == (0, 2)


def test_a_worker_that_never_reads_stops_its_broker_and_not_for_good(broker: Running) -> None:
    message = struct.pack("<Q", 0)
    broker.ends.channel.setblocking(False)
    sent = 0
    give_up = time.monotonic() + TIMEOUT_S
    # Both directions fill up: the broker waits for room for its answer, and takes nothing more.
    while sent < 100_000 and time.monotonic() < give_up:
        try:
            sent += bool(broker.ends.channel.send(message))
        except BlockingIOError:
            time.sleep(0.05)
            try:
                broker.ends.channel.send(message)
            except BlockingIOError:
                break
    assert broker.process.poll() is None
    assert broker.finish()[0] == 0


def test_the_process_holds_nothing_it_does_not_need() -> None:
    with ExitStack() as stack, open("/dev/null", "rb") as stray:
        ends = Ends.make(stack)
        process = subprocess.Popen(ends.command_line(), pass_fds=(*ends.theirs, stray.fileno()))
        assert Running(process, ends, -1).ask(Sync(0)) == b""
        proc = Path(f"/proc/{process.pid}")
        if os.geteuid() == 0:  # an ordinary user may not look into a process that is not dumpable
            assert {int(entry.name) for entry in (proc / "fd").iterdir()} == {0, 1, 2, ends.theirs[0]}
        status = dict(text.split(":\t", 1) for text in (proc / "status").read_text().splitlines())
        assert status["NoNewPrivs"] == "1"
        assert status["Threads"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        limits = {text[:25].strip(): text[25:].split()[:2] for text in (proc / "limits").read_text().splitlines()}
        for limit in ("Max core file size", "Max file size", "Max processes", "Max open files", "Max locked memory"):
            assert limits[limit] == ["0", "0"]
        assert int(limits["Max data size"][1]) < 1 << 30
        assert int(limits["Max address space"][1]) < 20 << 30
        process.kill()
        process.wait(TIMEOUT_S)


def test_a_broker_that_cannot_have_such_a_pool_says_so_and_does_not_serve() -> None:
    with ExitStack() as stack:
        ends = Ends.make(stack)
        process = subprocess.Popen(ends.command_line(memory=1 << 31), pass_fds=ends.theirs, stderr=-1)
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"gpu.bad_argument")
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 2


def test_the_broker_dies_with_its_parent() -> None:
    with ExitStack() as stack:
        ends = Ends.make(stack)
        spawn = "import subprocess, sys, time; descriptors = tuple(map(int, sys.argv[1].split(',')))\n"
        spawn += "print(subprocess.Popen(sys.argv[2:], pass_fds=descriptors).pid, flush=True); time.sleep(60)"
        line = [sys.executable, "-I", "-c", spawn, ",".join(map(str, ends.theirs)), *ends.command_line()]
        parent = subprocess.Popen(line, pass_fds=ends.theirs, stdout=subprocess.PIPE)
        assert parent.stdout is not None
        with parent.stdout:
            broker = os.pidfd_open(int(parent.stdout.readline()))
        assert Running(parent, ends, -1).ask(Sync(0)) == b""
        # The test holds both ends of the socket, so that no end of file can be what ends the broker.
        assert select.select([broker], [], [], 0.2)[0] == []
        started = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        parent.wait(TIMEOUT_S)
        assert select.select([broker], [], [], TIMEOUT_S)[0] == [broker]
        assert time.monotonic() - started < 5
        os.close(broker)
