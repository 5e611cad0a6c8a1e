from __future__ import annotations

from benchmarks.studies import verdicts
from benchmarks.studies.verdicts import NOTHING, REFERENCE, Setting, counted, tables


def record(kind: str, value: str) -> dict:
    return {"setting": "s", "kind": kind, "values": {"forgotten": value}}


def test_what_is_shown_is_counted_by_kind() -> None:
    records = [record(REFERENCE, "shown")] * 8 + [record(REFERENCE, "not tested")] * 2 + [record(NOTHING, "not shown")]
    assert counted(records, "forgotten", (REFERENCE,)) == "0.80 [0.44, 0.97] (8 of 10; 2 not tested)"
    assert counted(records, "kept", (REFERENCE,)) == "n/a"
    text = tables(records)
    assert "| 1.00 [0.63, 1.00] (8 of 8) |" in text  # where tested
    assert "| forgotten | 0.00 [0.00, 0.97] (0 of 1) |" in text


def test_a_small_study_tells_kinds_apart(monkeypatch) -> None:
    monkeypatch.setitem(verdicts.SETTINGS, "small", Setting("digits", 120, 200, None, epochs=10))
    records = verdicts.study(["small"], purpose="tuning", draws=1, models=2, slow=0, log=False)
    assert len(records) == 2 * (len(verdicts.KINDS) - 1)  # over-forgetting says nothing of a class
    values = {(one["kind"], one["original"]): one["values"] for one in records}
    assert values[NOTHING, 0]["weights changed"] == "not shown"
    assert "shown" not in values[NOTHING, 0].values()
    assert values[REFERENCE, 1]["weights changed"] == "shown"
    assert "not read off the features" not in values[REFERENCE, 1]
