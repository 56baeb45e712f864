"""What the Envoy adapter adds to a request, measured with wrk through the real Envoy.

    .venv/bin/python tools/bench_hosts_envoy.py [--seconds N] [--json]

Bare and guarded requests go through one Envoy with docs/hosts/envoy/envoy.yaml, in turns, so that both see the same
machine: the path that the example exempts, and any other one. `added_p50_us` is the difference of the medians with one
connection. The gatekeeper allows everything and takes next to no time, so this is what asking costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from ringfence.plugin.hosts.port import Answer, Inbound  # noqa: E402 - behind the path of the checkout
from tests.plugin.hosts import envoy_running  # noqa: E402
from tests.plugin.hosts.envoy_certificates import Authority  # noqa: E402

CONNECTIONS = 64
ROUNDS = 5
UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6}


# Answers at once: what is measured is neither an upstream nor its connections.
MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
UPSTREAM = """\
    - name: answers
      address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/MANAGER
                stat_prefix: answers
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
                route_config:
                  virtual_hosts:
                    - {name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}
""".replace("MANAGER", MANAGER)


class AllowAll:
    """A gatekeeper that decides nothing."""

    async def decide(self, _: Inbound) -> Answer:
        return Answer(200, forward=(("x-ringfence-assertion", "signed"),))


def wrk(port: int, path: str, connections: int, seconds: float) -> tuple[float, float]:
    """The median in microseconds and the requests a second. Raises where any answer was not 200."""
    command = ["wrk", "-t", "1", "-c", str(connections), "-d", f"{max(1, round(seconds))}s", "--latency"]
    done = subprocess.run([*command, f"https://127.0.0.1:{port}{path}"], capture_output=True, text=True, check=True)
    if "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
        raise RuntimeError(f"wrk met failures:\n{done.stdout}")
    median = re.search(r"50%\s+([0-9.]+)(us|ms|s)", done.stdout)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if median is None or rate is None:
        raise RuntimeError(f"wrk printed something else:\n{done.stdout}")
    return float(median[1]) * UNITS[median[2]], float(rate[1])


def bench(duration_s: float = 30.0) -> dict[str, float]:
    """Measures for about `duration_s` seconds. Keys: medians in µs, requests a second, the plugin's CPU a request."""
    slot = duration_s / (2 * ROUNDS + 4)
    with tempfile.TemporaryDirectory(prefix="rf-bench-") as folder, _guarded(Path(folder)) as (port, plugin):
        for path in ("/healthz", "/"):
            wrk(port, path, 8, slot)
        bare, guarded = [], []
        for _ in range(ROUNDS):
            bare.append(wrk(port, "/healthz", 1, slot)[0])
            guarded.append(wrk(port, "/", 1, slot)[0])
        bare_rate = wrk(port, "/healthz", CONNECTIONS, slot)[1]
        before = _cpu_s(plugin)
        loaded, rate = wrk(port, "/", CONNECTIONS, slot)
        spent = _cpu_s(plugin) - before
        bare_p50, guarded_p50 = statistics.median(bare), statistics.median(guarded)
        return {
            "bare_p50_us": bare_p50,
            "guarded_p50_us": guarded_p50,
            "added_p50_us": guarded_p50 - bare_p50,
            "bare_per_second": bare_rate,
            "guarded_per_second": rate,
            "guarded_p50_us_at_64": loaded,
            "plugin_cpu_us_a_request": spent / (rate * max(1, round(slot))) * 1e6,
        }


def _cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _guarded(folder: Path) -> Iterator[tuple[int, int]]:
    """Envoy's port and the plugin's process, with an upstream that is a second, tiny listener of the same Envoy."""
    authority = Authority(folder)
    authority.issue("server", "localhost")
    port, upstream = envoy_running.free_port(), envoy_running.free_port()
    text = envoy_running.configuration(folder, port, upstream)
    text = text.replace("  listeners:\n", "  listeners:\n" + UPSTREAM.replace("PORT", str(upstream)), 1)
    command = [sys.executable, __file__, "--serve", str(folder / "check.sock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plugin:
        try:
            if plugin.stdout is None or plugin.stdout.readline() != "ready\n":
                raise RuntimeError("the plugin did not start")
            with envoy_running.envoy_process(folder, text):
                envoy_running.wait_for(port)
                yield port, plugin.pid
        finally:
            plugin.kill()


async def serve(socket: str) -> None:
    """The plugin process: the adapter with a gatekeeper that allows everything, until it is killed."""
    from ringfence.config import SocketPath
    from ringfence.plugin.hosts.extauthz.adapter import ExtAuthz
    from ringfence.plugin.hosts.extauthz.settings import ExtAuthzSettings

    settings = ExtAuthzSettings(SocketPath(socket), (os.getuid(),), ("upstream",))
    async with ExtAuthz(AllowAll(), settings).serve():
        print("ready", flush=True)
        await asyncio.Event().wait()


def main() -> int:
    """Prints the figures; status 0."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30.0, help="how long to measure (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--serve", metavar="SOCKET", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        import uvloop

        uvloop.run(serve(arguments.serve))
        return 0
    figures = bench(arguments.seconds)
    if arguments.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:26} {value:10.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
