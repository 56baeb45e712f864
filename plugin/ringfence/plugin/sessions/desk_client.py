"""The command's side of the desk: asks a running gateway over its Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ringfence.errors import Code, Kind
from ringfence.plugin.errors import GateError
from ringfence.plugin.sessions import desk, errors
from ringfence.plugin.sessions.revocations import Of

TIMEOUT_S: Final = 60.0
_READ: Final = 64 * 1024


class Desk:
    """A connection to the desk of the gateway that listens at `path`."""

    def __init__(self, path: Path) -> None:
        """Connects. Raises `session.desk_unavailable`."""
        self._path = path
        self._frames = desk.Frames(desk.ANSWER_BYTES)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        try:
            self._socket.connect(str(path))
        except OSError as error:
            self._socket.close()
            raise self._unavailable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def sessions(self, question: desk.List) -> Iterator[desk.SessionView]:
        """The live sessions that are asked for. Raises the gateway's refusal, and `session.desk_unavailable`."""
        start = 0
        while start >= 0:
            answer = self._ask(desk.List(question.session, question.principal, question.host, question.bundle, start))
            if not isinstance(answer, desk.Page) or 0 <= answer.start <= start:
                raise self._unavailable(OSError(None, "it gave another answer"))
            yield from answer.sessions
            start = answer.start

    def revoke(self, of: Of, value: str) -> int:
        """How many live sessions have ended; the revocation is durable. Raises as `sessions` does."""
        answer = self._ask(desk.Revoke(of, value))
        if not isinstance(answer, desk.Revoked):
            raise self._unavailable(OSError(None, "it gave another answer"))
        return answer.sessions

    def _ask(self, question: desk.Question) -> desk.Answer:
        try:
            self._socket.sendall(desk.encode(question))
            bodies: list[bytes] = []
            while not bodies:
                data = self._socket.recv(_READ)
                if not data:
                    raise ConnectionResetError(None, "it closed the connection")
                bodies = self._frames.feed(data)
        except OSError as error:
            raise self._unavailable(error) from error
        answer = desk.decode_answer(bodies[0])
        if isinstance(answer, desk.Refused):
            raise GateError(_code(answer.code), answer.message, hint=answer.hint)
        return answer

    def _unavailable(self, error: OSError) -> GateError:
        why = error.strerror or str(error) or "no answer in time"
        return GateError(
            errors.DESK_UNAVAILABLE,
            f"The gateway at {self._path} cannot be asked: {why}.",
            field="--socket",
            hint="Name the `admin` socket of a gateway that runs.",
        )


def _code(name: str) -> Code:
    """The code that the gateway named; its kind only matters to the command's exit status."""
    return Code(name, Kind.INVALID if name == errors.DESK_MALFORMED.name else Kind.DENIED)
