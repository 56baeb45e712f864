"""The programs that stand in front of an upstream, each by the example configuration of its page."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.plugin.hosts.hosts_scene import EXAMPLES


@dataclass(frozen=True)
class Places:
    """Where a program works: its folder, the ports it listens on, its upstream's port, and the plugin's socket."""

    folder: Path
    port: int
    tls_port: int
    upstream: int
    socket: Path


def nginx(places: Places) -> list[str]:
    """The command of nginx; its configuration is in the folder."""
    folder = places.folder
    changes = {
        "user www-data;": "user root;" if os.geteuid() == 0 else "",
        "/run/nginx.pid": f"{folder}/nginx.pid",
        "/var/log/nginx/error.log": f"{folder}/error.log",
        "listen 443 ssl": f"listen 127.0.0.1:{places.tls_port} ssl",
        "127.0.0.1:8081": f"127.0.0.1:{places.port}",
        "127.0.0.1:8080": f"127.0.0.1:{places.upstream}",
        "/run/ringfence/forward-auth.sock": str(places.socket),
        "/etc/nginx/tls/server.pem": f"{folder}/server.pem",
        "/etc/nginx/tls/server.key": f"{folder}/server.key",
        "worker_processes auto": "worker_processes 2",
    }
    path = _written("nginx/nginx.conf", changes, folder)
    return ["nginx", "-p", str(folder), "-c", str(path), "-g", "daemon off;", "-e", "stderr"]


def haproxy(places: Places) -> list[str]:
    """The command of HAProxy; its configuration is in the folder."""
    folder = places.folder
    server = (folder / "server.pem").read_bytes() + (folder / "server.key").read_bytes()
    (folder / "haproxy.pem").write_bytes(server)
    root = os.geteuid() == 0
    changes = {
        "    user haproxy ": "    user root " if root else "    # ",
        "    group haproxy\n": "    group root\n" if root else "",
        "/run/haproxy/admin.sock": f"{folder}/admin.sock",
        "bind :443": f"bind 127.0.0.1:{places.tls_port}",
        "127.0.0.1:8081": f"127.0.0.1:{places.port}",
        "127.0.0.1:8080": f"127.0.0.1:{places.upstream}",
        "/run/ringfence/spoe.sock": str(places.socket),
        "/etc/haproxy/tls/server.pem": f"{folder}/haproxy.pem",
        "/etc/haproxy/tls/clients.pem": f"{folder}/client.pem",
        "/etc/haproxy/ringfence.conf": f"{EXAMPLES}/haproxy/ringfence.conf",
    }
    return ["haproxy", "-W", "-f", str(_written("haproxy/haproxy.cfg", changes, folder))]


def caddy(places: Places) -> list[str]:
    """The command of Caddy; its configuration is in the folder."""
    folder = places.folder
    changes = {
        "/run/caddy/admin.sock": f"{folder}/admin.sock",
        ":443 {": f":{places.tls_port} {{\n\tbind 127.0.0.1",
        "http://:8081": f"http://:{places.port}",
        "127.0.0.1:8080": f"127.0.0.1:{places.upstream}",
        "/run/ringfence/forward-auth.sock": str(places.socket),
        "/etc/caddy/tls/server.pem": f"{folder}/server.pem",
        "/etc/caddy/tls/server.key": f"{folder}/server.key",
    }
    path = _written("caddy/Caddyfile", changes, folder)
    return ["env", f"HOME={folder}", "caddy", "run", "--config", str(path), "--adapter", "caddyfile"]


def _written(example: str, changes: Mapping[str, str], folder: Path) -> Path:
    text = (EXAMPLES / example).read_text(encoding="utf-8")
    for there, here in changes.items():
        assert text.count(there) == 1, there
        text = text.replace(there, here)
    path = folder / Path(example).name
    path.write_text(text, encoding="utf-8")
    return path
