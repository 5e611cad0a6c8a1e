"""The audit end to end on a few images: what is written, what is shared, and what is refused before training."""

import json
import multiprocessing

import pytest
from typer.testing import CliRunner

import algorithms
from benchmarks.audit.config import AuditConfig
from benchmarks.audit.figures import FIGURES
from benchmarks.audit.study import AuditEstimate, AuditStudy
from benchmarks.cli import app
from benchmarks.demo.config import DemoConfig
from benchmarks.suites.progress import in_words
from unlearn_kit import metrics

TINY = {"data": "digits", "train_size": 120, "model": "mlp", "epochs": 2}


def config(tmp_path, methods=("finetune",), **options):
    return AuditConfig(
        DemoConfig(**TINY, out=tmp_path, methods=methods, forget="random:0.2"), **{"models": 4, "pairs": 2, **options}
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    steps = []
    study = AuditStudy(config(folder, random_labels=True), lambda what, done, of: steps.append((what, done, of)))
    return folder, study, study.run(), steps


def test_every_row_has_figures_of_all_pairs_and_a_verdict(found):
    _, _, report, _ = found
    (method,) = report.methods
    for audited in (report.nothing, report.reference, method):
        assert list(audited.pairs) == [figure.key for figure in FIGURES]
        assert {len(values) for values in audited.pairs.values()} == {2}
    assert {figure.key for figure in FIGURES} < set(method.verdicts)
    assert {"u_lira", "klom_forget", "klom_retain", "klom_held_out"} < set(method.verdicts)
    assert method.pairs["leak_auc"] == [None, None]  # no class was forgotten


def test_what_can_be_passed_cosmetically_is_shown_beside_what_cannot():
    keys, groups = [figure.key for figure in FIGURES], {figure.key: figure.group for figure in FIGURES}
    assert keys.index("attack_auc") == keys.index("member_share") - 1
    beside = ("features_1", "features_5", "margin")
    assert {groups[key] for key in (*beside, "head_1", "head_5", "relearn", "relearn_retain")} == {"what is left"}


def test_attacks_learn_from_references_that_are_judged_nowhere(found):
    _, study, report, _ = found
    oracles, ideals = study.shadow.references(), study._ideals()
    assert [len(ideal.further) for ideal in ideals] == [2, 2]  # four references, of which each pair takes two

    def weights(model):
        return next(model.parameters()).sum().item()

    for place, ideal in enumerate(ideals):
        judged = {weights(oracles[place]), weights(oracles[2 + place])}
        assert not judged & {weights(one) for one in ideal.further}
    assert None not in report.methods[0].pairs["population_auc"]
    assert report.methods[0].pairs["features_1"] == [None, None]  # no class was forgotten


def test_what_is_written_is_what_was_found(found):
    folder, _, report, _ = found
    written = json.loads((folder / "audit.json").read_text())
    assert [row["name"] for row in written["audited"]] == ["do nothing", "reference", "finetune"]
    figure = written["audited"][2]["figures"]["retain"]
    assert figure["values"] == report.methods[0].pairs["retain"]
    assert figure["n"] == 2
    assert figure["mean"] == pytest.approx(sum(figure["values"]) / 2)
    assert written["models"] == 4
    assert written["sizes"]["forget"] == 24


def test_one_more_method_trains_no_shadow_model_again(found):
    folder, *_ = found
    steps = []
    study = AuditStudy(config(folder, ("neg_grad", "finetune"), random_labels=True), lambda *step: steps.append(step))
    report = study.run()
    assert not any(what.startswith("training") for what, *_ in steps)
    assert [one.name for one in report.methods] == ["neg_grad", "finetune"]
    assert report.methods[1].shadow.seconds == 0
    assert report.methods[1].pairs == found[2].methods[0].pairs


def test_the_models_of_the_pairs_are_the_shadow_models(found):
    _, study, report, steps = found
    assert [done for what, done, _ in steps if what == "unlearning"] == [1, 2, 3, 4]  # each original once
    for place in range(2):
        seed = study.shadow.unlearning_seed(place)
        model = algorithms.finetune(study.shadow.originals()[place], study.task, seed=seed, device="cpu").model
        assert report.methods[0].pairs["retain"][place] == metrics.accuracy(model, study.task.retain)


def test_any_number_of_workers_finds_what_was_kept(found):
    folder, _, report, _ = found
    study = AuditStudy(config(folder, random_labels=True, workers=2))
    again = study.run()
    assert again.methods[0].pairs == report.methods[0].pairs
    assert again.methods[0].shadow.u_lira.accuracy == report.methods[0].shadow.u_lira.accuracy
    assert study.shadow.cache.misses == 0
    assert multiprocessing.active_children() == []


def test_forgotten_samples_are_mislabelled_in_training_data_alone(found):
    _, study, _, _ = found
    clean = config(found[0]).task
    from unlearn_kit.data import labels_of, load

    bundle = load("digits", train_size=120)
    honest = clean(bundle)
    assert (labels_of(study.task.forget) != labels_of(honest.forget)).all()
    assert (labels_of(study.task.retain) == labels_of(honest.retain)).all()


def test_a_method_that_refuses_is_reported_and_the_others_go_on(found):
    folder, *_ = found
    report = AuditStudy(config(folder, ("erase_to_retain:where=nowhere", "finetune"), random_labels=True)).run()
    assert report.methods[0].reason.startswith("ValueError")
    assert report.methods[1].reason is None


def test_an_estimate_names_what_it_is_made_of(found):
    _, study, _, _ = found
    estimate = study.estimate()
    assert estimate.training > 0
    assert estimate.runs["finetune"] > 0
    assert "8 trainings" in estimate.text
    assert "4 x finetune" in estimate.text


def test_an_estimate_shares_the_work_among_the_workers():
    runs = {"finetune": 10.0, "odd": None}
    assert AuditEstimate(600.0, runs, 64).text.startswith(
        f"about {in_words(1240)}: 128 trainings {in_words(600)}, 64 x fine"
    )
    two = AuditEstimate(600.0, runs, 64, workers=2).text
    assert two.startswith(
        f"about {in_words(620)}: 128 trainings {in_words(300)}, 64 x finetune {in_words(320)}, odd unk"
    )
    # Oracles and originals are two pieces of work, however many could be had.
    assert f"128 trainings {in_words(300)}" in AuditEstimate(600.0, runs, 64, workers=4).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": 3}, "expected models to be at least 4"),
        ({"workers": 0}, "expected workers to be at least 1"),
        ({"models": 6, "pairs": 4}, "expected pairs to be at most half of models"),
    ],
)
def test_options_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        config(tmp_path, **options)


def test_masks_and_mislabelled_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected data with class labels"):
        AuditConfig(DemoConfig(data="synthetic-lesions", out=tmp_path))
    with pytest.raises(ValueError, match=r"expected random_labels with forget='random:...'"):
        AuditConfig(DemoConfig(data="digits", out=tmp_path), random_labels=True)


def test_the_command_prints_ideals_and_verdicts(found):
    folder, *_ = found
    options = ["--train-size", 120, "--model", "mlp", "--epochs", 2, "--forget", "random:0.2", "--random-labels"]
    options += ["--models", 4, "--pairs", 2, "--method", "finetune", "--workers", 2, "--out", folder]
    done = CliRunner().invoke(app, ["audit", *map(str, options)], env={"COLUMNS": "240"})
    assert done.exit_code == 0, done.output
    for text in (
        "ideal",
        "2nd reference",
        "U-LiRA",
        "anamnesis index",
        "KL(unlearned || oracle)",
        "margins on forget data",
    ):
        assert text in done.output
