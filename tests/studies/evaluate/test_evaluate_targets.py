"""Numbers in an evaluation: the planted layer is chosen on validation rows, and the report says so."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from tests.judging.evaluate_cases import judged_cells
from xfm.judging.eval_set import Targets
from xfm.judging.judge import judge
from xfm.judging.representations import MAJORITY, MEAN, Representation, layers_of
from xfm.judging.score import table_of
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.figures import draw
from xfm.studies.evaluate.question import Question
from xfm.studies.evaluate.report import evaluate_report
from xfm.studies.evaluate.targets import chosen_layer
from xfm.studies.evaluate.verdict import Scores, judge_label

RUN = {"recipe": {"data": {}, "cells": "c"}, "versions": {}}
BEST, LAYERS, N = 2, 4, 600


@pytest.fixture(scope="module")
def evaluated():
    """Layers that hold a number behind more noise the farther they are from the best."""
    rng = np.random.default_rng(0)
    codes = np.arange(N) % 2
    values = rng.normal(50, 10, N)
    values[:30] = np.nan
    judged = judged_cells(codes, np.arange(N) // 3, resamples=200, targets=(Targets("age", values, missing=30),))
    known = np.where(np.isfinite(values), values, 50.0)
    layers = {}
    for layer in range(LAYERS + 1):
        vectors = rng.normal(size=(N, 6)).astype(np.float32)
        vectors[:, 1] = (known - 50) / 10 + (0.3 + abs(layer - BEST)) * rng.normal(size=N)
        vectors[:, 0] += codes
        layers[f"mean_l{layer:02d}"] = vectors
    named = [*layers_of({"mean": list(range(LAYERS + 1))}, "embeddings", kind="layer")]
    named += [Representation(name, "baseline", "none", "", ()) for name in (MAJORITY, MEAN)]
    tables = [
        table_of(each, judge(layers.get(each.name), judged, ("probe",), judged.labels, judged.targets,
                             unseeing=each.name))
        for each in named
    ]  # fmt: skip
    scores = Scores(tables, named)
    return scores, judged, [judge_label(scores, judged, judged.labels[0])]


def test_the_planted_layer_is_chosen_and_its_r2_is_near_what_the_noise_allows(evaluated):
    scores, _, _ = evaluated
    chosen = chosen_layer(scores, "age")
    assert chosen is not None
    assert chosen.layer == BEST
    row = scores.get(chosen.name, "ridge", "age", "r2", "test")
    # The best guess of x from x + 0.3 noise explains 1 / 1.09 of the variance.
    assert row.low < 1 / 1.09 < row.high
    assert scores.get(MEAN, "ridge", "age", "r2", "test").value <= 0
    assert scores.get(MAJORITY, "ridge", "age", "r2", "test") is None


def test_the_report_names_layer_mean_and_missing_rows_and_draws_the_curve(evaluated, tmp_path):
    scores, judged, verdicts = evaluated
    report = evaluate_report(RUN, judged, scores, verdicts, [], {})
    (table,) = [each for each in report.tables if each.name == "age_ridge_summary"]
    assert f"layer {BEST}" in table.rows[table.best][0]
    assert "mean of training rows" in [row[0] for row in table.rows]
    assert report.numbers["age R², chosen layer"].value == table.rows[table.best][2].value
    assert report.provenance["choice"]["age"] == {
        "representation": f"mean_l{BEST:02d}", "chosen_on": "validation", "by": "ridge R²",
    }  # fmt: skip
    assert "age: 30 cells have no value and are not scored." in report.warnings
    figures = draw(scores, judged, verdicts, {}, tmp_path)
    (curve,) = [figure for figure in figures if figure.name == "age_r2"]
    assert (tmp_path / curve.png).stat().st_size > 5000
    assert (tmp_path / curve.csv).read_text().count("mean") >= LAYERS + 1


def test_without_targets_an_evaluation_is_what_it_was(evaluated):
    _, judged, _ = evaluated
    plain = replace(judged, targets=())
    assert {each.task for each in judge(np.eye(N, 4, dtype=np.float32), plain, ("probe",), plain.labels)} == {"probe"}
    config = EvaluateJob(embeddings="somewhere", labels=("type",), output="out")
    assert "targets" not in config.recipe()
    asked = EvaluateJob(embeddings="somewhere", labels=("type",), targets=("age", "age"), output="out")
    assert Question.of(asked).targets == ("age",)
    assert Question.of(asked).columns == ["type", "age"]


def test_a_column_is_not_told_both_as_classes_and_as_a_number():
    with pytest.raises(ValidationError, match="--labels names it too"):
        EvaluateJob(embeddings="somewhere", labels=("age",), targets=("age",), output="out")
