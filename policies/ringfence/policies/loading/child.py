"""The child that reads one bundle: `python -I -m ringfence.policies.loading.child MEMORY_BYTES CPU_SECONDS`.

It reads an `Order` from standard input and writes an `Answer` to standard output. Before it looks at the first byte it
gives up what text that takes it over could use: memory and time beyond its limits, every file, and a larger answer.
"""

from __future__ import annotations

import os
import resource
import sys
from collections import deque
from typing import Final

import msgspec

from ringfence.policies.assembly import read_manifest
from ringfence.policies.compiled.compiling import compile_bundle
from ringfence.policies.compiled.rules import RULES
from ringfence.policies.engine import CedarDecider
from ringfence.policies.errors import PolicyError
from ringfence.policies.folder import assemble_with
from ringfence.policies.loading.messages import MAX_ANSWER_BYTES, MAX_ORDER_BYTES, Answer, Checked, Order, Refused

NICER: Final = 19
"""How much nicer it is than the process that decides: reading a bundle can wait, a request cannot."""


def main() -> int:
    """Reads one order and answers it."""
    memory_bytes, cpu_s = map(int, sys.argv[1:])
    os.nice(NICER)
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_FSIZE: MAX_ANSWER_BYTES,
        resource.RLIMIT_NOFILE: 0,
        resource.RLIMIT_CORE: 0,
    }
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))
    order = msgspec.msgpack.decode(sys.stdin.buffer.read(MAX_ORDER_BYTES + 1), type=Order)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(order)))
    return 0


def answer(order: Order) -> Answer:
    """Checks a bundle as `assemble` does, and then makes of it all that the parent will make of it."""
    try:
        bundle = assemble_with(order.files, order.shipped)
        CedarDecider(bundle)
        deque(compile_bundle(bundle, RULES), maxlen=0)
    except PolicyError as error:
        return Refused.of(error)
    return Checked.of(bundle, read_manifest(order.files).bases)


if __name__ == "__main__":
    sys.exit(main())
