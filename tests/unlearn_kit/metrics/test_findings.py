"""The figures of multi-label models, beside scikit-learn's."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, log_loss, recall_score, roc_auc_score
from torch import nn
from torch.utils.data import TensorDataset

from unlearn_kit import UnlearnTask, metrics
from unlearn_kit.metrics.membership import loss
from unlearn_kit.metrics.predict import predict
from unlearn_kit.outputs import IGNORE, decisions

K = 4
SOURCE = torch.Generator().manual_seed(0)
Z = torch.randn(60, K, generator=SOURCE)
Y = (torch.randn(60, K, generator=SOURCE) + Z > 0.6).float()
Y[:, 3] = 0  # never there
UNKNOWN = torch.rand(60, K, generator=SOURCE) < 0.2
UNKNOWN[7] = True
SOME = Y.masked_fill(UNKNOWN, IGNORE)
DATA, PART = TensorDataset(Z, Y), TensorDataset(Z, SOME)
MODEL = nn.Identity()  # what it is given are the logits


def column(k: int) -> tuple[np.ndarray, np.ndarray]:
    """What is known of a finding, and the model's logits there."""
    known = SOME[:, k] != IGNORE
    return SOME[known, k].numpy(), Z[known, k].numpy()


def test_each_finding_is_scored_as_scikit_learn_scores_it() -> None:
    found = metrics.finding_scores(MODEL, PART)
    assert found is not None
    assert list(found) == [0, 1, 2, 3]
    for k in range(3):
        truth, z = column(k)
        said = z > 0
        assert (found[k].present, found[k].absent) == (int(truth.sum()), int((1 - truth).sum()))
        assert found[k].auroc == pytest.approx(roc_auc_score(truth, z))
        assert found[k].accuracy == pytest.approx(accuracy_score(truth, said))
        assert found[k].sensitivity == pytest.approx(recall_score(truth, said))
        assert found[k].specificity == pytest.approx(recall_score(truth, said, pos_label=0))
    assert (found[3].present, found[3].sensitivity, found[3].auroc) == (0, None, None)  # n/a, not 0
    assert found[3].specificity == found[3].accuracy


def test_the_macro_auroc_is_over_the_findings_that_have_one() -> None:
    wanted = [float(roc_auc_score(Y[:, k], Z[:, k])) for k in range(3)]
    assert metrics.auroc(MODEL, DATA) == pytest.approx(np.mean(wanted))
    assert metrics.auroc(MODEL, DATA, per_finding=True) == {
        **{k: pytest.approx(value) for k, value in enumerate(wanted)},
        3: None,
    }
    alone = TensorDataset(Z[:5], torch.zeros(5, K))
    assert metrics.auroc(MODEL, alone) is None
    assert metrics.accuracy(MODEL, alone) is not None


def test_shares_of_findings_and_of_images() -> None:
    said = (Z > 0).float()
    assert metrics.accuracy(MODEL, DATA) == pytest.approx(float((said == Y).float().mean()))
    assert metrics.exact_match(MODEL, DATA) == pytest.approx(accuracy_score(Y.numpy(), said.numpy()))
    rows = [(said[i] == SOME[i])[SOME[i] != IGNORE] for i in range(60) if i != 7]
    assert metrics.accuracy(MODEL, PART) == pytest.approx(np.mean([float(row.float().mean()) for row in rows]))
    assert metrics.exact_match(MODEL, PART) == pytest.approx(np.mean([bool(row.all()) for row in rows]))


def test_the_loss_of_membership_is_the_mean_cross_entropy_of_what_is_known() -> None:
    found = loss(decisions(Z, SOME), SOME)
    for feature in metrics.FEATURES.values():  # whichever way the logits come
        assert torch.equal(feature(Z, SOME).nan_to_num(), feature(decisions(Z, SOME), SOME).nan_to_num())
    for i in (0, 1, 2):
        known = SOME[i] != IGNORE
        p = Z[i, known].double().sigmoid().numpy()
        assert float(found[i]) == pytest.approx(log_loss(SOME[i, known], p, labels=[0, 1]))
    assert found[7].isnan()  # nothing is known of it
    members, others = TensorDataset(Z[:20], SOME[:20]), TensorDataset(Z[20:], SOME[20:])
    values, labels = found[~found.isnan()], (torch.arange(60) < 20)[~found.isnan()]
    assert metrics.loss_auc(MODEL, members, others) == pytest.approx(roc_auc_score(labels, -values))


def test_predictions_have_the_models_own_shape() -> None:
    logits, targets = predict(MODEL, PART, batch_size=7)
    assert torch.equal(logits, Z)
    assert torch.equal(targets, SOME)


@pytest.fixture
def task() -> UnlearnTask:
    test = TensorDataset(Z.flip(0), SOME.flip(0))
    return UnlearnTask.forget_where(
        PART, test, {"d": np.arange(60) % 3}, {"d": np.arange(60) % 3}, lambda t: t["d"] == 1
    )


def test_an_evaluation_scores_findings_and_says_how_often_they_are_there(task: UnlearnTask) -> None:
    found = metrics.evaluate(MODEL, task)
    assert found.kind == "multilabel"
    for split in ("forget", "retain", "forget_test", "retain_test"):
        part = getattr(task, split)
        assert getattr(found, split) == pytest.approx(metrics.accuracy(MODEL, part))
        assert found.auroc is not None
        assert found.auroc[split] == metrics.auroc(MODEL, part)
        assert metrics.split_score(MODEL, task, split) == getattr(found, split)
    assert found.membership == metrics.loss_auc(MODEL, task.forget, task.forget_test)
    held_out: Any = torch.utils.data.ConcatDataset([task.forget_test, task.retain_test])
    assert found.findings == metrics.finding_scores(MODEL, held_out)
    assert found.test == pytest.approx(metrics.accuracy(MODEL, held_out))
    assert found.per_class is not None
    assert found.findings is not None
    assert found.per_class == {k: pytest.approx(own.accuracy) for k, own in found.findings.items()}
    told = json.loads(json.dumps(found.as_dict()))
    assert told["findings"]["3"]["auroc"] is None
    beside = metrics.evaluate(MODEL, task, MODEL)
    assert (beside.average_gap, beside.tug_of_war) == (0, 1)


def test_of_a_forgotten_finding_the_forget_splits_score_it_alone() -> None:
    test = TensorDataset(Z.flip(0), SOME.flip(0))
    task = UnlearnTask.forget_class(PART, test, 1)
    found = metrics.evaluate(MODEL, task)
    there = SOME[:, 1] == 1
    assert found.forget == pytest.approx(float((Z[there, 1] > 0).float().mean()))
    rest, truth = (Z[~there] > 0)[:, [0, 2, 3]].float(), SOME[~there][:, [0, 2, 3]]
    rows = [
        float((a == b)[b != IGNORE].float().mean()) for a, b in zip(rest, truth, strict=True) if (b != IGNORE).any()
    ]
    assert found.retain == pytest.approx(np.mean(rows))
    assert found.forget_test is not None
    assert found.auroc is not None
    assert found.auroc["forget"] is not None  # of the other findings, which vary among its images


def test_an_empty_split_is_no_figure() -> None:
    samples = UnlearnTask.forget_samples(PART, TensorDataset(Z, SOME), [1, 2])
    found = metrics.evaluate(MODEL, samples)
    assert found.forget_test is None
    assert found.auroc is not None
    assert found.auroc["forget_test"] is None
    assert found.membership is not None
    empty = TensorDataset(Z[:0], SOME[:0])
    assert metrics.finding_scores(MODEL, empty) is None
    assert metrics.auroc(MODEL, empty) is None
    assert metrics.exact_match(MODEL, empty) is None


def test_an_attack_on_membership_reads_findings(task: UnlearnTask) -> None:
    known = SimpleNamespace(
        **{name: getattr(task, name) for name in ("forget", "retain", "forget_test", "retain_test")}
    )
    for name in vars(known):
        part = getattr(known, name)
        setattr(known, name, torch.utils.data.Subset(part.dataset, [i for i in part.indices if i not in (7, 52)]))
    report = metrics.membership_inference(MODEL, cast(UnlearnTask, known))
    assert report is not None
    assert report.auc is not None
    assert 0 <= report.auc <= 1
    with pytest.raises(ValueError, match="expected each image to have a pixel or a finding with a label, but got 1"):
        metrics.membership_inference(MODEL, UnlearnTask(PART, PART, PART, PART, K, "multilabel"))


def test_what_has_one_label_a_sample_is_told_apart() -> None:
    with pytest.raises(ValueError, match=r"expected one label a sample, .* for findings use finding_scores"):
        metrics.per_class_accuracy(MODEL, DATA)
    with pytest.raises(ValueError, match=r"expected targets \(N, K\), one 0 or 1 a finding, but got shape \(60,\)"):
        metrics.finding_scores(MODEL, TensorDataset(Z, torch.zeros(60, dtype=torch.int64)))
