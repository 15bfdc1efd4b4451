"""What is judged beside a label: the choice within the own set, and what an attribute leaks; truths are planted."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier

from tests.judging.evaluate_cases import judge_layers, judged_cells
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import Labels
from xfm.judging.judge import judge
from xfm.judging.judge_within import judge_within, largest_within
from xfm.judging.probe import COSTS, Prediction, linear_probe, nearest_neighbours, scaled_as_one, standardised
from xfm.judging.representations import CHANCE, WITHIN_MAJORITY
from xfm.studies.evaluate.report import evaluate_report

DONORS, SETS = 6, 2


def cells(n=600, *, donor=0.0, dataset=0.0, sex=0.0, seed=0, unknown=0):
    """Six donors, two data sets of three, sexes in turn: (N, 8) vectors with known effects, and who is judged."""
    rng = np.random.default_rng(seed)
    donors = rng.integers(0, DONORS, n)
    sets, sexes = donors % SETS, (donors // SETS) % 2
    effects = [size * rng.normal(size=(k, 8)) for size, k in ((donor, DONORS), (dataset, SETS), (sex, 2))]
    vectors = sum(effect[codes] for effect, codes in zip(effects, (donors, sets, sexes), strict=True))
    vectors = (vectors + rng.normal(size=(n, 8))).astype(np.float32)
    held = np.where(np.arange(n) < unknown, -1, sets).astype(np.int32)
    judged = judged_cells(
        donors, name="donor", within=Labels("set", held, ("a", "b")),
        attribute=Labels("sex", sexes.astype(np.int32), ("female", "male")),
    )  # fmt: skip
    return vectors, judged


def found(vectors, judged, **more):
    return {(s.task, s.metric, s.split): s for s in judge(vectors, judged, ("probe", "knn"), judged.labels, **more)}


def test_who_knows_the_data_set_alone_is_at_chance_within_it_and_not_without():
    scores = found(*cells(1200, dataset=3.0))
    plain, within = (scores["probe", metric, "test"] for metric in ("accuracy", "within_accuracy"))
    assert plain.value > 0.26  # knowing the set gives a third, chance a sixth
    assert within.value == pytest.approx(1 / 3, abs=0.07)
    assert np.nanquantile(within.draws, 0.025) < 1 / 3 < np.nanquantile(within.draws, 0.975)


def test_who_knows_the_donor_is_right_within_its_data_set():
    scores = found(*cells(donor=3.0))
    assert scores["probe", "within_accuracy", "test"].value > 0.9
    assert scores["knn", "within_accuracy", "test"].value > 0.9


def test_the_choice_within_is_the_best_class_of_the_own_set_by_a_loop_over_rows():
    vectors, judged = cells(donor=0.7)
    codes, parts = judged.labels[0].codes, judged.split.parts
    prediction = linear_probe(vectors, codes, parts, DONORS)
    seen = {(s, c) for s, c, part in zip(judged.within.codes, codes, parts, strict=True) if part == TRAIN}
    hits = []
    for row, scores in zip(np.flatnonzero(parts == TEST), prediction.test_scores, strict=True):
        allowed = [c for c in range(DONORS) if (judged.within.codes[row], c) in seen]
        hits.append(max(allowed, key=lambda c: scores[c]) == codes[row])
    test = next(s for s in judge_within("probe", prediction, judged, judged.labels[0]) if s.split == "test")
    assert test.value == pytest.approx(np.mean(hits))
    assert test.value > np.mean(prediction.test == codes[parts == TEST])


@pytest.mark.parametrize("classes", [2, 4])
def test_scores_of_the_probe_are_those_of_a_fit_of_its_own(classes):
    rng = np.random.default_rng(1)
    codes = rng.integers(0, classes, 300).astype(np.int32)
    vectors = (rng.normal(size=(classes, 5))[codes] + rng.normal(size=(300, 5))).astype(np.float32)
    parts = np.repeat(np.array([TRAIN, VALIDATION, TEST], np.int8), 100)
    prediction = linear_probe(vectors, codes, parts, classes)
    fits = []
    for scale in (standardised, scaled_as_one):
        features = scale(vectors, parts)
        fits += [(LogisticRegression(C=c, max_iter=500).fit(features[:100], codes[:100]), features) for c in COSTS]
    same = [model for model, x in fits if np.array_equal(model.predict(x[200:]), prediction.test)]
    assert same
    assert prediction.test_scores.shape == (100, classes)
    np.testing.assert_array_equal(prediction.test_scores.argmax(axis=1), prediction.test)


def test_scores_of_neighbours_are_their_votes_and_their_classes_those_of_scikit_learn():
    rng = np.random.default_rng(1)
    codes = rng.choice([0, 1, 3], 300).astype(np.int32)  # class 2 is in no training row
    vectors = (codes[:, None] + rng.normal(size=(300, 3))).astype(np.float32)
    parts = np.repeat(np.array([TRAIN, VALIDATION, TEST], np.int8), 100)
    prediction = nearest_neighbours(vectors, codes, parts, 4, 7)
    both = []
    for scale in (standardised, scaled_as_one):
        features = scale(vectors, parts)
        model = KNeighborsClassifier(7, algorithm="brute").fit(features[:100], codes[:100])
        both.append((model.predict(features[200:]).tolist(), model.predict_proba(features[200:]).tolist()))
    votes = prediction.test_scores
    assert np.isneginf(votes[:, 2]).all()
    assert (prediction.test.tolist(), votes[:, [0, 1, 3]].astype(float).round(6).tolist()) in [
        (classes, np.round(np.float32(shares).astype(float), 6).tolist()) for classes, shares in both
    ]


def test_the_largest_class_of_each_set_is_told_by_counting():
    _, judged = cells(300, unknown=40)
    codes, parts, sets = judged.labels[0].codes, judged.split.parts, judged.within.codes
    prediction = largest_within(judged, judged.labels[0])
    train = parts == TRAIN
    for row, said in zip(np.flatnonzero(parts == TEST), prediction.test, strict=True):
        own = train if sets[row] < 0 else train & (sets == sets[row])
        assert said == np.bincount(codes[own]).argmax()
    scores = found(None, judged, unseeing=WITHIN_MAJORITY)
    assert scores["probe", "accuracy", "test"].value == pytest.approx(np.mean(prediction.test == codes[parts == TEST]))
    known = sets[parts == TEST] >= 0
    within = scores["probe", "within_accuracy", "test"]
    assert within.value == pytest.approx(np.mean((prediction.test == codes[parts == TEST])[known]))
    assert within.cells == known.sum()
    assert "left out" in within.note


def test_guessing_within_a_set_of_three_donors_is_right_in_a_third():
    _, judged = cells()
    scores = found(None, judged, unseeing=CHANCE)
    assert scores["probe", "within_accuracy", "test"].value == pytest.approx(1 / 3)
    assert scores["probe", "within_accuracy", "test"].draws is None
    assert ("probe", "within_accuracy", "test") not in found(None, judged)


def test_without_a_column_of_sets_and_for_other_labels_there_is_no_such_score():
    vectors, judged = cells()
    second = Labels("other", judged.labels[0].codes % 2, ("x", "y"))
    both = replace(judged, labels=(judged.labels[0], second))
    named = {s.label for s in judge(vectors, both, ("probe",), both.labels) if s.metric == "within_accuracy"}
    assert named == {"donor"}
    none = judged_cells(judged.labels[0].codes)
    assert list(judge_within("probe", Prediction(*[judged.labels[0].codes] * 2), none, none.labels[0])) == []


@pytest.mark.slow
def test_a_planted_sex_leaks_and_none_does_not():
    """Sex is a donor's: with donors held out, only what all of one sex share is of use."""
    told = found(*cells(donor=0.3, sex=2.0))
    assert told["leakage", "auroc", "test"].value > 0.95
    assert told["leakage", "auroc", "validation"].value > 0.9
    assert told["leakage", "auroc", "test"].groups == DONORS
    silent = found(*cells(donor=0.0, sex=0.0, seed=3))
    assert abs(silent["leakage", "auroc", "test"].value - 0.5) < 0.25


@pytest.mark.slow
def test_donors_are_held_out_whole():
    """Vectors that name the donor and nothing else: cell by cell the sex is read, donor by donor not."""
    vectors, judged = cells(donor=4.0)
    rows = judged.split.where(TEST)
    sexes, donors = judged.attribute.codes[rows], judged.labels[0].codes[rows]
    by_cell = LogisticRegression().fit(vectors[rows], sexes).predict_proba(vectors[rows])[:, 1]
    assert roc_auc_score(sexes, by_cell) > 0.95
    read = np.zeros(len(rows))
    for train, test in GroupKFold(3).split(vectors[rows], sexes, donors):
        read[test] = (
            LogisticRegression().fit(vectors[rows][train], sexes[train]).predict_proba(vectors[rows][test])[:, 1]
        )
    assert roc_auc_score(sexes, read) < 0.9
    assert found(vectors, judged)["leakage", "auroc", "test"].value < 0.9


def test_an_attribute_with_a_single_donor_is_not_measured_and_says_why():
    vectors, judged = cells()
    alone = Labels("sex", (judged.labels[0].codes == 0).astype(np.int32), ("female", "male"))
    one = judged_cells(judged.labels[0].codes, name="donor", attribute=alone)
    score = found(vectors, one)["leakage", "auroc", "test"]
    assert score.value is None
    assert "1 group" in score.note


def test_of_classes_with_several_values_of_the_attribute_nothing_is_measured():
    """Cell types have cells of both sexes: whoever has seen other types has seen their donors."""
    vectors, judged = cells(donor=3.0)
    types = np.random.default_rng(4).integers(0, 6, len(vectors))
    by_type = judged_cells(types, name="cell_type", attribute=judged.attribute)
    score = found(vectors, by_type)["leakage", "auroc", "test"]
    assert score.value is None
    assert "6 of several sex values left out" in score.note


def test_both_are_in_the_tables_the_numbers_and_the_digest():
    vectors, judged = cells(donor=1.0, sex=1.0)
    scores, verdict = judge_layers({0: vectors}, judged)
    run = {"recipe": {"data": {}, "cells": "0"}, "versions": {}}
    report = evaluate_report(run, judged, scores, [verdict], [], {})
    tables = {table.name: table for table in report.tables}
    probe = tables["donor_probe"]
    row = dict(zip(probe.columns, probe.rows[-1], strict=True))
    assert (
        row["accuracy within the data set"]
        == scores.get("mean_l00", "probe", "donor", "within_accuracy", "test").estimate
    )
    assert row["weighted F1"] == scores.get("mean_l00", "probe", "donor", "weighted_f1", "test").estimate
    assert "own set" in probe.note
    assert tables["leakage"].columns[:3] == ["representation", "AUROC", "balanced accuracy"]
    assert [each[0] for each in tables["leakage"].rows] == ["layer 0 (mean)"]
    assert report.numbers["donor accuracy within set, chosen layer"] == row["accuracy within the data set"]
    assert report.numbers["AUROC of sex, chosen layer"] == tables["leakage"].rows[0][1]
    plain = judged_cells(judged.labels[0].codes, name="donor")
    assert plain.cells_digest() != judged.cells_digest()
    assert plain.label_digests()["donor"] == judged.label_digests()["donor"]
    assert set(judged.label_digests()) == {"donor", "sex"}


def test_a_constant_layer_has_the_largest_class_of_each_set():
    _, judged = cells()
    scores = found(np.ones((600, 3), np.float32), judged)
    oracle = found(None, judged, unseeing=WITHIN_MAJORITY)
    assert scores["probe", "within_accuracy", "test"].value == oracle["probe", "within_accuracy", "test"].value
