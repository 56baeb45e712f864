"""What each host adapter adds to a gateway, beside the bare gateway in the same run.

    .venv/bin/python -m tools.bench_hosts [--seconds N] [--json] [HOST ...]

Every host is measured twice, in turns: as it is, and with the adapter and a gatekeeper that allows at once, so that the
difference is the adapter's and the host's own, and no decision's. nginx and HAProxy run with the example
configurations of docs/hosts under wrk on one connection, for the time a request takes, and on 64, for how many there
are a second. Envoy is measured by bench_hosts_envoy.py. ASGI is called in this process. Needs nginx, haproxy, wrk and
Envoy (`make setup`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from ringfence.config import SocketPath
from ringfence.plugin.hosts.asgi import RingfenceMiddleware
from ringfence.plugin.hosts.forwardauth import service as forwardauth
from ringfence.plugin.hosts.port import ASSERTION, Answer, Inbound
from ringfence.plugin.hosts.spoe import agent as spoe
from ringfence.plugin.hosts.unix_peers import PeerSocket

EXAMPLES: Final = Path(__file__).resolve().parent.parent / "docs" / "hosts"
PORTS: Final = {"nginx": 18081, "haproxy": 18082}
TOKEN: Final = "t" * 600
"""As long as an assertion is."""

FIELDS: Final = (
    "Content-Digest: sha-256=:3cdoUjzsuFRtSZicX9heI/HXQWKabc9DRrO0tTrlmsc=:",
    'Signature-Input: ringfence=("@method" "@authority" "@path" "@query" "content-digest");created=1790000000;'
    'expires=1790000060;nonce="3q2-7wABAgMEBQYHCAkKCwwN";keyid="26c19d71339cc53b7a3f993c3895f32d";alg="hmac-sha256"',
    "Signature: ringfence=:es69cJjplbmwQCCiLEyKOfEDBDe1vcR4eyan45yPxXs=:",
)


class Allowing:
    """A gatekeeper that decides nothing."""

    async def decide(self, inbound: Inbound) -> Answer:
        return Answer(200, forward=((ASSERTION, TOKEN),), decision_id=inbound.upstream)


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one host: p50 in µs and requests a second, bare and with the adapter; `added_p50_us` between them."""

    host: str
    bare_p50_us: float
    p50_us: float
    added_p50_us: float
    bare_per_second: float
    per_second: float


def bench(host: str, duration: float) -> Figures:
    """Measures one host for about `duration` seconds, half of them bare."""
    if host == "asgi":
        return _asgi(duration)
    if host == "envoy":
        return _envoy(duration)
    return _real(host, duration)


def _envoy(duration: float) -> Figures:
    # It imports what the tests of Envoy share, which the other hosts can do without.
    from tools.bench_hosts_envoy import bench as bench_envoy

    found = bench_envoy(duration)
    return _figures(
        "envoy",
        [found["bare_p50_us"]],
        [found["guarded_p50_us"]],
        [found["bare_per_second"]],
        [found["guarded_per_second"]],
    )


def _asgi(duration: float) -> Figures:
    """The middleware against a call of the same gatekeeper; "bare" is that call and the application's."""

    async def app(_scope: Any, _receive: Any, _send: Any) -> None:
        return

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(_message: Any) -> None:
        return

    fields = [one.split(": ", 1) for one in (*FIELDS, "Accept: */*", "User-Agent: bench", "Content-Length: 0")]
    headers = [(b"host", b"h.test"), *((name.lower().encode(), value.encode()) for name, value in fields)]
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "POST",
        "path": "/v1/items/17",
        "raw_path": b"/v1/items/17",
        "query_string": b"fields=all",
        "headers": headers,
        "client": ("192.0.2.1", 1234),
    }
    gatekeeper = Allowing()
    guarded = RingfenceMiddleware(app, gatekeeper, upstream="service")
    inbound: Any = type("Shown", (), {"upstream": "service"})()

    async def call() -> None:
        await gatekeeper.decide(inbound)
        await app(scope, receive, send)

    async def whole() -> None:
        await guarded(scope, receive, send)

    async def measure() -> tuple[list[int], list[int]]:
        bare: list[int] = []
        with_adapter: list[int] = []
        until = time.monotonic() + duration
        while time.monotonic() < until:
            for work, times in ((call, bare), (whole, with_adapter)):
                for _ in range(200):
                    began = time.perf_counter_ns()
                    await work()
                    times.append(time.perf_counter_ns() - began)
        return bare, with_adapter

    bare, with_adapter = uvloop.run(measure())
    return _figures(
        "asgi",
        [statistics.median(bare) / 1000],
        [statistics.median(with_adapter) / 1000],
        [1e9 / statistics.mean(bare)],
        [1e9 / statistics.mean(with_adapter)],
    )


def _real(host: str, duration: float) -> Figures:
    with tempfile.TemporaryDirectory(prefix="rf-bench-") as made:
        folder = Path(made)
        port, bare_port = PORTS[host], PORTS[host] + 100
        command = _configure(host, folder, port, bare_port)
        with _serving(host, folder), _program(command, folder):
            each = duration / 12
            rounds: dict[tuple[int, int], list[tuple[float, float]]] = {}
            for _ in range(3):
                for connections in (1, 64):
                    for one in (bare_port, port):
                        rounds.setdefault((one, connections), []).append(_wrk(one, connections, each))
    return _figures(
        host,
        [p50 for p50, _ in rounds[bare_port, 1]],
        [p50 for p50, _ in rounds[port, 1]],
        [rate for _, rate in rounds[bare_port, 64]],
        [rate for _, rate in rounds[port, 64]],
    )


def _figures(host: str, bare: list[float], p50: list[float], bare_rate: list[float], rate: list[float]) -> Figures:
    one, other = statistics.median(bare), statistics.median(p50)
    return Figures(
        host,
        round(one, 1),
        round(other, 1),
        round(other - one, 1),
        round(statistics.median(bare_rate)),
        round(statistics.median(rate)),
    )


def _wrk(port: int, connections: int, seconds: float) -> tuple[float, float]:
    """The p50 in microseconds and the requests a second; a refused request is a failure of the benchmark."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency"]
    command += [part for one in FIELDS for part in ("-H", one)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}/v1/items/17?fields=all"], capture_output=True, text=True, check=True
    )
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"bench-hosts: the host on port {port} refused requests:\n{done.stdout}")
    found = re.search(r"50%\s+([0-9.]+)(us|ms|s)", done.stdout)
    rate = re.search(r"Requests/sec:\s+([0-9.]+)", done.stdout)
    if found is None or rate is None:
        raise SystemExit(f"bench-hosts: wrk printed something else:\n{done.stdout}")
    return float(found[1]) * {"us": 1, "ms": 1e3, "s": 1e6}[found[2]], float(rate[1])


def _configure(host: str, folder: Path, port: int, bare_port: int) -> list[str]:
    """The command of a host by its example configuration, beside a bare listener on `bare_port`."""
    root = os.geteuid() == 0
    if host == "nginx":
        text = (EXAMPLES / "nginx" / "nginx.conf").read_text(encoding="utf-8")
        bare = f"    server {{ listen 127.0.0.1:{bare_port}; location / {{ proxy_pass http://service; "
        bare += 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host; } }\n'
        bare += "    server { listen 127.0.0.1:18080; location / { return 200 ok; } }\n"
        changes = {
            "user www-data;": "user root;" if root else "",
            "worker_processes auto": "worker_processes 1",
            "/run/nginx.pid": f"{folder}/nginx.pid",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            "127.0.0.1:8081": f"127.0.0.1:{port}",
            "127.0.0.1:8080": "127.0.0.1:18080",
            "/run/ringfence/forward-auth.sock": f"{folder}/s",
            "        listen 443 ssl;\n": "",
            "        ssl_certificate /etc/nginx/tls/server.pem;\n": "",
            "        ssl_certificate_key /etc/nginx/tls/server.key;\n": "",
            "    upstream ringfence {": f"{bare}    upstream ringfence {{",
        }
        name = "nginx.conf"
        command = ["nginx", "-p", str(folder), "-c", str(folder / name), "-g", "daemon off;", "-e", "stderr"]
    else:
        text = (EXAMPLES / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
        changes = {
            "    user haproxy ": "    user root " if root else "    # ",
            "    group haproxy\n": "    group root\n    nbthread 1\n" if root else "    nbthread 1\n",
            "/run/haproxy/admin.sock": f"{folder}/admin.sock",
            "127.0.0.1:8081": f"127.0.0.1:{port}",
            "127.0.0.1:8080": "127.0.0.1:18080",
            "/run/ringfence/spoe.sock": f"{folder}/s",
            "/etc/haproxy/ringfence.conf": f"{EXAMPLES}/haproxy/ringfence.conf",
            "\nbackend service\n": f"\nfrontend bare\n    bind 127.0.0.1:{bare_port}\n    default_backend service\n"
            "frontend answering\n    bind 127.0.0.1:18080\n    http-request return status 200 content-type text/plain "
            "string ok\n\nbackend service\n",
        }
        text = "".join(line for line in text.splitlines(keepends=True) if "bind :443" not in line)
        name = "haproxy.cfg"
        command = ["haproxy", "-f", str(folder / name)]
    for example, here in changes.items():
        if example not in text:
            raise SystemExit(f"bench-hosts: the example configuration has no {example!r}")
        text = text.replace(example, here)
    (folder / name).write_text(text, encoding="utf-8")
    return command


@contextmanager
def _serving(host: str, folder: Path) -> Iterator[None]:
    """The adapter on a loop of its own thread."""
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    socket = PeerSocket(SocketPath(folder / "s"))

    async def start() -> asyncio.Server:
        if host == "nginx":
            settings = forwardauth.ForwardAuthSettings(socket)
            return await forwardauth.serve(settings, forwardauth.ForwardAuth(Allowing(), settings).handle)
        return await spoe.serve(spoe.SpoeSettings(socket), Allowing())

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=10)
    try:
        yield
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=5)


@contextmanager
def _program(command: list[str], folder: Path) -> Iterator[None]:
    found = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if found is None:
        raise SystemExit(f"bench-hosts: {command[0]} is not installed. Run `make setup` first.")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([found, *command[1:]], stdout=log, stderr=log)
    try:
        time.sleep(1)
        if process.poll() is not None:
            raise SystemExit(f"bench-hosts: {command[0]} ended:\n{(folder / 'log').read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(timeout=10)


def main() -> int:
    """Prints the figures of the hosts named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("hosts", nargs="*", metavar="HOST", help="asgi, envoy, haproxy, nginx (default: all)")
    parser.add_argument("--seconds", type=float, default=24, help="for each host (%(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    known = ("asgi", "envoy", "haproxy", "nginx")
    unknown = [host for host in arguments.hosts if host not in known]
    if unknown:
        parser.error(f"no host is called {', '.join(unknown)}; known: {', '.join(known)}")
    figures = [bench(host, arguments.seconds) for host in arguments.hosts or known]
    if arguments.json:
        print(json.dumps([asdict(one) for one in figures]))
        return 0
    print(f"{'host':8} {'bare p50':>10} {'p50':>10} {'added':>10} {'bare/s':>9} {'with/s':>9}")
    for one in figures:
        print(
            f"{one.host:8} {one.bare_p50_us:>7} µs {one.p50_us:>7} µs {one.added_p50_us:>7} µs "
            f"{one.bare_per_second:>9.0f} {one.per_second:>9.0f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
