"""The device broker as a program of its own.

    python -m ringfence.agent.broker --fd N --request-fd N --reply-fd N --gpu-memory BYTES --qubits N [--report-fd N]

It serves one job over descriptors that it inherits and exits with 0 when the job's worker closes its end; see
`ringfence.agent.broker.process.serve_job`.
"""

from __future__ import annotations

import argparse
import os

from ringfence.agent.broker.process import prepare, serve_job
from ringfence.agent.gpu.devices import BUILT_IN


def main() -> int:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m ringfence.agent.broker", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="the broker's end of the job's socket pair")
    parser.add_argument("--request-fd", type=int, required=True, help="the ring's request file")
    parser.add_argument("--reply-fd", type=int, required=True, help="the ring's reply file")
    parser.add_argument("--gpu-memory", type=int, required=True, help="bytes of device memory the job may allocate")
    parser.add_argument("--qubits", type=int, required=True, help="qubits of the job; 0 refuses every quantum command")
    parser.add_argument("--report-fd", type=int, help="the file in which to count what the job does")
    parser.add_argument("--gpu", choices=sorted(BUILT_IN), default="cpu", help="the GPU adapter (default: cpu)")
    arguments = parser.parse_args()
    return serve_job(
        prepare(arguments.gpu, quantum=arguments.qubits > 0),
        channel=arguments.fd,
        request=arguments.request_fd,
        reply=arguments.reply_fd,
        gpu_memory=arguments.gpu_memory,
        qubits=arguments.qubits,
        report=arguments.report_fd,
    )


if __name__ == "__main__":
    # The interpreter's own way out makes system calls that a broker has given up.
    os._exit(main())
