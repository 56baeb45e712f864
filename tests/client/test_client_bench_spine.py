"""`ringfence bench`: what its figures mean, and what it refuses to measure."""

from __future__ import annotations

import pytest

from ringfence.cli import main
from ringfence.client.bench.figures import summary


@pytest.mark.parametrize(("count", "p99"), [(20, 20), (99, 99), (100, 99), (300, 297), (1000, 990)])
def test_the_p99_is_the_nearest_rank_and_of_fewer_than_100_the_maximum(count: int, p99: int) -> None:
    assert summary(range(count, 0, -1)) == {"p50_us": (count + 1) / 2, "p99_us": p99}


def test_too_few_requests_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "spine", "--requests", "19"]) == 2
    assert "Fewer than 20 requests say nothing. Ask for 20, better for 100." in capsys.readouterr().err
    assert main(["bench", "spine", "--help"]) == 0
    assert "of fewer than 100 the p99 is the maximum" in " ".join(capsys.readouterr().out.split())
