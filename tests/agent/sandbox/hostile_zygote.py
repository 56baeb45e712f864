"""A zygote whose children are native code that a guest, a module or a worker is taken to have taken over.

    python -I hostile_zygote.py [alone] [barren] [cramped] CONTROL

A guest's child does what its input says, `attack NAME`, `lie HEAD` or `twice`, locked down as a real worker is, or
`load NAME`, as one that reads compiled code; every other input is run by a real worker. A compile child does the same
for a module that is no module. A device broker whose pool is only N bytes is the Nth of hostile_broker.py. With `alone`
the kernel refuses this zygote namespaces of its own, with `barren` every child, and with `cramped` more than 24
descriptors.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import runpy
import socket
import struct
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from ringfence.agent import ring
from ringfence.agent.sandbox import exchange, progress, zygote
from ringfence.agent.sandbox.lockdown import Lockdown
from ringfence.agent.sandbox.orders import CompileOrder, DevicesOrder, GuestOrder
from ringfence.agent.sandbox.verdicts import Verdict

HERE = Path(__file__).parent
READ, READ_WRITE, SHARED, PRIVATE_ANONYMOUS = 1, 3, 1, 0x22
PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 4, 38, 22
UNSHARE, *CLONE = {"x86_64": (272, 56, 57, 58, 435), "aarch64": (97, 220, 435)}[os.uname().machine]
libc = ctypes.CDLL(None, use_errno=True)
_calls = runpy.run_path(str(HERE / "hostile_calls.py"))
BROKERS = runpy.run_path(str(HERE / "hostile_broker.py"))["BROKERS"]
ACTIONS: Mapping[str, Callable[[Mapping[str, int]], object]] = {
    **_calls["DENIED"],
    **_calls["OTHERS"],
    **runpy.run_path(str(HERE / "hostile_ring.py"))["ATTACKS"],
}


def refuse(*calls: int) -> None:
    """From now on these system calls fail in this process and its children with EAGAIN."""
    code = [(0x20, 0, 0, 0)]
    for number in calls:
        code += [(0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | errno.EAGAIN)]
    code.append((0x06, 0, 0, 0x7FFF0000))
    program = b"".join(struct.pack("<HBBI", *instruction) for instruction in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = struct.pack("@HP", len(code), ctypes.addressof(buffer))
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.prctl(PR_SET_SECCOMP, 2, filter_, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no filter")


def content(descriptor: int) -> bytes:
    """A sealed file."""
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


def stand_still() -> None:
    """Let the parent of the zygote look at this process, which is not locked down yet."""
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    time.sleep(60)


def look_around() -> bytes:
    """What this process sees before it is locked down."""
    with socket.socket() as probe:
        try:
            probe.connect(("127.0.0.1", 9))
        except OSError as error:
            connected = error.errno
    seen = {
        "pid": os.getpid(),
        "parent": os.getppid(),
        "interfaces": [name for _, name in socket.if_nameindex()],
        "connected": connected,
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }
    return json.dumps(seen).encode()


def begin_guest(real: Callable[[], zygote.Work], lockdown: Lockdown) -> zygote.Work:
    """A worker that does what its input says."""
    usual = real()
    loading, running = (lockdown.begin(may_make_code=may) for may in (True, False))

    def run_job(order: GuestOrder, files: Sequence[int]) -> None:
        given = content(files[1])
        if given.startswith(b"stand still"):
            stand_still()
        if not given.startswith((b"attack ", b"load ", b"lie ", b"twice ", b"look around")):
            usual(order, files)
            return
        result = mmap.mmap(files[2], 0)
        if given == b"look around":
            answer(result, look_around())
            return
        facts = known(files)
        lockdown.loader(
            loading,
            deadline_ms=order.deadline_ms,
            memory_bytes=order.memory_bytes,
            output_bytes=order.output_bytes,
            compiled_bytes=os.fstat(files[0]).st_size,
        )
        kind, _, rest = given.partition(b" ")
        if kind != b"load":
            lockdown.guest(running, memory_bytes=order.memory_bytes, output_bytes=order.output_bytes)
        match kind:
            case b"lie":
                result[: len(rest)] = rest
            case b"twice":
                answer(result, b"something else, and longer")
                answer(result, rest)
            case _:
                answer(result, act(rest.decode(), facts))
        # Leaving the function would close the mapped file's descriptor, which this process may not any more.
        os._exit(0)

    return run_job


def begin_compile(real: Callable[[], zygote.Work], lockdown: Lockdown) -> zygote.Work:
    """A compile child that does what its module says."""
    usual = real()
    program = lockdown.begin(may_make_code=True)

    def compile_module(order: CompileOrder, files: Sequence[int]) -> None:
        module, verdict, compiled = files
        code = content(module)
        if not code.startswith((b"attack ", b"lie ")):
            usual(order, files)
            return
        facts = {"zygote": os.getppid(), "page": page()} | dict.fromkeys(("channel", "result", "progress"), verdict)
        lockdown.compiler(program)
        kind, _, rest = code.partition(b" ")
        if kind == b"lie":
            os.write(verdict, rest)
            os.write(compiled, b"native code")
            return
        seen = act(rest.decode(), facts).decode()
        refusal = exchange.Refusal("sandbox.module_refused", seen)
        os.write(verdict, msgspec.json.encode(Verdict(None, refusal)))

    return compile_module


def begin_broker(real: Callable[[], zygote.Work]) -> zygote.Work:
    """A broker that does what its pool says."""
    usual = real()

    def serve_order(order: DevicesOrder, files: Sequence[int]) -> None:
        if order.gpu_memory_bytes >= len(BROKERS):
            usual(order, files)
            return
        channel, _, reply, report = files
        serve = list(BROKERS.values())[order.gpu_memory_bytes]
        serve(channel, mapped(ring.REPLY_BYTES, READ_WRITE, SHARED, reply), report)

    return serve_order


def act(name: str, facts: Mapping[str, int]) -> bytes:
    """Do it; what it came to, where there is somebody left to say so."""
    try:
        done = ACTIONS[name](facts)
    except (OSError, MemoryError, ValueError) as error:
        return type(error).__name__.encode()
    return done if isinstance(done, bytes) else b"survived"


def known(files: Sequence[int]) -> dict[str, int]:
    """The facts of a worker; what there is no ring for is the descriptor -1."""
    compiled, given, result, progress_file, *ringed = files
    channel, request, reply = ringed or (-1, -1, -1)
    facts = {"compiled": compiled, "input": given, "result": result, "progress": progress_file}
    facts |= {"channel": channel, "request": request, "reply": reply, "zygote": os.getppid(), "page": page()}
    facts["progress at"] = mapped(progress.PAGE_BYTES, READ_WRITE, SHARED, progress_file)
    if ringed:
        facts["request at"] = mapped(ring.REQUEST_BYTES, READ_WRITE, SHARED, request)
        facts["reply at"] = mapped(ring.REPLY_BYTES, READ, SHARED, reply)
    return facts


def page() -> int:
    """The address of a page of memory."""
    return mapped(4096, READ_WRITE, PRIVATE_ANONYMOUS, -1)


def mapped(size: int, protection: int, flags: int, descriptor: int) -> int:
    """The address of new memory, which stays."""
    libc.mmap.restype = ctypes.c_size_t
    return int(libc.mmap(None, ctypes.c_size_t(size), protection, flags, descriptor, ctypes.c_long(0)))


def answer(result: mmap.mmap, output: bytes) -> None:
    """Leave `output` as a guest's."""
    result[exchange.OUTPUT_OFFSET : exchange.OUTPUT_OFFSET + len(output)] = output
    head = exchange.encode_head(0, exchange.PHASE_RUNNING, exchange.Report(output_bytes=len(output)))
    result[: len(head)] = head


def roles() -> zygote.Roles:
    """The product's roles, replaced by hostile ones."""
    lockdown = Lockdown()
    real: dict[Any, zygote.Role] = dict(zygote.roles())
    return real | {
        GuestOrder: zygote.Role(partial(begin_guest, real[GuestOrder].begin, lockdown), standby=True),
        CompileOrder: zygote.Role(partial(begin_compile, real[CompileOrder].begin, lockdown)),
        DevicesOrder: zygote.Role(partial(begin_broker, real[DevicesOrder].begin), standby=True),
    }


def barren() -> zygote.Roles:
    """Roles of which no child can be had."""
    made = roles()
    refuse(*CLONE)
    return made


if __name__ == "__main__":
    if "cramped" in sys.argv[1:-1]:
        resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))
    if "alone" in sys.argv[1:-1]:
        refuse(UNSHARE)
    zygote.main(sys.argv[-1:], barren if "barren" in sys.argv[1:-1] else roles)
    os._exit(0)
