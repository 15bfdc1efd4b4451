"""Laws of an evaluation on cells whose truth is planted."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import precision_recall_fscore_support

from tests.judging.evaluate_cases import judge_layers, judged_cells, planted_layers
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.schema import COUNTS, GENE_IDS, IMAGE, ROW_ID, TEXT
from xfm.judging.judge import classifier_scores, judge
from xfm.judging.probe import Prediction, linear_probe, standardised
from xfm.judging.row_noun import noun_of
from xfm.studies.evaluate.class_tables import class_table, classes_csv
from xfm.studies.evaluate.figures import draw
from xfm.studies.evaluate.headline import headline
from xfm.studies.evaluate.report import evaluate_report
from xfm.studies.evaluate.verdict import LAST, judge_label


def balanced(cells=1200, classes=4, seed=0):
    return np.random.default_rng(seed).permutation(np.arange(cells) % classes).astype(np.int32)


@pytest.mark.parametrize("best", [1, 3])
def test_the_planted_layer_is_chosen_and_beats_the_last_one(best):
    codes = balanced()
    judged = judged_cells(codes)
    scores, verdict = judge_layers(planted_layers(codes, best=best), judged)
    assert verdict.chosen.layer == best
    assert verdict.duels[LAST].verdict == "beats"
    assert verdict.duels["majority"].verdict == "beats"
    values = [scores.primary(f"mean_l{layer:02d}", "type", "test").value for layer in range(7)]
    assert int(np.argmax(values)) == best
    said = headline(scores, verdict)
    assert f"layer {best} (mean), chosen on validation, beats the last layer beyond noise" in said


def test_the_interval_of_a_score_holds_its_expectation():
    """Far apart by a known distance, two classes are told apart as often as Gauss says."""
    from scipy.stats import norm

    rng = np.random.default_rng(5)
    codes = balanced(4000, 2, seed=5)
    vectors = rng.standard_normal((4000, 3)).astype(np.float32)
    vectors[:, 0] += 1.5 * codes
    judged = judged_cells(codes)
    scores, _ = judge_layers({0: vectors, 1: vectors}, judged)
    row = scores.get("mean_l00", "probe", "type", "accuracy", "test")
    assert row.low < norm.cdf(0.75) < row.high
    assert 0.02 < row.high - row.low < 0.06  # 1.96 standard errors of 1,200 cells to both sides are 0.047


def test_shuffled_labels_give_chance_at_every_layer():
    codes = balanced()
    layers = planted_layers(codes)
    shuffled = np.random.default_rng(9).permutation(codes)
    scores, verdict = judge_layers(layers, judged_cells(shuffled))
    for layer in layers:
        row = scores.get(f"mean_l{layer:02d}", "probe", "type", "accuracy", "test")
        assert row.low < 0.25 < row.high
        nearest = scores.get(f"mean_l{layer:02d}", "knn", "type", "accuracy", "test")
        assert nearest is None
    assert not any(test.verdict == "beats" for (_, what), test in verdict.by_layer.items() if what == LAST)
    # Guesses have a higher macro F1 than the largest class: to beat that one alone is nothing.
    said = headline(scores, verdict)
    assert "is not told apart from guessing by frequency" in said
    assert "every baseline" not in said


@pytest.mark.slow
def test_where_all_layers_tell_alike_nothing_is_claimed():
    codes = balanced()
    rng = np.random.default_rng(1)
    layers = {i: (rng.standard_normal((1200, 8)) + codes[:, None] * 0.4).astype(np.float32) for i in range(6)}
    wrong = 0
    for seed in range(4):
        _, verdict = judge_layers(layers, judged_cells(codes, seed=seed))
        wrong += any(test.verdict != "not told apart" for (_, what), test in verdict.by_layer.items() if what == LAST)
    assert wrong <= 1


def test_a_baseline_that_is_better_is_named():
    codes = balanced()
    layers = planted_layers(codes, strength=1.0)
    strong = planted_layers(codes, n_layers=0, best=0, strength=5.0, seed=4)[0]
    scores, verdict = judge_layers(layers, judged_cells(codes), baselines={"pca": strong})
    assert verdict.duels["pca"].verdict == "worse"
    assert "is worse than PCA" in headline(scores, verdict)


@pytest.mark.slow
def test_a_label_that_donors_carry_does_not_survive_a_split_by_donor():
    """The label is a coin a donor, and vectors tell the donor alone: by cell it can be read, by donor it cannot."""
    rng = np.random.default_rng(3)
    donors = np.arange(1600) % 40
    coin = rng.permutation(np.arange(40) % 2)
    codes = coin[donors].astype(np.int32)
    vectors = (4 * rng.standard_normal((40, 48))[donors] + rng.standard_normal((1600, 48))).astype(np.float32)
    layers = {0: vectors, 1: vectors}
    by_cell, _ = judge_layers(layers, judged_cells(codes))
    by_donor, _ = judge_layers(layers, judged_cells(codes, groups=donors))
    leaked = by_cell.get("mean_l00", "probe", "type", "accuracy", "test")
    honest = by_donor.get("mean_l00", "probe", "type", "accuracy", "test")
    assert leaked.value > 0.85
    assert honest.low < 0.5 < honest.high
    assert honest.groups == 12
    assert honest.high - honest.low > 3 * (leaked.high - leaked.low)  # 12 donors are no 480 cells


@pytest.mark.slow
def test_copies_on_both_sides_would_be_read_by_neighbours():
    """Vectors and labels are noise, each cell is there twice: only a split through copies can read it."""
    rng = np.random.default_rng(6)
    once = rng.standard_normal((600, 12)).astype(np.float32)
    vectors, codes = np.vstack([once, once]), np.tile(balanced(600), 2)
    copies = np.tile(np.arange(600), 2)
    for kept, leaks in ((None, True), (copies, False)):
        judged = judged_cells(codes, copies=kept, k=1)
        scores, _ = judge_layers({0: vectors, 1: vectors}, judged, tasks=("probe", "knn"))
        row = scores.get("mean_l00", "knn", "type", "accuracy", "test")
        assert (row.low > 0.3) == leaks
        if not leaks:
            assert row.low < 0.25 < row.high


def test_features_are_scaled_by_training_cells_alone():
    rng = np.random.default_rng(8)
    vectors = (rng.standard_normal((300, 5)) * 3 + 2).astype(np.float32)
    parts = np.array([TRAIN] * 200 + [TEST] * 100, np.int8)
    features = standardised(vectors, parts)
    np.testing.assert_allclose(features[:200].mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features[:200].std(axis=0), 1, atol=1e-5)
    moved = vectors.copy()
    moved[200:] += 1000
    np.testing.assert_array_equal(standardised(moved, parts)[:200], features[:200])


def test_a_constant_layer_tells_the_largest_class_and_nothing_fails():
    codes = np.array([0] * 500 + [1] * 200 + [2] * 100, np.int32)
    layers = {0: np.full((800, 4), 0.3, np.float32), 1: planted_layers(codes)[3]}
    scores, verdict = judge_layers(layers, judged_cells(codes), tasks=("probe", "knn"))
    for task in ("probe", "knn"):
        constant = scores.get("mean_l00", task, "type", "accuracy", "test")
        assert constant.value == scores.get("majority", "probe", "type", "accuracy", "test").value
        assert "constant" in constant.note
    assert verdict.chosen.layer == 1


@pytest.mark.slow
def test_the_report_names_its_choice_and_its_tables_whatever_the_label_is_called(tmp_path):
    codes = balanced(400)
    judged = judged_cells(codes, name="cell/type ü")
    scores, verdict = judge_layers(planted_layers(codes), judged)
    run = {"recipe": {"data": {}, "cells": "0"}, "versions": {}}
    report = evaluate_report(run, judged, scores, [verdict], ["a warning"], {})
    assert report.provenance["choice"]["cell/type ü"]["representation"] == verdict.chosen.name
    assert all("/" not in table.name for table in report.tables)
    summary = next(table for table in report.tables if table.is_summary)
    assert summary.rows[summary.best][0] == f"layer {verdict.chosen.layer} (mean)"
    own = scores.primary(verdict.chosen.name, judged.labels[0].name, "test")
    assert report.numbers["cell/type ü macro F1, chosen layer"] == own.estimate
    assert "a warning" in report.to_text()
    figures = draw(scores, judged, [verdict], {}, tmp_path)
    assert all((tmp_path / figure.png).stat().st_size > 5000 for figure in figures)
    assert figures[0].csv.startswith("plots/cell_type_")
    confusion = next(figure for figure in figures if "confusion" in figure.name)
    total = sum(
        int(cell) for line in (tmp_path / confusion.csv).read_text().splitlines()[1:] for cell in line.split(",")[1:]
    )
    assert total == own.cells


def test_the_classifier_that_chooses_speaks_in_headline_tables_and_figures(tmp_path):
    codes = balanced(600, 3)
    judged = judged_cells(codes, name="tone")
    layers = planted_layers(codes, n_layers=4, best=2)
    scores, verdict = judge_layers(layers, judged, tasks=("probe", "svm"), by="svm")
    values = {layer: scores.get(f"mean_l{layer:02d}", "svm", "tone", "f1", "validation").value for layer in layers}
    assert verdict.chosen.layer == max(values, key=values.get)
    own = scores.get(verdict.chosen.name, "svm", "tone", "f1", "test")
    said = headline(scores, verdict)
    assert f"macro F1 of the linear SVM {own.value:.3f} [{own.low:.3f}" in said
    assert "beats every baseline" in said
    report = evaluate_report({"recipe": {"data": {}, "cells": "0"}, "versions": {}}, judged, scores, [verdict], [], {})
    assert report.provenance["choice"]["tone"]["by"] == "svm macro F1"
    assert report.numbers["tone macro F1, chosen layer"] == own.estimate
    tables = {table.name: table for table in report.tables}
    summary = tables["tone_summary"]
    row = summary.rows[summary.best]
    assert row[1] == values[verdict.chosen.layer]
    assert row[summary.columns.index("SVM macro F1")] == own.estimate
    duel = scores.get("majority", "svm", "tone", "f1", "test")
    assert tables["tone_duels"].rows[-2][1] == duel.estimate
    figures = draw(scores, judged, [verdict], {}, tmp_path)
    assert "linear SVM" in figures[0].caption
    confused = next(figure for figure in figures if "confusion" in figure.name)
    assert "linear SVM" in confused.caption


def test_every_representation_has_all_scores_of_every_classifier_in_a_table():
    codes = balanced(400)
    judged = judged_cells(codes)
    scores, verdict = judge_layers(planted_layers(codes, n_layers=2, best=1), judged, tasks=("probe", "svm", "knn"))
    report = evaluate_report({"recipe": {"data": {}, "cells": "0"}, "versions": {}}, judged, scores, [verdict], [], {})
    tables = {table.name: table for table in report.tables}
    for task, rows in (("probe", 5), ("svm", 5), ("knn", 3)):
        table = tables[f"type_{task}"]
        assert table.columns[:4] == ["representation", "accuracy", "balanced accuracy", "macro F1"]
        assert table.columns[4:7] == ["weighted F1", "macro precision", "macro recall"]
        assert len(table.rows) == rows
        cells = [cell for row in table.rows for cell in row[1:7]]
        assert all(cell.why or cell.low <= cell.value <= cell.high for cell in cells)
        assert all(cell.low is not None for row in table.rows[-3:] for cell in row[1:7])
        for layer, row in enumerate(table.rows[-3:]):
            found = scores.get(f"mean_l{layer:02d}", task, "type", "precision", "test")
            assert row[5] == found.estimate


def test_scores_of_single_classes_are_those_of_scikit_learn_on_the_page_and_in_the_file():
    codes = balanced(500, 3)
    judged = judged_cells(codes)
    scores, verdict = judge_layers(planted_layers(codes, n_layers=3, best=1), judged, tasks=("probe", "svm"), by="svm")
    held = judged.test_cells(judged.labels[0])
    lines = list(csv.DictReader(io.StringIO(classes_csv(scores, judged).decode())))
    assert len(lines) == (4 + 2) * 2 * 3  # layers and two that see nothing, two classifiers, three classes
    for line in lines:
        predicted = scores.get(line["representation"], line["classifier"], "type", "f1", "test").predicted
        precision, recall, f1, support = precision_recall_fscore_support(codes[held], predicted, zero_division=0)
        at = int(line["class"].removeprefix("t"))
        found = [float(line[name]) for name in ("precision", "recall", "f1", "support")]
        assert found == pytest.approx([precision[at], recall[at], f1[at], support[at]])
    table = class_table(scores, judged, judged.labels[0], verdict)
    for name, words in ((verdict.chosen.name, ""), (verdict.last.name, ", last layer")):
        predicted = scores.get(name, "svm", "type", "f1", "test").predicted
        expected = precision_recall_fscore_support(codes[held], predicted)
        for row in table.rows:
            at = int(row[0].removeprefix("t"))
            for number, metric in enumerate(("precision", "recall", "F1")):
                assert row[table.columns.index(metric + words)] == pytest.approx(expected[number][at])
            assert row[table.columns.index("support")] == expected[3][at]


def test_predictions_of_any_classifier_become_scores_like_those_of_the_probe():
    """What a fine-tuned model says meets the same rows and resamples: the probe's predictions give its scores."""
    codes = balanced(300, 3)
    codes[::7] = -1
    judged = judged_cells(np.where(codes < 0, 0, codes))
    label = replace(judged.labels[0], codes=codes)
    judged = replace(judged, labels=(label,))
    vectors = planted_layers(np.maximum(codes, 0), n_layers=0, best=0)[0]
    own = list(judge(vectors, judged, ("probe",), (label,)))
    held = np.flatnonzero(codes >= 0)
    prediction = linear_probe(vectors[held], codes[held], judged.split.parts[held], 3)
    found = list(classifier_scores("finetune", prediction, judged, label))
    assert [(each.metric, each.split, each.value, each.cells) for each in found] == [
        (each.metric, each.split, each.value, each.cells) for each in own
    ]
    assert {each.task for each in found} == {"finetune"}
    for each, other in zip(found, own, strict=True):
        np.testing.assert_array_equal(each.draws, other.draws)
    short = Prediction(prediction.validation, prediction.test[:-1])
    with pytest.raises(ValueError, match="do not match"):
        list(classifier_scores("finetune", short, judged, label))


@pytest.mark.parametrize(
    ("columns", "noun"),
    [((ROW_ID, GENE_IDS, COUNTS), "cells"), ((ROW_ID, TEXT, "label"), "sentences"), ((IMAGE,), "images"), ((), "rows")],
)
def test_rows_are_called_what_the_source_gives(columns, noun):
    assert noun_of(columns) == noun
    codes = balanced(300, 3)
    judged = replace(judged_cells(codes), noun=noun)
    scores, verdict = judge_layers(planted_layers(codes, n_layers=1, best=0), judged)
    report = evaluate_report({"recipe": {"data": {}, "cells": "0"}, "versions": {}}, judged, scores, [verdict], [], {})
    assert report.numbers[noun] == 300
    assert f"test {noun}" in report.to_text()
    if noun != "cells":
        assert "cell" not in report.to_text()


def test_where_groups_are_too_few_to_tell_anything_the_headline_says_so():
    codes = balanced(800)
    donors = np.arange(800) % 12
    layers = planted_layers(codes, strength=4.0)
    scores, verdict = judge_layers(layers, judged_cells(codes, groups=donors))
    assert verdict.duels[LAST].difference.low > 0
    # 4 donors are 16 swaps, so that p is .125 or more. The one test chosen beforehand takes 6 donors; two baselines
    # at once take 7, as 2 x 2 / 2**6 is .0625; six layers at once 8 or more.
    assert verdict.duels[LAST].words == "not testable: takes 6 groups"
    assert verdict.duels["majority"].needs == "7 groups"
    assert {test.needs for (_, what), test in verdict.by_layer.items() if what == LAST} == {"8 groups"}
    said = headline(scores, verdict)
    assert "layer 3 (mean), chosen on validation" in said
    assert "not testable (takes 6 groups)" in said
    assert "beats" not in said


def test_six_donors_are_enough_for_the_one_test_that_was_chosen_beforehand():
    codes = balanced(1600)
    scores, verdict = judge_layers(
        planted_layers(codes, strength=4.0), judged_cells(codes, groups=np.arange(1600) % 20)
    )
    assert verdict.duels[LAST].groups == 6
    assert verdict.duels[LAST].p == pytest.approx(2 / 2**6)
    assert "beats the last layer beyond noise" in headline(scores, verdict)


def test_a_layer_that_is_not_the_last_stored_is_not_called_so():
    codes = balanced(600)
    judged = judged_cells(codes)
    layers = planted_layers(codes)
    some = {layer: layers[layer] for layer in (2, 3, 4)}
    scores, _ = judge_layers(some, judged)
    verdict = judge_label(scores, judged, judged.labels[0], deepest=6)
    assert not verdict.is_last
    assert "layer 4, the deepest judged" in headline(scores, verdict)
    assert "the last" not in headline(scores, verdict)
    one, _ = judge_layers({3: layers[3]}, judged)
    alone = judge_label(one, judged, judged.labels[0], deepest=6)
    assert alone.last is None
    assert "last" not in headline(one, alone)


def test_the_headline_does_not_say_that_no_layer_is_better_where_one_is():
    """On validation cells the last layer tells more, on test cells another one does."""
    codes = balanced(1200)
    judged = judged_cells(codes)
    is_test = judged.split.parts == TEST
    weak, strong = planted_layers(codes, 1, 0, strength=0.5), planted_layers(codes, 1, 0, strength=6.0, seed=1)
    last = np.where(is_test[:, None], weak[0], strong[0])
    early = strong[0] + np.where((judged.split.parts == VALIDATION)[:, None], 3 * weak[1], 0)
    scores, verdict = judge_layers({0: early.astype(np.float32), 1: last}, judged)
    assert verdict.chosen.layer == 1
    said = headline(scores, verdict)
    assert "validation chose the last layer itself" in said
    assert "on test cells 1 layer does better beyond noise" in said
    assert "no layer beats" not in said


def test_a_gain_that_one_rare_class_carries_is_said_of_that_class():
    """Layer 1 tells a rare class that layer 2 takes for another, and is the same for the rest."""
    rng = np.random.default_rng(0)
    codes = np.where(rng.random(3000) < 0.1, 2, rng.integers(0, 2, 3000)).astype(np.int32)
    own = (np.eye(3)[codes] * 4 + rng.normal(size=(3000, 3))).astype(np.float32)
    last = own.copy()
    last[:, 2] = 0
    last[codes == 2] = own[codes == 0][: (codes == 2).sum()] * [1, 1, 0]
    judged = judged_cells(codes)
    scores, verdict = judge_layers({0: rng.normal(size=(3000, 3)).astype(np.float32), 1: own, 2: last}, judged)
    table = class_table(scores, judged, judged.labels[0], verdict)
    gains = {row[0]: row[table.columns.index("F1 minus the last layer")] for row in table.rows}
    rare = judged.labels[0].classes[2]
    assert gains[rare].low > 0.5
    assert all(gain.low > -0.02 for gain in gains.values())
    assert max(gain.value for name, gain in gains.items() if name != rare) < 0.2


def test_a_batch_that_tells_the_label_is_warned_of():
    codes = balanced(400)
    judged = judged_cells(codes)
    scores, verdict = judge_layers(planted_layers(codes, n_layers=1, best=0), judged)
    run = {"recipe": {"data": {}, "cells": "0"}, "versions": {}}
    for batch, strength in ((codes, "1.00"), (np.random.default_rng(0).permutation(codes), None)):
        confounded = replace(judged, batch=replace(judged.labels[0], name="plate", codes=batch))
        said = " ".join(evaluate_report(run, confounded, scores, [verdict], [], {}).warnings)
        assert (f"plate and type go together (Cramér's V {strength}" in said) if strength else "go together" not in said
