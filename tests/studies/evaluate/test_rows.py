"""Columns that scores are taken with: one that says the same of every row is no error."""

import anndata
import numpy as np
import pandas as pd
import pytest

from xfm.core.errors import Refused
from xfm.judging.judge import judge
from xfm.sources.stored.source import open_embeddings
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.question import Question
from xfm.studies.evaluate.rows import judged_rows


@pytest.fixture(scope="module")
def one_set(tmp_path_factory):
    """240 cells of four donors of one data set, one sex, who lie apart by half their noise."""
    rng = np.random.default_rng(0)
    donors = rng.integers(0, 4, 240)
    vectors = (np.eye(4, 6)[donors] + rng.normal(size=(240, 6)) * 0.7).astype(np.float32)
    obs = pd.DataFrame(
        {"donor_id": [f"d{donor}" for donor in donors], "dataset_id": "the one", "sex": ["male", "unknown"] * 120,
         "nothing": "unknown"}, index=[f"cell{i}" for i in range(240)],
    )  # fmt: skip
    path = tmp_path_factory.mktemp("one_set") / "cells.h5ad"
    anndata.AnnData(obs=obs, obsm={"X_pca": vectors}).write_h5ad(path)
    return path, vectors


def rows_of(path, **more):
    named = {"embeddings": str(path), "labels": ("donor_id",), "output": "unused", "bootstrap": 50} | more
    return judged_rows(open_embeddings(str(path)), {}, "cells", Question.of(EvaluateJob(**named)))


def test_within_one_data_set_accuracy_is_plain_and_one_sex_cannot_leak(one_set):
    path, vectors = one_set
    found = rows_of(path, within="dataset_id", leakage="sex")
    scores = judge(vectors, found.judged, ("probe",), found.judged.labels)
    scores = {(score.task, score.metric, score.split): score for score in scores}
    plain, within = (scores["probe", metric, "test"] for metric in ("accuracy", "within_accuracy"))
    assert 0.4 < plain.value < 1
    assert within.value == plain.value
    np.testing.assert_array_equal(within.draws, plain.draws)
    leaked = scores["leakage", "auroc", "test"]
    assert (leaked.value, leaked.draws) == (None, None)
    assert "nothing to tell apart" in leaked.note
    assert found.warnings[-2:] == [
        "--within dataset_id: no row has another value than 'the one'; accuracy within it is plain accuracy.",
        "--leakage sex: no row has another value than 'male'; there is nothing that could leak.",
    ]


@pytest.mark.parametrize("flag", ["within", "leakage"])
def test_a_column_that_says_nothing_is_refused(one_set, flag):
    with pytest.raises(Refused, match=f"NO_VALUES: --{flag} nothing: no judged row has a value"):
        rows_of(one_set[0], **{flag: "nothing"})


def test_a_label_of_one_class_is_refused_as_ever(one_set):
    with pytest.raises(Refused, match="ONE_CLASS"):
        rows_of(one_set[0], labels=("dataset_id",))
