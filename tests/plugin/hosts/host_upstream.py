"""An upstream that records each request exactly as it arrived, byte for byte, and answers 200."""

from __future__ import annotations

import socketserver
import threading
from dataclasses import dataclass, field
from typing import Self, cast


@dataclass(frozen=True)
class Arrived:
    """A request as it came: `target` is the request line's, undecoded."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)

    def values(self, name: str) -> list[str]:
        return [value for known, value in self.headers if known == name]


class EchoUpstream(socketserver.ThreadingTCPServer):
    """Listens on a port of 127.0.0.1 of its own; `log` is in the order of arrival."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.log: list[Arrived] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while True:
            line = self.rfile.readline(65536)
            if not line.strip():
                return
            method, target, _ = line.decode("latin-1").rstrip("\r\n").split(" ")
            headers = []
            while (one := self.rfile.readline(65536).decode("latin-1").rstrip("\r\n")) != "":
                name, _, value = one.partition(":")
                headers.append((name.lower(), value.strip()))
            arrived = Arrived(method, target, tuple(headers), self._body(dict(headers)))
            cast(EchoUpstream, self.server).log.append(arrived)
            self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(headers.get("content-length", "0")))
