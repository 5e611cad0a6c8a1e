from __future__ import annotations

from benchmarks.studies import verdicts
from benchmarks.studies.verdicts import NOTHING, OTHER, REFERENCE, SETTINGS, Setting, counted, levels, tables

MANY, FEW, CLASS = (
    "fashion-mnist, 400 of 2,000 samples",
    "fashion-mnist, 40 of 1,000 samples",
    "digits, a class of 600 samples",
)


def record(kind: str, value: str, setting: str = MANY, figure: float = 0.0) -> dict:
    return {
        "setting": setting,
        "kind": kind,
        "values": {"forgotten": value},
        "figures": {"forgotten": {"value": figure}},
        "before": {"forgotten": 0.2},
    }


def test_what_is_shown_is_counted_by_kind() -> None:
    records = [record(REFERENCE, "shown")] * 8 + [record(REFERENCE, "not tested")] * 2 + [record(NOTHING, "not shown")]
    assert counted(records, "forgotten", (REFERENCE,)) == "0.80 [0.44, 0.97] (8 of 10; 2 not tested)"
    assert counted(records, "kept", (REFERENCE,)) == "n/a"
    text = tables(records)
    assert "| 1.00 [0.63, 1.00] (8 of 8) |" in text  # where tested
    few = tables([*records, *[record(REFERENCE, "not tested", FEW)] * 10])
    assert "| 0.40 [0.19, 0.64] (8 of 20; 12 not tested) | 0.80 [0.44, 0.97] (8 of 10; 2 not tested) |" in few
    assert "| forgotten | 0.00 [0.00, 0.97] (0 of 1) |" in text


def test_where_the_thresholds_lie_is_told_by_quantiles() -> None:
    records = [
        record(kind, "shown", figure=at * i / 20) for kind, at in ((OTHER, 0.2), (REFERENCE, 0.1)) for i in range(21)
    ]
    records.append(record(REFERENCE, "shown", CLASS, figure=9.0))  # of a class a share right is measured
    assert SETTINGS[CLASS].fraction is None
    text = levels(records)
    assert "| forgotten | 0.1 | 0.010 to 0.190 | 0.005 to 0.095 |" in text
    assert "| forgotten, left | 0.5 | 0.050 to 0.950 | 0.025 to 0.475 |" in text


def test_a_small_study_tells_kinds_apart(monkeypatch) -> None:
    monkeypatch.setitem(verdicts.SETTINGS, "small", Setting("digits", 120, 200, None, epochs=10))
    records = verdicts.study(["small"], purpose="tuning", draws=1, models=2, slow=0, log=False)
    assert len(records) == 2 * (len(verdicts.KINDS) - 1)  # over-forgetting says nothing of a class
    values = {(one["kind"], one["original"]): one["values"] for one in records}
    assert values[NOTHING, 0]["weights changed"] == "not shown"
    assert "shown" not in values[NOTHING, 0].values()
    assert values[REFERENCE, 1]["weights changed"] == "shown"
    assert "not read off the features" not in values[REFERENCE, 1]
