"""A stream ends no later than its host's limit, its session, and any factor that the session was opened with."""

from __future__ import annotations

import pytest

from ringfence.plugin.sessions.life import stream_deadline
from ringfence.plugin.sessions.port import Session

NOW = 1_800_000_000


@pytest.mark.parametrize(
    ("limit", "expires", "factor", "deadline"),
    [
        (60, 900, 0, 60),
        (3600, 900, 0, 900),
        (3600, 900, 300, 300),
        (60, 900, 300, 60),
        (60, -1, 0, 0),
        (60, 900, -5, 0),
    ],
)
def test_the_first_of_all_limits_ends_a_stream(limit: int, expires: int, factor: int, deadline: int) -> None:
    factors = (("mtls", 0), ("webauthn", factor and NOW + factor))
    session = Session("s", "p", (), "h", "", "", "", NOW, NOW + expires, 900, bytes(32), factors)
    assert stream_deadline(session, limit, NOW) == NOW + deadline
