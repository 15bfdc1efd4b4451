"""What a donor classifier leaves behind: scores beside what a data set alone tells, leakage, report, checkpoint."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from safetensors.torch import load_file
from sklearn import metrics

from tests.tasks.adversarial.donors import TINY, Effects, atlas, learner, memory, truth
from tests.tasks.classification.test_finetuning_results import RUN, SETTINGS, run_of, trained
from xfm.core.parts import TEST
from xfm.core.report import Estimate
from xfm.core.storage import open_storage
from xfm.judging.classifier_report import found_score
from xfm.judging.labelled import labelled_rows
from xfm.judging.score import SCHEMA
from xfm.judging.seeds import seeds_report
from xfm.models.fusion.config import Fusion
from xfm.tasks.adversarial.report import adversarial_report, attention_words, cautions, draw, sample_names
from xfm.tasks.adversarial.scores import score_table
from xfm.tasks.adversarial.settings import AdversarialClassification
from xfm.tasks.adversarial.task import write_adversarial

TASK = AdversarialClassification()
OWN = "finetuned_adversarial"


@pytest.fixture(scope="module")
def cells():
    return atlas(Effects(donor=1.0, sex=1.0), cells=500, donors=8)


@pytest.fixture(scope="module")
def rows(cells):
    return memory(cells)


def labelled_of(rows, task=TASK):
    return labelled_rows(rows, task.label, None, seed=0, resamples=100, noun="cells", also_read=task.columns)


@pytest.fixture(scope="module")
def labelled(rows):
    return labelled_of(rows)


@pytest.fixture(scope="module")
def outcome(cells, rows):
    return learner(cells, TASK, rows=rows).outcome(0)


@pytest.fixture(scope="module")
def scores(outcome, labelled):
    return score_table(outcome, labelled, TASK, "epoch 1")


def test_scores_have_a_row_for_each_question(scores):
    assert scores.schema == SCHEMA
    found = {(row["representation"], row["task"], row["label"], row["metric"], row["split"])
             for row in scores.to_pylist()}  # fmt: skip
    assert len(found) == len(scores), "no question is answered twice"
    usual = ("accuracy", "balanced_accuracy", "f1", "precision", "weighted_f1")
    for name in (OWN, "majority", "chance", "within_majority"):
        assert {(name, "finetune", "donor_id", metric, "test") for metric in usual} <= found
    for name in (OWN, "chance", "within_majority"):
        assert (name, "finetune", "donor_id", "within_accuracy", "test") in found
    for split in ("validation", "test"):
        assert (OWN, "leakage", "sex", "auroc", split) in found
    assert (OWN, "fresh_probe", "donor_id", "accuracy", "test") in found
    assert (OWN, "fresh_probe", "dataset_id", "auroc", "test") in found
    for split in ("validation", "test"):
        assert {(OWN, "finetune", "donor_id", metric, split) for metric in ("log_loss", "ece")} <= found


def test_accuracies_are_counted_by_hand(rows, outcome, scores):
    """Within: the best logit among donors of the own data set, all of which training has seen."""
    donor, sets = truth(rows, TEST, "donor_id"), truth(rows, TEST, "dataset_id")
    names = np.unique(donor)
    logits = outcome["test"]
    assert scores_of(scores, OWN, "accuracy").value == pytest.approx(np.mean(names[logits.argmax(1)] == donor))
    assert scores_of(scores, OWN, "weighted_f1").value == pytest.approx(
        metrics.f1_score(donor, names[logits.argmax(1)], average="weighted")
    )
    home = {name: sets[donor == name][0] for name in names}
    masked = np.where([[home[name] == own for name in names] for own in sets], logits, -np.inf)
    within = np.mean(names[masked.argmax(1)] == donor)
    assert scores_of(scores, OWN, "within_accuracy").value == pytest.approx(within)
    assert scores_of(scores, "chance", "within_accuracy") == pytest.approx(0.25)
    training = truth(rows, 0, "donor_id")
    largest = {own: max(names, key=lambda name: ((training == name) & (home[name] == own)).sum()) for own in set(sets)}
    expected = np.mean([largest[own] for own in sets] == donor)
    assert scores_of(scores, "within_majority", "within_accuracy").value == pytest.approx(expected)
    assert scores_of(scores, "within_majority", "accuracy").value == pytest.approx(expected)


def scores_of(scores, representation, metric):
    return found_score(scores, representation, metric, "test", "finetune")


def test_leakage_is_read_from_features_and_not_from_the_adversary(labelled, outcome, rows, cells):
    """Features that are the sex leak it; noise does not, whatever the logits say."""
    planted = dict(outcome)
    rng = np.random.default_rng(0)
    for part, name in ((1, "validation"), (2, "test")):
        sex = (truth(rows, part, "sex") == "male").astype(np.float32)
        planted[f"{name}_features"] = np.stack([sex, rng.normal(size=len(sex))], axis=1).astype(np.float32)
    found = score_table(planted, labelled, TASK)
    assert found_score(found, OWN, "auroc", "test", "leakage").value == 1.0
    assert found_score(found, OWN, "balanced_accuracy", "validation", "leakage").value == 1.0
    assert found_score(found, OWN, "accuracy", "test", "finetune") == found_score(
        score_table(outcome, labelled, TASK), OWN, "accuracy", "test", "finetune"
    )


def test_leakage_that_is_not_defined_has_no_value_but_a_note(cells):
    """All donors but one of a sex unknown: it cannot be held out."""
    only = np.where(np.array(cells["donor_id"].to_pylist()) == "donor 00", "female", "male")
    table = cells.set_column(cells.schema.get_field_index("sex"), "sex", pa.array(only))
    rows = memory(table)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labelled_of(rows), TASK)
    found = found.filter(pc.equal(found["task"], "leakage"))
    (row,) = found.filter(pc.and_(pc.equal(found["metric"], "auroc"), pc.equal(found["split"], "test"))).to_pylist()
    assert row["value"] is None
    assert "1 group" in row["note"]


def rows_with(cells, name, words):
    return cells.set_column(cells.schema.get_field_index(name), name, pa.array(words))


def test_the_data_set_is_read_in_donors_that_were_held_out(cells, labelled, outcome, rows):
    """Features that are the donor: cell by cell its data set is read by heart, over whole donors it is not."""
    planted = dict(outcome)
    for part, name in ((1, "validation"), (2, "test")):
        donor = truth(rows, part, "donor_id")
        planted[f"{name}_features"] = (donor[:, None] == np.unique(donor)).astype(np.float32)
    found = score_table(planted, labelled, TASK)
    assert found_score(found, OWN, "accuracy", "test", "fresh_probe").value == 1.0  # of the donors
    (row,) = [each for each in found.to_pylist() if (each["label"], each["metric"]) == ("dataset_id", "auroc")]
    assert row["value"] == pytest.approx(0.5, abs=0.05)  # ties, up to rounding
    assert row["note"] == "cross-validated over whole donor_ids"


def test_a_data_set_with_a_single_donor_has_no_value_but_a_note(cells):
    sets = np.where(np.array(cells["donor_id"].to_pylist()) == "donor 00", "alone", "others")
    table = rows_with(cells, "dataset_id", sets)
    rows = memory(table)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labelled_of(rows), TASK).to_pylist()
    (row,) = [each for each in found if (each["label"], each["metric"]) == ("dataset_id", "auroc")]
    assert row["value"] is None
    assert "1 group" in row["note"]


@pytest.mark.slow
def test_a_donor_of_two_sexes_is_left_out_and_said(cells, labelled):
    donor, sex = np.array(cells["donor_id"].to_pylist()), np.array(cells["sex"].to_pylist())
    mixed = np.where((donor == "donor 00") & (np.arange(len(donor)) % 2 == 0), "male", sex)
    table = rows_with(cells, "sex", mixed)
    rows = memory(table)
    labels = labelled_of(rows)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labels, TASK).to_pylist()
    (row,) = [each for each in found if (each["task"], each["metric"], each["split"]) == ("leakage", "auroc", "test")]
    assert row["groups"] == 7
    assert "1 of several sex values left out" in row["note"]
    said = " ".join(cautions(run_of(trained({}), labels), TASK, None))
    assert "donor_id has classes of several sex" in said
    assert "is a function of" not in said


@pytest.mark.slow
def test_a_data_set_that_is_unknown_of_every_row_is_said(cells):
    table = rows_with(cells, "dataset_id", ["unknown"] * len(cells))
    rows = memory(table)
    labels = labelled_of(rows)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labels, TASK)
    for row in found.to_pylist():
        if row["metric"] == "within_accuracy":
            assert row["value"] is None
            assert row["note"] == "no dataset_id of training is among them"
    assert scores_of(found, "within_majority", "accuracy") == scores_of(found, "majority", "accuracy")


@pytest.mark.slow
def test_rows_of_an_unknown_data_set_get_the_largest_class_of_all_rows(cells):
    """Also of those that are themselves of no known data set: here these are all rows of the largest donor."""
    donor = np.array(cells["donor_id"].to_pylist())
    training = donor[np.array(cells["split"].to_pylist()) == "train"]
    names, counts = np.unique(training, return_counts=True)
    largest = names[counts.argmax()]
    table = rows_with(cells, "dataset_id", np.where(donor == largest, "unknown", cells["dataset_id"].to_pylist()))
    rows = memory(table)
    labels = labelled_of(rows)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labels, TASK).to_pylist()
    (row,) = [
        each for each in found
        if (each["representation"], each["metric"], each["split"]) == ("within_majority", "f1", "test")
    ]  # fmt: skip
    said = np.array(labels.label.classes)[np.array(row["predicted"])]
    assert (said[truth(rows, TEST, "donor_id") == largest] == largest).all()


def test_two_test_rows_are_too_few_for_a_fresh_probe_and_no_error(cells):
    split = np.array(cells["split"].to_pylist())
    split[np.flatnonzero(split == "test")[2:]] = "train"
    table = rows_with(cells, "split", split)
    rows = memory(table)
    found = score_table(learner(table, TASK, rows=rows).outcome(0), labelled_of(rows), TASK).to_pylist()
    for row in found:
        if row["split"] == "test" and row["task"] in ("fresh_probe", "leakage"):
            assert row["value"] is None
            assert row["note"]


def test_log_loss_and_calibration_error_are_those_of_the_reference(labelled, outcome, rows, scores):
    donor = truth(rows, TEST, "donor_id")
    logits = outcome["test"].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert scores_of(scores, OWN, "log_loss").value == pytest.approx(metrics.log_loss(donor, shares), rel=1e-5)
    confidence, right = shares.max(axis=1), np.unique(donor)[shares.argmax(axis=1)] == donor
    place = np.ceil(confidence * 15)
    by_hand = sum(abs(right[place == k].sum() - confidence[place == k].sum()) for k in range(1, 16)) / len(donor)
    assert scores_of(scores, OWN, "ece").value == pytest.approx(by_hand)


def test_weights_of_an_early_step_are_reported_with_the_strength_that_they_met(labelled, outcome, scores):
    """2 / (1 + exp(-10 p)) - 1 is .46 a tenth through the run, and .76 a fifth through it."""
    settings = replace(SETTINGS, steps=100)
    for step, strength, is_weak in ((10, 0.0462, True), (20, 0.0762, False)):
        early = replace(trained(outcome), best_step=step)
        said = " ".join(cautions(run_of(early, labelled, settings), TASK, None))
        assert ("less than half of --task.lambda_adv" in said) == is_weak
        report = adversarial_report(run_of(early, labelled, settings), TASK, scores, [])
        assert report.numbers["strength of reversal at the step kept"] == strength
    plain = TASK.model_copy(update={"adversary": False})
    assert "--task.lambda_adv" not in " ".join(
        cautions(run_of(replace(trained({}), best_step=1), labelled, settings), plain, None)
    )


def test_an_attribute_of_one_class_is_no_error_without_an_adversary(cells):
    table = cells.set_column(cells.schema.get_field_index("sex"), "sex", pa.array(["female"] * len(cells)))
    rows, task = memory(table), TASK.model_copy(update={"adversary": False})
    labelled = labelled_of(rows, task)
    assert labelled.also_read("sex").classes == ("female",)
    found = score_table(learner(table, task, rows=rows).outcome(0), labelled, task)
    assert found_score(found, "finetuned_plain", "auroc", "test", "leakage") is None
    assert any("nothing to unlearn" in each for each in cautions(run_of(trained({}), labelled), task, None))


def test_the_report_says_what_must_be_known(labelled, outcome, scores):
    warnings = cautions(run_of(trained(outcome), labelled), TASK, "random_cell")
    report = adversarial_report(run_of(trained(outcome), labelled), TASK, scores, warnings)
    said = " ".join(report.warnings)
    assert "re-identification" in said
    assert "sex is a function of donor_id" in said
    assert "in-distribution" in said
    assert "that the network was trained with, and the probe was not, with an AUROC of" in report.headline
    assert "chance: 0.250" in report.headline
    assert isinstance(report.numbers["test sex leakage AUROC"], Estimate)
    table = next(each for each in report.tables if each.name == "summary")
    assert {row[0] for row in table.rows} == {
        "fine-tuned", "largest class of the data set", "largest class", "guessing by frequency"
    }  # fmt: skip
    assert len(next(each for each in report.tables if each.name == "fresh_probes").rows) == 8
    assert not any("turned twice" in each for each in warnings)
    doubled = TASK.model_copy(update={"reversal": "reference"})
    assert "turned twice" in cautions(run_of(trained(outcome), labelled), doubled, None)[0]


def test_seeds_are_told_apart_by_the_classifiers_own_rows(scores):
    """Leakage has a balanced accuracy too; the spread is that of the donors'."""
    report = seeds_report({0: scores, 1: scores}, OWN, "donor_id", [], RUN, {})
    (row,) = [row for row in report.tables[0].rows if row[:2] == ["balanced accuracy", "test"]]
    assert row[2] == pytest.approx(scores_of(scores, OWN, "balanced_accuracy").value)


def test_a_constant_map_of_attention_is_called_one():
    assert attention_words({"variation": 0.0}, "cells")
    assert not attention_words({"variation": 0.2}, "cells")
    assert not attention_words(None, "cells")


def test_figures_have_their_numbers_beside_them(tmp_path, labelled, outcome):
    history = [{"step": 4, "epoch": 1.0, "lr": 0.1, "loss": 0.7, "main": 0.5, "adversary": 0.2, "validation_loss": 0.6,
                "validation_f1": 0.5, "validation_accuracy": 0.5}] * 2  # fmt: skip
    names = sample_names(labelled, outcome)
    assert len(names) == 3
    figures = draw(history, labelled, outcome, tmp_path)
    assert [each.name for each in figures] == [
        "confusion", "training_metrics", "cross_attention", "avg_text_to_gene_attention"
    ]  # fmt: skip
    for each in figures:
        assert (tmp_path / each.png).stat().st_size > 0
        assert (tmp_path / each.csv).stat().st_size > 0


def test_a_checkpoint_holds_every_tensor_and_is_a_fusion_to_start_from(tmp_path, cells, rows):
    config = Fusion(**TINY.model_dump())
    bank = config.bank_of(sorted(set(cells["cell_type"].to_pylist())), open_storage(str(tmp_path / "cache")))
    of = learner(cells, TASK, rows=rows, bank=bank)
    write_adversarial(tmp_path / "checkpoint", of.network, replace(of.recipe, backbone=config), {"lr": 1})
    beside = load_file(tmp_path / "checkpoint" / "classifier.safetensors")
    torch.testing.assert_close({f"network.{n}": p for n, p in of.network.network.state_dict().items()} | beside,
                               dict(of.network.state_dict()))  # fmt: skip
    started = Fusion(checkpoint=str(tmp_path / "checkpoint")).start(16, bank, 5)
    torch.testing.assert_close(dict(started.named_parameters()), dict(of.network.network.named_parameters()))
    about = json.loads((tmp_path / "checkpoint" / "classifier.json").read_text())
    assert about["classes"] == list(of.columns.classes)
    assert about["training"] == {"lr": 1}
