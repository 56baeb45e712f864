"""The broker as a process: end to end over its socket, locked down, and gone with its parent."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from ringfence.agent.ring import (
    MAX_FRAME,
    Alloc,
    Checkpoint,
    Command,
    Gate,
    Launch,
    Measure,
    Read,
    Reply,
    Sync,
    Write,
    decode_reply,
    encode,
    frame,
    frame_length,
)

POOL = 1 << 20
TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Running:
    """A broker process with the worker's end of its socket and the read end of its report pipe."""

    process: subprocess.Popen[bytes]
    channel: socket.socket
    report: int

    def ask(self, *commands: Command) -> Reply:
        return self.ask_raw(frame(b"".join(map(encode, commands))))

    def ask_raw(self, data: bytes) -> Reply:
        self.channel.sendall(data)
        return decode_reply(self._receive(frame_length(self._receive(4))))

    def finish(self) -> tuple[int, dict[str, int]]:
        """Close the job's socket; the exit status and the usage that was reported."""
        self.channel.close()
        status = self.process.wait(TIMEOUT_S)
        return status, json.loads(os.read(self.report, 4096))

    def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.channel.recv(count - len(data)) or pytest.fail("the broker closed its socket")
        return data


def command_line(descriptor: int, *, qubits: int = 0, memory: int = POOL) -> list[str]:
    arguments = ["--fd", str(descriptor), "--gpu-memory", str(memory), "--qubits", str(qubits)]
    return [sys.executable, "-I", "-m", "ringfence.agent.broker", *arguments]


def start(qubits: int) -> Running:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT_S)
    read_end, write_end = os.pipe()
    with theirs:
        process = subprocess.Popen(
            [*command_line(theirs.fileno(), qubits=qubits), "--report-fd", str(write_end)],
            pass_fds=(theirs.fileno(), write_end),
        )
    os.close(write_end)
    return Running(process, ours, read_end)


@pytest.fixture(params=[0])
def broker(request: pytest.FixtureRequest) -> Iterator[Running]:
    running = start(request.param)
    yield running
    running.channel.close()
    running.process.kill()
    running.process.wait(TIMEOUT_S)
    os.close(running.report)


with_qubits = pytest.mark.parametrize("broker", [3], indirect=True)


@with_qubits
def test_a_job_runs_and_its_usage_is_reported(broker: Running) -> None:
    address = int.from_bytes(broker.ask(Alloc(8 * 64)).payload, "little")
    values = b"".join(number.to_bytes(8, "little") for number in range(64))
    launch = Launch("square_i64", 1, 64, (address, address, 64))
    reply = broker.ask(Write(address, values), launch, Read(address, 8 * 64))
    assert reply.payload == b"".join((number**2).to_bytes(8, "little") for number in range(64))
    assert broker.ask(Gate(3, 0, 0.0), Gate(3, 0, 0.0), Gate(0, 2, 0.0), Measure(0, 0)).payload == b"\x00"
    assert broker.ask(Measure(2, 0)).payload == b"\x01"
    assert broker.finish() == (
        0,
        {"commands": 9, "launches": 1, "gates": 3, "measurements": 2, "checkpoints": 0, "peak_gpu_bytes": 512},
    )


def test_a_fault_is_answered_again_and_again_and_the_job_still_ends_well(broker: Running) -> None:
    address = int.from_bytes(broker.ask(Alloc(8)).payload, "little")
    first = broker.ask(Launch("square_i64", 1024, 1024, (address, address, 2**32 - 1)), Sync(0))
    assert first.code == "gpu.fault"
    assert broker.ask(Read(address, 8)) == first
    assert broker.finish()[0] == 0


def test_a_job_without_qubits_is_told_so(broker: Running) -> None:
    assert broker.ask(Measure(0, 0)).code == "quantum.disabled"


def test_a_broker_loads_numpy_for_jobs_with_qubits_only() -> None:
    check = "import sys, ringfence.agent.broker.__main__; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-I", "-c", check], check=False).returncode == 0


def test_the_largest_frame_passes(broker: Running) -> None:
    assert broker.ask_raw(frame(b"\xff" * MAX_FRAME)).code == "sandbox.broker_protocol"


def test_a_frame_that_announces_too_much_ends_the_job(broker: Running) -> None:
    assert broker.ask_raw((MAX_FRAME + 1).to_bytes(4, "little")).code == "sandbox.broker_protocol"
    assert broker.channel.recv(1) == b""
    assert broker.finish()[0] == 0


CUT = frame(encode(Checkpoint(1)) + encode(Checkpoint(2)))[:-5]  # its first command is whole


@pytest.mark.parametrize("sent", [b"", b"\x01\x00", CUT])
def test_a_worker_that_dies_ends_its_broker_and_a_batch_cut_short_is_not_executed(broker: Running, sent: bytes) -> None:
    broker.ask(Sync(0))
    broker.channel.sendall(sent)
    status, usage = broker.finish()
    assert (status, usage["commands"]) == (0, 1)


def test_a_worker_that_leaves_its_reply_unread_ends_its_broker(broker: Running) -> None:
    broker.channel.sendall(frame(encode(Sync(0))))
    assert select.select([broker.channel], [], [], TIMEOUT_S)[0] == [broker.channel]
    assert broker.finish()[0] == 0


def test_a_worker_that_dies_before_it_reads_its_reply_ends_its_broker(broker: Running) -> None:
    address = int.from_bytes(broker.ask(Alloc(POOL)).payload, "little")
    broker.channel.sendall(frame(encode(Read(address, POOL))))
    assert broker.finish()[0] == 0


def test_the_process_holds_nothing_it_does_not_need() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, open("/dev/null", "rb") as stray:
        line = command_line(theirs.fileno())
        process = subprocess.Popen(line, pass_fds=(theirs.fileno(), stray.fileno()))
        ours.sendall(frame(encode(Sync(0))))
        ours.settimeout(TIMEOUT_S)
        assert ours.recv(5) == frame(b"\x00")
        proc = Path(f"/proc/{process.pid}")
        if os.geteuid() == 0:  # an ordinary user may not look into a process that is not dumpable
            assert {int(entry.name) for entry in (proc / "fd").iterdir()} == {0, 1, 2, theirs.fileno()}
        status = dict(text.split(":\t", 1) for text in (proc / "status").read_text().splitlines())
        assert status["NoNewPrivs"] == "1"
        assert status["Threads"] == "1"
        assert status["Seccomp"] == "2"
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        limits = {text[:25].strip(): text[25:].split()[:2] for text in (proc / "limits").read_text().splitlines()}
        for limit in ("Max core file size", "Max file size", "Max processes", "Max open files", "Max locked memory"):
            assert limits[limit] == ["0", "0"]
        assert int(limits["Max data size"][1]) < 1 << 30
        assert int(limits["Max address space"][1]) < 6 << 30
        process.kill()
        process.wait(TIMEOUT_S)


def test_a_broker_that_cannot_have_such_a_pool_says_so_and_does_not_serve() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            command_line(theirs.fileno(), memory=1 << 31), pass_fds=(theirs.fileno(),), stderr=-1
        )
        assert process.stderr is not None
        assert process.stderr.read().startswith(b"gpu.bad_argument")
        process.stderr.close()
        assert process.wait(TIMEOUT_S) == 2


def test_the_broker_dies_with_its_parent() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(TIMEOUT_S)
    with ours, theirs:
        spawn = "import subprocess, sys, time; descriptor = int(sys.argv[1])\n"
        spawn += "print(subprocess.Popen(sys.argv[2:], pass_fds=(descriptor,)).pid, flush=True); time.sleep(60)"
        line = [sys.executable, "-I", "-c", spawn, str(theirs.fileno()), *command_line(theirs.fileno())]
        parent = subprocess.Popen(line, pass_fds=(theirs.fileno(),), stdout=subprocess.PIPE)
        assert parent.stdout is not None
        with parent.stdout:
            broker = os.pidfd_open(int(parent.stdout.readline()))
        ours.sendall(frame(encode(Sync(0))))
        assert ours.recv(5) == frame(b"\x00")
        # The test holds both ends of the socket, so that no end of file can be what ends the broker.
        assert select.select([broker], [], [], 0.2)[0] == []
        started = time.monotonic()
        parent.send_signal(signal.SIGKILL)
        parent.wait(TIMEOUT_S)
        assert select.select([broker], [], [], TIMEOUT_S)[0] == [broker]
        assert time.monotonic() - started < 5
        os.close(broker)
