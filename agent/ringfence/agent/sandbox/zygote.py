"""The zygote: a warm process without secrets that becomes, forked, every process that works on a guest's bytes.

    python -I -m ringfence.agent.sandbox.zygote CONTROL

CONTROL is its end of a packet socket to the agent. It is executed before the agent opens a key, a socket or a log, so
nothing of those is in its memory or its children's. It runs no guest, reads no module and has one thread. When the
agent closes its end or dies, the zygote ends, and the kernel kills its children with it.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NoReturn

from ringfence.agent.confine import groups, kernel, namespaces
from ringfence.agent.sandbox import orders
from ringfence.agent.sandbox.orders import CompileOrder, DevicesOrder, Ended, GuestOrder, NotStarted, Order, Started

QUIET_MS: Final = 5
STACK_BYTES: Final = 8 * 1024 * 1024

# What a forked child does with its order and the order's descriptors; it ends when the function returns.
Work = Callable[[Any, Sequence[int]], None]


@dataclass(frozen=True, slots=True)
class Role:
    """One kind of child. `begin` is what it does before it knows its job, and gives what it does then.

    With `standby` one that has begun, and has done `rehearse`, is kept waiting, so that a job need not wait for its
    fork. It has seen no job, and it works for one only.
    """

    begin: Callable[[], Work]
    standby: bool = False
    rehearse: Callable[[], None] = lambda: None


Roles = Mapping[type[Order], Role]


@dataclass(frozen=True, slots=True)
class _Standby:
    pid: int
    pidfd: int
    socket: socket.socket


class Zygote:
    """Forks children on order and reports their ends."""

    def __init__(self, control: socket.socket, roles: Roles) -> None:
        self._control = control
        self._roles = roles
        self._children: dict[int, tuple[int, int]] = {}
        self._waiting: dict[type[Order], _Standby] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self) -> None:
        """Until the agent's end is closed."""
        self._refill()
        while True:
            # A new standby is made when there is nothing else to do: beside a job it would take the job's time.
            ready = self._poll.poll(QUIET_MS if self._missing() else None)
            if not ready:
                self._refill()
            for descriptor, _ in ready:
                if descriptor in self._children:
                    self._reap(descriptor)
                elif not self._take():
                    return

    def _take(self) -> bool:
        """Do one order; False when there will be no more."""
        packet, descriptors, _, _ = socket.recv_fds(self._control, orders.MAX_PACKET, orders.MAX_DESCRIPTORS)
        if not packet:
            return False
        order = orders.decode_order(packet)
        kind = type(order)
        try:
            child = self._hand_over(kind, packet, descriptors)
        except OSError as error:
            self._control.send(orders.encode(NotStarted(order.child, error.errno or 0)))
        else:
            self._announce(order.child, child)
        for descriptor in descriptors:
            os.close(descriptor)
        return True

    def _announce(self, number: int, child: _Standby) -> None:
        """Gives the agent the means to kill a child; one that it could not kill is none that started."""
        try:
            socket.send_fds(self._control, [orders.encode(Started(number))], [child.pidfd])
        except ConnectionError:
            raise
        except OSError as error:
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            os.close(child.pidfd)
            self._control.send(orders.encode(NotStarted(number, error.errno or 0)))
            return
        self._children[child.pidfd] = (number, child.pid)
        self._poll.register(child.pidfd, select.POLLIN)

    def _hand_over(self, kind: type[Order], packet: bytes, descriptors: list[int]) -> _Standby:
        """Gives an order to a child that waits, or to a new one; raises `OSError` where there can be none."""
        child = self._waiting.pop(kind, None)
        while True:
            fresh = child is None
            child = child or self._fork(kind)
            try:
                with child.socket:
                    socket.send_fds(child.socket, [packet], descriptors)
            except OSError:
                # One that has waited long may have been killed by whoever looks for memory.
                os.waitpid(child.pid, 0)
                os.close(child.pidfd)
                child = None
                if fresh:
                    raise
            else:
                return child

    def _missing(self) -> list[type[Order]]:
        """The kinds of which a child should stand by, and none does."""
        return [kind for kind, role in self._roles.items() if role.standby and kind not in self._waiting]

    def _refill(self) -> None:
        for kind in self._missing():
            # Without one the next job waits for its fork, or is refused then.
            with suppress(OSError):
                self._waiting[kind] = self._fork(kind, ahead=True)

    def _fork(self, kind: type[Order], *, ahead: bool = False) -> _Standby:
        """A child of a role that waits for its order at the other end of a socket; `ahead` of any."""
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with its:
            try:
                pid = os.fork()
            except OSError:
                mine.close()
                raise
            if pid == 0:
                _live(its.detach(), self._roles[kind], ahead=ahead)
        try:
            return _Standby(pid, os.pidfd_open(pid), mine)
        except OSError:
            # Without an order it ends.
            mine.close()
            os.waitpid(pid, 0)
            raise

    def _reap(self, pidfd: int) -> None:
        child, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, used = os.wait4(pid, 0)
        cpu_ms = (used.ru_utime + used.ru_stime) * 1000
        self._control.send(orders.encode(Ended(child, os.waitstatus_to_exitcode(status), cpu_ms)))


def _live(order_end: int, role: Role, *, ahead: bool) -> NoReturn:
    """The whole life of a child: begin, wait for the order, do it, end."""
    status = 1
    try:
        kernel.rename("rf-standby")
        kernel.close_all_but({0, 1, 2, order_end})
        work = role.begin()
        if ahead:
            role.rehearse()
        with socket.socket(fileno=order_end) as waiting:
            packet, descriptors, _, _ = socket.recv_fds(waiting, orders.MAX_PACKET, orders.MAX_DESCRIPTORS)
        if packet:
            order = orders.decode_order(packet)
            kernel.rename(f"rf-{order.__struct_config__.tag}")
            diagnostics = descriptors.pop()
            os.dup2(diagnostics, 2)
            os.close(diagnostics)
            if order.grouped:
                door = descriptors.pop()
                groups.enter(door)
                os.close(door)
            work(order, descriptors)
        status = 0
    except BaseException as error:  # noqa: BLE001 - nothing may come back into the zygote's loop
        _say_why(error)
    finally:
        os._exit(status)


def _say_why(error: BaseException) -> None:
    """The last words of a child. A traceback would open the program's text, and a locked-down child die of that."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    what = "".join(traceback.format_exception_only(error)).rstrip()
    # The caller reads it, and is not told where this host keeps its programs.
    print(f"{what} ({os.path.basename(frame.f_code.co_filename)}:{line})", file=sys.stderr, flush=True)


def _own_bytes() -> int:
    """Resident memory of this process that is in no file (statm, proc(5)), which a child shares until it writes it."""
    with open("/proc/self/statm", encoding="ascii") as file:
        _, resident, shared, *_ = map(int, file.read().split())
    return (resident - shared) * os.sysconf("SC_PAGESIZE")


def main(arguments: Sequence[str], roles: Callable[[], Roles]) -> None:
    """Isolate this process, make what `roles` needs, give up what no child may have, and serve."""
    kernel.die_with_parent(os.getppid())
    # A service manager tells every process of the service to stop. The agent lets its jobs end first, and this ends
    # with the agent.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # The one memory of a process that no other limit counts.
    kernel.set_limit(resource.RLIMIT_STACK, STACK_BYTES)
    control = socket.socket(fileno=int(arguments[0]))
    isolated = namespaces.enter(frozenset({control.fileno()}))
    kernel.rename("rf-zygote")
    made = roles()
    gc.collect()
    gc.freeze()
    gc.disable()
    own_bytes = _own_bytes()
    kernel.give_up_privileges()
    kernel.deny_files()
    # The agent has gone: so does this process, and the kernel kills its children.
    with suppress(ConnectionError):
        control.send(orders.encode(orders.Ready(isolated, own_bytes)))
        Zygote(control, made).serve()


def roles() -> Roles:
    """The roles of the product, each over what it keeps warm."""
    from ringfence.agent.broker import process as broker
    from ringfence.agent.sandbox import compiling, worker
    from ringfence.agent.sandbox.lockdown import Lockdown

    lockdown = Lockdown()
    compiler, warm, devices = compiling.prepare(lockdown), worker.prepare(lockdown), broker.prepare()
    return {
        CompileOrder: Role(partial(compiling.begin, compiler)),
        GuestOrder: Role(partial(worker.begin, warm), standby=True, rehearse=partial(worker.rehearse, warm)),
        DevicesOrder: Role(partial(broker.begin, devices), standby=True),
    }


if __name__ == "__main__":
    main(sys.argv[1:], roles)
    os._exit(0)
