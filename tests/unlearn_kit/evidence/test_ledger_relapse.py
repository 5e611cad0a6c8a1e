"""Whether a request relapsed: figures by evaluate, intervals by resampling, and what so few samples cannot tell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unlearn_kit import UnlearnTask, data
from unlearn_kit.data import TensorImages
from unlearn_kit.evidence.ledger_relapse import SampleScores, Standing, relapse_words, score_samples, standing
from unlearn_kit.evidence.ledger_samples import RequestSamples, input_hashes, keep_out, samples_of
from unlearn_kit.metrics import evaluate

GENERATOR = torch.Generator().manual_seed(0)
TRAIN = TensorImages(torch.rand(30, 1, 3, 3, generator=GENERATOR), torch.arange(30) % 3)
TEST = TensorImages(torch.rand(24, 1, 3, 3, generator=GENERATOR), torch.arange(24) % 3)


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(9, 3)).eval()


def request(count: int) -> RequestSamples:
    return RequestSamples(
        tuple(f"f{i}" for i in range(count)), (), tuple(f"u{i}" for i in range(9)), "classification", 3, ()
    )


def scores(right: str, losses: list[float] | None = None, unseen: list[float] | None = None) -> SampleScores:
    """Scores of forget samples, '1' where one is right."""
    own = losses or [1.0] * len(right)
    forget = {f"f{i}": (float(one), own[i]) for i, one in enumerate(right)}
    return SampleScores(forget, {f"u{i}": (1.0, loss) for i, loss in enumerate(unseen or [1.0] * 9)})


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(
    "task", [UnlearnTask.forget_class(TRAIN, TEST, 1), UnlearnTask.forget_samples(TRAIN, TEST, [0, 4, 5, 7])]
)
def test_the_figures_are_those_of_evaluate_in_whatever_order_the_data_come(task: UnlearnTask, seed: int) -> None:
    model, samples = network(seed), samples_of(task)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(3))
    (found,) = score_samples(model, [data.subset(TRAIN, order), TEST], {"one": samples}).values()
    told, expected = standing(samples, found, None), evaluate(model, task)
    assert told.forget == pytest.approx(expected.forget)
    assert told.membership == pytest.approx(expected.membership)
    if len(task.forget_test):
        assert told.unseen == pytest.approx(expected.forget_test)
    assert (told.found, told.of, told.relapse) == (len(task.forget), len(task.forget), None)


def test_masks_are_scored_by_the_iou_of_evaluate() -> None:
    bundle = data.load("synthetic-lesions", train_size=8, test_size=8, size=16)
    task = UnlearnTask.forget_samples(bundle.train, bundle.test, [1, 3])
    torch.manual_seed(0)
    model = nn.Conv2d(3, 1, 3, padding=1).eval()
    samples = samples_of(task)
    (found,) = score_samples(model, [bundle.train, bundle.test], {"one": samples}).values()
    told, expected = standing(samples, found, None), evaluate(model, task)
    assert (told.forget, told.unseen) == pytest.approx((expected.forget, expected.retain_test))


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        ("0" * 11 + "1" * 4, "0" * 8 + "1" * 7, True),  # .27, then .47 of fifteen pictures
        ("0" * 20, "1" * 20, True),
        ("1" * 15, "1" * 15, False),
        ("1" * 7 + "0" * 8, "1" * 4 + "0" * 11, False),
        ("0" * 15, "1" + "0" * 14, None),
        ("1100000000", "0011100000", None),  # other samples, one more
        ("0", "1", None),
    ],
)
def test_a_rise_is_a_relapse_beyond_noise(then: str, now: str, expected: bool | None) -> None:
    samples = request(len(then))
    before = standing(samples, scores(then), None)
    told = standing(samples, scores(now), scores(then))
    assert told.relapse is expected
    assert told.score_rise.rise == pytest.approx(now.count("1") / len(now) - then.count("1") / len(then))
    words = relapse_words("ann", before, told)
    assert words.startswith({True: "relapse of 'ann': score", None: "'ann' rose, which ", False: ""}[expected])
    assert bool(words) is (expected is not False)
    assert Standing.from_dict(told.as_dict()) == told


def test_the_interval_of_the_membership_rise_is_that_of_resampling_both_sides() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(1.0, 1.0, 60), rng.normal(1.2, 1.0, 40)
    moved = a - rng.normal(0.5, 0.3, 60)
    keys, others = [f"f{i}" for i in range(60)], [f"u{i}" for i in range(40)]
    samples = RequestSamples(tuple(keys), (), tuple(others), "classification", 2, ())
    unseen = {key: (1.0, float(loss)) for key, loss in zip(others, b, strict=True)}
    then, now = (
        SampleScores({key: (1.0, float(x)) for key, x in zip(keys, row, strict=True)}, unseen) for row in (a, moved)
    )
    found = standing(samples, now, then)

    def auc(own: np.ndarray, rest: np.ndarray) -> float:
        return float(np.mean([(x < rest).mean() for x in own]))

    drawn = []
    for _ in range(2000):
        i, j = rng.integers(60, size=60), rng.integers(40, size=40)
        drawn.append(auc(moved[i], b[j]) - auc(a[i], b[j]))
    low, high = np.quantile(drawn, [0.05, 0.95])
    rise = found.membership_rise
    assert rise.rise == pytest.approx(auc(moved, b) - auc(a, b))
    # Two ways to the same interval, each with an error of a tenth of its width.
    assert (rise.low, rise.high) == pytest.approx((low, high), abs=0.1 * (high - low))
    assert found.relapse is True
    assert "membership AUC" in relapse_words("ann", standing(samples, then, None), found)


def test_membership_below_one_half_is_no_memory() -> None:
    samples = request(12)
    then = scores("1" * 12, [9.0] * 12, [1.0] * 9)
    now = scores("1" * 12, [1.0] * 6 + [9.0] * 6, [2.0] * 9)
    assert standing(samples, now, then).membership == 0.5
    assert standing(samples, now, then).relapse is False
    # Nor is it spoken of beside a score that rose.
    risen = standing(samples, SampleScores({**now.forget}, now.unseen), scores("0" + "1" * 11, [9.0] * 12, [1.0] * 9))
    assert risen.relapse is None
    assert "AUC" not in relapse_words("ann", standing(samples, then, None), risen)


def test_data_that_are_gone_are_no_zero() -> None:
    samples = request(3)
    empty = SampleScores({}, {})
    told = standing(samples, empty, scores("010"))
    assert (told.forget, told.unseen, told.membership, told.relapse) == (None, None, None, None)
    assert (told.found, told.of) == (0, 3)
    assert standing(samples, scores("010"), empty).relapse is None


def test_earlier_data_are_known_by_their_pixels_and_kept_out_everywhere() -> None:
    task, earlier = UnlearnTask.forget_class(TRAIN, TEST, 1), UnlearnTask.forget_class(TRAIN, TEST, 0)
    samples = samples_of(earlier)
    # Another order, another label, and a second copy.
    x, y = TRAIN.inputs, TRAIN.targets.clone()
    y[0] = 2
    again = TensorImages(torch.cat([x, x[3:4]]).flip(0), torch.cat([y, y[3:4]]).flip(0))
    later = UnlearnTask.forget_class(again, TEST, 1)
    kept, counts = keep_out(later, {"ann": samples})
    gone = set(samples.forget)
    assert not gone & set(input_hashes(kept.retain))
    assert (counts["ann"].retained, counts["ann"].found, counts["ann"].of) == (11, 10, 10)
    assert len(kept.retain) == len(later.retain) - 11
    held_out = set(samples.held_out)
    assert len(held_out) == 8
    for part in ("retain_test", "retain_validation"):
        assert not held_out & set(input_hashes(getattr(kept, part)))
    assert sum(len(getattr(kept, part)) for part in ("retain_test", "retain_validation")) == 8
    assert kept.forget is later.forget
    # Nothing to leave out leaves the task alone; what is read otherwise is counted as not found.
    assert keep_out(task, {}) == (task, {})
    wide = UnlearnTask.forget_class(TensorImages(x.repeat(1, 1, 2, 2), TRAIN.targets), TEST, 1)
    assert keep_out(wide, {"ann": samples})[1]["ann"].found == 0
    with pytest.raises(ValueError, match="expected task to retain data that no earlier request forgets, but all 10"):
        keep_out(replace(task, retain=earlier.forget), {"ann": samples})


def test_files_that_are_read_in_another_size_are_known_by_their_files(tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(0), ["file,label,split,patient"]
    for i in range(12):
        Image.fromarray(draw.integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(tmp_path / f"{i:02}.png")
        rows.append(f"{i:02}.png,{i % 2},{'train' if i < 8 else 'test'},{i // 2 % 4}")
    (tmp_path / "metadata.csv").write_text("\n".join(rows))

    def patient(number: int, size: tuple[int, int]) -> UnlearnTask:
        images = data.load("image-folder", root=tmp_path, size=size)
        tables = images.train_metadata, images.test_metadata
        return UnlearnTask.forget_where(images.train, images.test, *tables, data.where(f'patient == "{number}"'))

    earlier = samples_of(patient(0, (8, 8)))
    assert RequestSamples.from_dict(earlier.as_dict()) == earlier
    for size in ((8, 8), (5, 5)):
        later = patient(1, size)
        kept, counts = keep_out(later, {"ann": earlier})
        assert (counts["ann"].retained, counts["ann"].found, counts["ann"].of) == (2, 2, 2)
        assert len(kept.retain) == 4
        held_out = len(later.retain_test) + len(later.retain_validation)
        assert len(kept.retain_test) + len(kept.retain_validation) == held_out - 2


def test_a_class_of_the_masks_stays_background_for_later_requests() -> None:
    x, y = torch.rand(6, 1, 4, 4), torch.zeros(6, 4, 4, dtype=torch.int64)
    y[:, 0], y[:3, 1], y[2:, 2] = 1, 2, 3
    images = TensorImages(x, y)
    first, second = (UnlearnTask.forget_mask_class(images, images, label) for label in (1, 3))
    samples = samples_of(first)
    assert samples.forget_classes == (1,)
    kept, counts = keep_out(second, {"ann": samples})
    assert (len(kept.retain), counts["ann"].retained) == (6, 0)
    assert {int(label) for _, mask in kept.retain for label in mask.unique()} == {0, 2}
    assert {int(label) for _, mask in kept.forget for label in mask.unique()} == {0, 1, 2, 3}
    assert RequestSamples.from_dict(samples.as_dict()) == samples
