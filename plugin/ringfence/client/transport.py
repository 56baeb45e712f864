"""One HTTP exchange with a gateway, over a Unix socket or a loopback address, within a deadline."""

from __future__ import annotations

import http.client
import ipaddress
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ringfence.client.errors import CONNECTION_FAILED, TIMED_OUT, ClientError
from ringfence.errors import BAD_ARGUMENT

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

UNIX: Final = "unix:"
MAX_ANSWER: Final = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """A gateway's HTTP answer."""

    status: int
    media: str
    body: bytes


class Exchange(Protocol):
    """How a client reaches its gateway; `authority` is what its requests name."""

    @property
    def authority(self) -> str: ...

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer: ...


class _Deadlined(socket.socket):
    """A socket whose every wait ends at one deadline, however slowly its peer drips."""

    deadline: float = 0.0

    def connect(self, address: Any) -> None:
        self.settimeout(self._left())
        super().connect(address)

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        self.settimeout(self._left())
        super().sendall(data, flags)

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        self.settimeout(self._left())
        return super().recv_into(buffer, nbytes, flags)

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left


class _Connection(http.client.HTTPConnection):
    """One connection to `address`, a Unix socket's path or a host and port, until `deadline`."""

    def __init__(self, family: int, address: str | tuple[str, int], deadline: float) -> None:
        super().__init__("localhost")
        self._family = family
        self._address = address
        self._deadline = deadline

    def connect(self) -> None:
        sock = _Deadlined(self._family)
        sock.deadline = self._deadline
        self.sock = sock
        sock.connect(self._address)


class Transport:
    """Reaches one gateway at `unix:PATH` or `IP:PORT`; each exchange has its own connection."""

    def __init__(self, address: str) -> None:
        self._family, self._address = _parse(address)
        self.authority = "localhost" if self._family == socket.AF_UNIX else address

    def post(self, path: str, body: bytes, headers: Mapping[str, str], *, timeout_s: float) -> Answer:
        """The answer to one POST. Raises `ClientError` (`client.timed_out`, `client.connection_failed`)."""
        connection = _Connection(self._family, self._address, time.monotonic() + timeout_s)
        try:
            connection.request("POST", path, body, {**headers, "host": self.authority})
            response = connection.getresponse()
            return Answer(response.status, response.headers.get_content_type(), _read(response))
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


def _parse(address: str) -> tuple[int, str | tuple[str, int]]:
    if address.startswith(UNIX):
        return socket.AF_UNIX, address.removeprefix(UNIX)
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.strip("[]"))
        return (socket.AF_INET6 if ip.version == 6 else socket.AF_INET), (str(ip), int(port))
    except ValueError:
        raise ClientError(
            BAD_ARGUMENT,
            f"{address!r} is no gateway address.",
            field="address",
            hint="Use unix:/path/to/socket or 127.0.0.1:8440.",
        ) from None


def _read(response: http.client.HTTPResponse) -> bytes:
    content = bytearray()
    while chunk := response.read1(1 << 16):
        content += chunk
        if len(content) > MAX_ANSWER:
            raise http.client.HTTPException("the answer is too long")
    return bytes(content)
