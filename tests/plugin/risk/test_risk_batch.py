"""The batch side: observations out of a log, a forest grown from them, and `ringfence risk`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sklearn.ensemble import IsolationForest

from ringfence.audit.kinds import Asked, Decision, Suppression
from ringfence.audit.records import GENESIS, Entry, check_data, encode_data, encode_line
from ringfence.audit.segments import Start, encode_header, records_name
from ringfence.frame import outcome
from ringfence.plugin.device.reputation import BetaReputation
from ringfence.plugin.device.settings import DeviceSettings
from ringfence.plugin.risk.errors import RiskError
from ringfence.plugin.risk.forest import Forest, Tree, decode_forest, encode_forest
from ringfence.plugin.risk.history import COLUMNS, History, Observation
from ringfence.plugin.risk.keeping import Keeper, Memory
from ringfence.plugin.risk.port import Reason, RiskScore
from ringfence.plugin.risk.reasons import from_record, raised, recorded
from ringfence.plugin.risk.training import LEAST, grow
from ringfence.trust import generate
from tests.plugin.risk.risk_bench import NOW, known


def decided(number: int, **changes: Any) -> Decision:
    context = {"risk": 12, "body_bytes": 4096, "requests_minute": 3, "device_trust": 90, **changes.pop("context", {})}
    fields: dict[str, Any] = {
        "decision_id": f"d{number}",
        "pipeline": "request",
        "verdict": "allow",
        "principal": "alice",
        "action": "SubmitJob",
        "source": "192.0.2.1",
        "asked": Asked(groups=(), context=context),
        "reasons": recorded(RiskScore(12, (Reason("refusals", 12, "about 1 request was refused"),))),
        **changes,
    }
    return Decision(**fields)


def entry(record: Decision | Suppression, number: int = 1, at: int = NOW) -> Entry:
    return Entry(number, number - 1, "0" * 64, at * 10**9, record)


def observations(count: int, seed: int = 1) -> list[Observation]:
    draw = random.Random(seed)  # noqa: S311 - no secret
    history = History()
    found = []
    for number in range(count):
        record = decided(number, context={"body_bytes": int(4096 * 2 ** draw.gauss(0, 0.5)), "requests_minute": 3})
        observed = history.observe(entry(record, at=NOW + 60 * number + int(20 * draw.random())))
        assert observed is not None
        found.append(observed)
    return found


def test_an_observation_has_a_row_of_its_columns() -> None:
    history = History()
    assert history.observe(entry(Suppression(code="a", source="s", refusals=1))) is None
    assert history.observe(entry(decided(1, principal=""))) is None
    first = history.observe(entry(decided(1)))
    second = history.observe(entry(decided(2, verdict="deny", source="198.51.100.1"), at=NOW + 60))
    third = history.observe(entry(decided(3, asked=None, source="198.51.100.1"), at=NOW - 10**6))
    assert first is not None
    assert second is not None
    assert third is not None
    rows = [dict(zip(COLUMNS, observed.row, strict=True)) for observed in (first, second, third)]
    assert rows[0] == {
        "hour": 9.0,
        "weekday": 4.0,
        "size": pytest.approx(12.0, abs=0.01),
        "rate": 2.0,
        "gap": 20.0,
        "action": 0.0,
        "source": 0.0,
        "device": 90.0,
    }
    assert (rows[1]["action"], rows[1]["source"]) == (1.0, 0.0)
    assert rows[1]["gap"] == pytest.approx(5.93, abs=0.01)
    assert not second.allowed
    # What was refused has not become usual, and a clock that went back gives no negative gap.
    assert (rows[2]["source"], rows[2]["gap"], rows[2]["size"]) == (0.0, 0.0, 0.0)


def test_a_forest_evaluates_as_scikit_learn_does() -> None:
    found = observations(400)
    forest = grow(found, trees=40, seed=5)
    rows = [list(observed.row) for observed in found]
    model: Any = IsolationForest(n_estimators=40, max_samples=256, random_state=5).fit(rows)
    # Its own rounding to single precision can move a row that lies on a threshold: a few in ten thousand nodes.
    for row, score in zip(rows, model.score_samples(rows), strict=True):
        assert forest.anomaly(row) == pytest.approx(-float(score), abs=0.01)
    close = sum(
        abs(forest.anomaly(row) + float(s)) < 1e-6 for row, s in zip(rows, model.score_samples(rows), strict=True)
    )
    assert close >= 0.95 * len(rows)


def test_a_forest_finds_what_stands_out_and_says_why() -> None:
    forest = grow(observations(600), trees=60, seed=5)
    usual = forest.usual
    changed = {"size": 35.0, "source": 0.0, "hour": 23.9}
    apart = tuple(changed.get(name, value) for name, value in zip(COLUMNS, usual, strict=True))
    assert forest.anomaly(apart) > forest.threshold > forest.anomaly(usual)
    because = forest.because(apart)
    assert {name for name, _ in because[:3]} == set(changed)
    assert because[0][1] > 0.02


def test_refused_decisions_teach_nothing() -> None:
    found = observations(LEAST + 20)
    poison = [Observation(o.decision_id, o.principal, o.at, False, (0.0,) * len(COLUMNS)) for o in found]
    assert grow(found + poison, trees=10, seed=5) == grow(found, trees=10, seed=5)
    with pytest.raises(RiskError, match=r"risk\.too_few_decisions"):
        grow(found[:20] + poison, trees=10, seed=5)


def test_a_forest_survives_its_encoding_and_a_malformed_one_is_refused() -> None:
    forest = grow(observations(300), trees=3, seed=5)
    assert decode_forest(encode_forest(forest)) == forest
    tree = forest.trees[0]
    for left, threshold in (((0, *tree.left[1:]), tree.threshold), (tree.left, (float("nan"), *tree.threshold[1:]))):
        with pytest.raises(ValueError, match=r"tree|number"):
            Tree(left, tree.right, tree.column, threshold, tree.samples)
    data = msgspec.msgpack.decode(encode_forest(forest))
    for place, value in ((0, ["size"]), (1, 0), (2, [0.0]), (3, float("inf")), (6, [])):
        fields = [*data[:place], value, *data[place + 1 :]]
        with pytest.raises(RiskError, match=r"risk\.state_malformed"):
            decode_forest(msgspec.msgpack.encode(fields))
    # A node that names itself as its child would never end.
    data[6][0][0][0] = 0
    with pytest.raises(RiskError, match=r"risk\.state_malformed"):
        decode_forest(msgspec.msgpack.encode(data))


def test_recorded_reasons_are_read_back_and_others_are_left_alone() -> None:
    reasons = (Reason("size", 3, "a body: of\n9 bytes"), Reason("rate-limit", 100, "x" * 300))
    texts = recorded(RiskScore(100, reasons))
    assert [len(text) <= 256 for text in texts] == [True, True]
    found = [from_record(text) for text in texts]
    assert [(reason.feature, reason.points) for reason in found if reason] == [("rate-limit", 100), ("size", 3)]
    assert from_record(texts[1]) == reasons[0]
    assert from_record("device.age 3: old") is None


def test_threats_add_their_points_and_their_reason() -> None:
    score = RiskScore(12, (Reason("refusals", 12, "one"),))
    assert raised(score, 0) is score
    assert (raised(score, 20).score, raised(score, 95).score) == (32, 100)
    assert [reason.feature for reason in raised(score, 20).reasons] == ["refusals", "threats"]


@contextmanager
def log_of(folder: Path, records: list[tuple[int, Decision]]) -> Iterator[Path]:
    """A log as a gateway writes it, by its encoding alone."""
    log = folder / "audit"
    log.mkdir()
    lines = [encode_header(Start("ringfence.audit/gateway/rf1"))]
    for number, (at, record) in enumerate(records, 1):
        data = encode_data(record)
        lines.append(encode_line(number, 0, GENESIS, at * 10**9, check_data(record, data), data) + b"\n")
    (log / records_name(1)).write_bytes(b"".join(lines))
    yield log


def test_the_command_trains_scores_and_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generate(tmp_path, "gateway")
    key, public, model = tmp_path / "gateway.key", tmp_path / "gateway.pub", tmp_path / "forest.state"
    records = [
        (NOW + 60 * number, decided(number, context={"body_bytes": 4096 + 99 * number})) for number in range(300)
    ]
    records.append((NOW + 60 * 300, decided(300, source="198.51.100.9", context={"body_bytes": 2**40}, verdict="deny")))
    with log_of(tmp_path, records) as log:
        for generation in (1, 2):
            train = ["risk", "train", "--log", str(log), "--out", str(model), "--key", str(key)]
            train += ["--json", "--seed", "1"]
            assert outcome(train) == 0
            trained = json.loads(capsys.readouterr().out)
            assert (trained["trained_on"], trained["generation"]) == (300, generation)

        score = ["risk", "score", "--log", str(log), "--model", str(model), "--key", str(public)]
        assert outcome([*score, "--json"]) == 0
        found = {one["decision_id"]: one for one in json.loads(capsys.readouterr().out)["decisions"]}
        assert len(found) == 20
        assert (found["d300"]["verdict"], found["d300"]["stands_out"]) == ("deny", True)
        assert "source" in found["d300"]["because"]
        assert outcome(score) == 0
        assert "d300" in capsys.readouterr().out

        explain = ["risk", "explain", "--log", str(log), "--decision", "d300"]
        assert outcome([*explain, "--json"]) == 0
        explained = json.loads(capsys.readouterr().out)
        assert (explained["principal"], explained["risk"], explained["baseline"]) == ("alice", 12, None)
        assert explained["reasons"] == [{"feature": "refusals", "points": 12, "text": "about 1 request was refused"}]
        assert outcome(["risk", "explain", "--log", str(log), "--decision", "none"]) == 2
        assert "risk.nothing_recorded" in capsys.readouterr().err
        assert outcome([*explain, "--state", str(tmp_path)]) == 2
        assert outcome([*score[:-1], str(key), "--json"]) == 2


async def test_explain_shows_what_was_usual(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signer = generate(tmp_path, "gateway")
    assessor, now = known()
    memory = Memory(assessor, BetaReputation(DeviceSettings()), {"baselines": 0, "devices": 0})
    folder = tmp_path / "risk"
    await Keeper(memory, folder, signer=signer, clock_s=lambda: now, uniform=lambda: 0.5, tell=lambda _: None).save()
    with log_of(tmp_path, [(NOW, decided(1)), (NOW + 1, decided(2, principal="bob"))]) as log:
        explain = ["risk", "explain", "--log", str(log), "--principal", "alice", "--state", str(folder)]
        explain += ["--key", str(tmp_path / "gateway.pub")]
        assert outcome([*explain, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        assert document["decision_id"] == "d1"
        baseline = document["baseline"]
        assert (baseline["known"], baseline["usual_bytes"], baseline["unusual_bytes"]) == (True, 4096, 65536)
        assert baseline["actions"] == {"SubmitJob": 1.0}
        assert baseline["regions"] == {"office": 1.0}
        assert baseline["weekdays"] == ["Friday"]
        assert outcome(explain) == 0
        shown = capsys.readouterr().out
        assert "12  refusals: about 1 request was refused" in shown
        assert "actions: SubmitJob 1.0" in shown
        assert outcome(["risk", "explain", "--log", str(log), "--principal", "bob", *explain[6:], "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["baseline"] is None


def test_a_forest_of_another_shape_is_none() -> None:
    with pytest.raises(ValueError, match="columns"):
        Forest(("size",), 256, (0.0,), 0.5, 1, 0, ())
