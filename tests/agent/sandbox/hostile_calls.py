"""What native code in a locked-down process may try: system calls, memory, signals, files, time.

Each action gets the facts of its process: descriptors, process ids and addresses by name. It returns, raises, or does
not come back; `DENIED` are those that the system-call filter has to kill.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from collections.abc import Callable, Mapping
from typing import NoReturn

Facts = Mapping[str, int]
Action = Callable[[Facts], object]

PROT_READ, PROT_READ_WRITE, PROT_ALL = 1, 3, 7
SHARED_ANONYMOUS, PRIVATE_ANONYMOUS, GROWS_DOWN, NO_RESERVE = 0x21, 0x22, 0x100, 0x4000
PAGE = 4096
COLUMN = ("x86_64", "aarch64").index(os.uname().machine)
MMAP, MPROTECT, MREMAP = ((9, 10, 25), (222, 226, 216))[COLUMN]
X32_WRITE = 0x4000_0001

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: int) -> int:
    """The result of a system call; raises `OSError` as the wrappers of os do."""
    words = [*arguments, *[0] * (6 - len(arguments))]
    result = int(libc.syscall(*map(ctypes.c_long, (number, *words))))
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return result


def take(size: int, protection: int, flags: int) -> int:
    """The address of new memory."""
    return syscall(MMAP, 0, size, protection, flags, -1)


def touch(address: int) -> None:
    """Write one byte of memory."""
    ctypes.memset(address, 1, 1)


# name: the number on x86_64, on aarch64, arguments. A name of a fact stands for that fact.
CALLS: dict[str, tuple[int | str, ...]] = {
    "connect": (42, 203, "channel"),
    "bind": (49, 200, "channel"),
    "listen": (50, 201, "channel", 1),
    "accept4": (288, 242, "channel"),
    "sendto": (44, 206, "channel"),
    "sendmsg": (46, 211, "channel"),
    "recvmsg": (47, 212, "channel"),
    "shutdown": (48, 210, "channel", 2),
    "setsockopt": (54, 208, "channel"),
    "clone": (56, 220, signal.SIGCHLD),
    "vfork": (56, 220, 0x4000 | signal.SIGCHLD),
    "thread": (56, 220, 0x10F00),
    "clone3": (435, 435),
    "execveat": (322, 281, -1),
    "kill": (62, 129, "zygote"),
    "kill everybody": (62, 129, -1, signal.SIGKILL),
    "kill the group": (62, 129, 0, signal.SIGKILL),
    "tkill": (200, 130, "zygote"),
    "rt_sigqueueinfo": (129, 138, "zygote"),
    "pidfd_open": (434, 434, "zygote"),
    "pidfd_getfd": (438, 438, "channel"),
    "pidfd_send_signal": (424, 424, "channel", signal.SIGKILL),
    "ptrace": (101, 117, 16, "zygote"),
    "process_vm_readv": (310, 270, "zygote"),
    "process_vm_writev": (311, 271, "zygote"),
    "process_madvise": (440, 440, "channel"),
    "kcmp": (312, 272, "zygote"),
    "pkey_mprotect": (329, 288, "page", PAGE, PROT_ALL, -1),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425, 1),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "unshare": (272, 97, 0x10000000),
    "setns": (308, 268, "channel"),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "chdir": (80, 49),
    "fsopen": (430, 430),
    "open_tree": (428, 428),
    "open_by_handle_at": (304, 265),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "seccomp": (317, 277, 1),
    "setrlimit": (160, 164, resource.RLIMIT_NOFILE),
    "setuid": (105, 146),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "personality": (135, 92, 0x0040000),
    "dup": (32, 23, "result"),
    "fcntl": (72, 25, "result", 1033, 1),
    "ioctl": (16, 29, "channel"),
    "ftruncate": (77, 46, "result"),
    "fallocate": (285, 47, "progress", 3, 0, 65536),
    "pwrite64": (18, 68, "result"),
    "writev": (20, 66, "result"),
    "lseek": (8, 62, "result"),
    "fsync": (74, 82, "result"),
    "sendfile": (40, 71, "result", "input"),
    "splice": (275, 76, "result"),
    "vmsplice": (278, 75, "channel"),
    "remap_file_pages": (216, 234, "page", PAGE),
    "mlock": (149, 228, "page", PAGE),
    "mincore": (27, 232, "page", PAGE),
    "msync": (26, 227, "page", PAGE),
    "move_pages": (279, 239),
    "shmget": (29, 194, 0, PAGE, 0o1600),
    "semget": (64, 190, 0, 1, 0o1600),
    "msgget": (68, 186, 0, 0o1600),
    "mq_open": (240, 180),
    "pipe2": (293, 59, "page"),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "inotify_init1": (294, 26),
    "timer_create": (222, 107),
    "timerfd_create": (283, 85),
    "signalfd4": (289, 74, -1),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "setpriority": (141, 140),
    "nanosleep": (35, 101, "page"),
    "clock_settime": (227, 112),
    "setsid": (112, 157),
    "getdents64": (217, 61, "channel"),
    "syslog": (103, 116),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "landlock_create_ruleset": (444, 444, 0, 0, 1),
    "a number that does not exist": (4095, 4095),
    "a call of another system": (X32_WRITE, 4094, 2, "page", 1),
}


def _call(numbers_and_arguments: tuple[int | str, ...]) -> Action:
    number, arguments = numbers_and_arguments[COLUMN], numbers_and_arguments[2:]
    return lambda facts: syscall(int(number), *(facts[one] if isinstance(one, str) else one for one in arguments))


DENIED: dict[str, Action] = {
    **{name: _call(call) for name, call in CALLS.items()},
    "open": lambda _: os.open("/etc/passwd", os.O_RDONLY),
    "open its own memory": lambda _: os.open("/proc/self/mem", os.O_RDWR),
    "create": lambda _: os.open("/tmp/escaped", os.O_RDWR | os.O_CREAT),
    "unlink": lambda _: os.unlink("/tmp/escaped"),
    "socket": lambda _: socket.socket(),
    "socketpair": lambda _: socket.socketpair(),
    "fork": lambda _: os.fork(),
    "execve": lambda _: os.execv("/bin/true", ["true"]),  # noqa: S606 - what the sandbox must stop
    "close the ring": lambda facts: os.close(facts["channel"]),
    "tgkill the zygote": lambda facts: libc.tgkill(facts["zygote"], facts["zygote"], signal.SIGKILL),
    "executable mmap": lambda _: take(PAGE, PROT_ALL, PRIVATE_ANONYMOUS),
    "executable mprotect": lambda facts: libc.mprotect(ctypes.c_void_p(facts["page"]), PAGE, PROT_ALL),
    "become dumpable": lambda _: libc.prctl(4, 1, 0, 0, 0),
    "outlive the zygote": lambda _: libc.prctl(1, 0, 0, 0, 0),
    "raise a limit": lambda _: resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)),
    "no limit of memory": lambda _: resource.setrlimit(resource.RLIMIT_DATA, (-1, -1)),
    "the zygote's limits": lambda facts: resource.prlimit(facts["zygote"], resource.RLIMIT_DATA),
    "shared memory": lambda _: take(1 << 32, PROT_READ_WRITE, SHARED_ANONYMOUS),
    "a stack of its own": lambda _: take(1 << 32, PROT_READ_WRITE, PRIVATE_ANONYMOUS | GROWS_DOWN),
    "a flag in the upper half": lambda _: take(PAGE, PROT_READ_WRITE, PRIVATE_ANONYMOUS | 1 << 32),
    "map a file anew": lambda facts: syscall(MMAP, 0, PAGE, PROT_READ_WRITE, 1, facts["reply"]),
}


def _all_that_its_ceiling_allows(_: Facts) -> int:
    ceiling = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, ceiling))
    return take(2 << 30, PROT_READ_WRITE, PRIVATE_ANONYMOUS)


def _for_ever(do: Callable[[], object]) -> NoReturn:
    while True:
        do()


def _deaf(_: Facts) -> NoReturn:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    for number in (signal.SIGXCPU, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass


def _flood(descriptor: int) -> None:
    while True:
        os.write(descriptor, b"A line of the worker's last words.\n" * 400)


# What the kernel refuses, what costs the process its life in another way, and what it may do.
OTHERS: dict[str, Action] = {
    "nothing": lambda _: None,
    "a gibibyte": lambda _: bytearray(1 << 30),
    "page tables": lambda _: take(1 << 40, PROT_READ, PRIVATE_ANONYMOUS | NO_RESERVE),
    "all that its ceiling allows": _all_that_its_ceiling_allows,
    "no limit of memory": DENIED["no limit of memory"],
    "executable mmap": DENIED["executable mmap"],
    "write the input": lambda facts: os.write(facts["input"], b"another input"),
    "write the module": lambda facts: os.write(facts["compiled"], b"another module"),
    "write the reply file": lambda facts: os.write(facts["reply"], b"an answer"),
    "write the reply's memory": lambda facts: touch(facts["reply at"]),
    "unprotect the reply": lambda facts: syscall(MPROTECT, facts["reply at"], PAGE, PROT_READ_WRITE),
    "grow the result": lambda facts: _flood(facts["result"]),
    "grow its last words": lambda _: _flood(2),
    "stretch the progress page": lambda facts: touch(
        syscall(MREMAP, facts["progress at"], PAGE, 1 << 30, 1) + (1 << 30) - 1
    ),
    "unmap everything": lambda _: libc.munmap(ctypes.c_void_p(PAGE), ctypes.c_size_t((1 << 47) - 2 * PAGE)),
    "lie about its progress": lambda facts: ctypes.memset(facts["progress at"], 0xFF, 65536),
    "abort": lambda _: libc.abort(),
    "kill itself": lambda _: libc.tgkill(os.getpid(), os.getpid(), signal.SIGKILL),
    "end at once": lambda _: os._exit(0),
    "end badly": lambda _: os._exit(3),
    "end with words": lambda _: os.write(2, b"first\nno runtime \x1b here\n") and os._exit(1),
    "follow a wild pointer": lambda _: ctypes.string_at(PAGE),
    "never end": lambda _: _for_ever(lambda: None),
    "never end, deaf": _deaf,
    "never answer": lambda facts: os.read(facts["channel"], 64),
    "burn system calls": lambda _: _for_ever(lambda: os.urandom(256)),
}
