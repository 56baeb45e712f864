"""One HTTP exchange with a gateway, over a Unix socket or a loopback address, within a deadline."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ringfence.client.errors import CONNECTION_FAILED, TIMED_OUT, ClientError
from ringfence.errors import BAD_ARGUMENT

UNIX: Final = "unix:"
MAX_ANSWER: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's HTTP answer."""

    status: int
    media: str
    body: bytes


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Transport:
    """Reaches one gateway at `unix:PATH` or `HOST:PORT`; each exchange has its own connection."""

    def __init__(self, address: str) -> None:
        self._path = Path(address.removeprefix(UNIX)) if address.startswith(UNIX) else None
        host, _, port = address.rpartition(":")
        if self._path is None and (not host or not port.isdecimal()):
            raise ClientError(
                BAD_ARGUMENT,
                f"{address!r} is no gateway address.",
                field="address",
                hint="Use unix:/path/to/socket or 127.0.0.1:8440.",
            )
        self._host, self._port = host, port
        self.authority = "localhost" if self._path is not None else address

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
        """The answer to one POST. Raises `ClientError` (`client.timed_out`, `client.connection_failed`)."""
        deadline = time.monotonic() + timeout_s
        connection = self._connect(timeout_s)
        try:
            connection.request("POST", path, body, {**headers, "host": self.authority})
            response = connection.getresponse()
            content = _read(response, deadline)
            return Answer(response.status, response.headers.get_content_type(), content)
        except TimeoutError:
            raise ClientError(
                TIMED_OUT, f"The gateway did not answer within {timeout_s:g} s.", hint="Try again, or wait longer."
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise ClientError(
                CONNECTION_FAILED,
                f"The exchange with the gateway failed: {error or type(error).__name__}.",
                hint="See that `ringfence gateway` runs and that you may open its socket.",
            ) from error
        finally:
            connection.close()

    def _connect(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._path is not None:
            return _UnixConnection(self._path, timeout_s)
        return http.client.HTTPConnection(self._host.strip("[]"), int(self._port), timeout=timeout_s)


def _read(response: http.client.HTTPResponse, deadline: float) -> bytes:
    content = bytearray()
    while chunk := response.read1(1 << 16):
        content += chunk
        # The socket's timeout bounds one read; this bounds them all.
        if time.monotonic() > deadline:
            raise TimeoutError
        if len(content) > MAX_ANSWER:
            raise http.client.HTTPException("the answer is too long")
    return bytes(content)
