"""`jobs/evaluate.py` on a source of vectors: no backbone, stored as they are, judged within data sets too."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from xfm.core.errors import Refused
from xfm.sources.stored.source import open_embeddings
from xfm.sources.synthetic.atlas import Atlas
from xfm.studies.evaluate.config import EvaluateJob
from xfm.studies.evaluate.source import embedded

ATLAS = {"kind": "atlas", "n_cells": 600, "donor_effect": 0.0, "dataset_effect": 1.0, "sex_effect": 0.0}


@pytest.fixture(scope="module")
def judged(cluster, tmp_path_factory):
    """600 cells of six donors in two data sets, of whom the vectors tell the data set alone."""
    folder = tmp_path_factory.mktemp("vectors")
    source = [word for name, value in ATLAS.items() for word in (f"--source.{name}", str(value))]
    words = [*source, "--split", "split", "--labels", "donor_id", "--within", "dataset_id", "--leakage", "sex",
             "--tasks", "probe", "--bootstrap", "200", "--output", str(folder / "out")]  # fmt: skip
    cluster.run("evaluate", *words, cwd=folder)
    return folder / "out"


@pytest.mark.ray
@pytest.mark.slow
def test_vectors_are_stored_as_embed_stores_its_own(judged):
    stored, source = open_embeddings(str(judged / "embeddings")), Atlas(**ATLAS)
    assert [column.name for column in stored.columns] == ["embedding"]
    assert stored.is_finished()
    np.testing.assert_array_equal(stored.read("embedding"), source.vectors(np.arange(600)))
    assert set(stored.obs_names()) == {"cell_type", "donor_id", "sex", "dataset_id", "split"}
    run = json.loads((judged / "embeddings" / "run.json").read_text())
    assert run["job"] == "embed"
    assert run["recipe"]["data"] == source.identity()


@pytest.mark.ray
@pytest.mark.slow
def test_the_data_set_is_told_and_the_donor_within_it_is_not(judged):
    scores = pq.read_table(judged / "scores.parquet").to_pandas()
    found = scores[scores["split"] == "test"].set_index(["representation", "task", "metric"])
    assert found["value"]["embedding", "probe", "accuracy"] > 0.2
    assert found["low"]["embedding", "probe", "within_accuracy"] < 1 / 3
    assert found["high"]["embedding", "probe", "within_accuracy"] > 1 / 3
    assert found["value"]["chance", "probe", "within_accuracy"] == pytest.approx(1 / 3)
    assert found["value"]["within_majority", "probe", "within_accuracy"] < 0.6
    assert found["label"]["embedding", "leakage", "auroc"] == "sex"
    assert 0 <= found["value"]["embedding", "leakage", "auroc"] <= 1


@pytest.mark.ray
@pytest.mark.slow
def test_what_cannot_be_had_is_said_in_a_sentence(judged):
    report = json.loads((judged / "report.json").read_text())
    said = [warning for warning in report["warnings"] if "as the source gives them" in warning]
    assert said == [
        "The vectors are judged as the source gives them, without the baselines hvg, pca, random: there are neither "
        "genes nor a network."
    ]
    assert "the largest class of each one's own set" in json.dumps(report["tables"])


def test_a_source_without_vectors_needs_a_backbone(tmp_path):
    job = EvaluateJob
    config = job(source={"kind": "grammar"}, labels=("label",), output=str(tmp_path / "out"))
    with pytest.raises(Refused, match="no vectors: name a --backbone") as caught:
        embedded(config)
    assert caught.value.code == "NO_BACKBONE"
    assert not (tmp_path / "out").exists()


def test_a_backbone_without_a_source_is_refused():
    with pytest.raises(ValueError, match="found --backbone"):
        EvaluateJob(backbone={"kind": "hf_text", "checkpoint": "bert"}, labels=("label",), output="out")
