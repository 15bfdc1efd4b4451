"""`jobs/evaluate.py` as a user runs it: on an AnnData with planted layers, killed and continued, and refused."""

import json
import signal
import time
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from tests.conftest import load_job
from tests.judging.evaluate_cases import planted_layers
from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.score import SCHEMA
from xfm.models.scgpt.config import ScGPT
from xfm.studies.evaluate.plan import describe, plan_evaluation
from xfm.studies.evaluate.run import _random_twins

CELLS, BEST = 600, 3


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    """Six layers, the fourth of which tells the type best; counts that tell it less well; batches by lot."""
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 3, CELLS)
    counts = rng.poisson(np.where(np.arange(200) % 20 == codes[:, None], 1.6, 1.0)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": [f"type {code}" for code in codes],
            "donor_id": [f"d{donor}" for donor in rng.integers(0, 30, CELLS)],
            "batch": rng.choice(["one", "two"], CELLS),
            "score": rng.standard_normal(CELLS),
            "day": rng.integers(0, 4, CELLS),
            "stated": np.where(np.arange(CELLS) % 5 == 0, "Test", np.where(np.arange(CELLS) % 5 == 1, "val", "train")),
            "halves": np.where(np.arange(CELLS) % 2 == 0, "test", "training"),
        },
        index=[f"cell{i}" for i in range(CELLS)],
    )
    layers = planted_layers(codes, n_layers=5, best=BEST)
    obsm = {f"X_toy_mean_l{layer:02d}": values for layer, values in layers.items()}
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    data = anndata.AnnData(counts, obs=obs, obsm=obsm)
    data.var_names = [f"GENE{i}" for i in range(200)]
    data.write_h5ad(path)
    return path


def flags(cells, **more):
    named = {"embeddings": cells, "labels": "cell_type", "group": "donor_id", "test": 0.3, "bootstrap": 500} | more
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


@pytest.mark.ray
def test_the_planted_layer_is_found_beside_its_baselines_and_a_rerun_computes_nothing(cluster, cells, tmp_path):
    command = [*flags(cells, batch="batch", output="judged"), "--tasks", "probe,knn,clustering,integration"]
    printed = cluster.run("evaluate", *command, cwd=tmp_path)
    report = json.loads((tmp_path / "judged" / "report.json").read_text())
    assert report["provenance"]["choice"]["cell_type"]["representation"] == f"mean_l{BEST:02d}"
    assert f"layer {BEST} (mean), chosen on validation, beats the last layer beyond noise" in report["headline"]
    assert report["headline"] in printed.replace("\n", " ")
    assert any("No baseline with random weights" in warning for warning in report["warnings"])
    scores = pq.read_table(tmp_path / "judged" / "scores.parquet")
    assert scores.schema.names == [name for name in SCHEMA.names if name != "predicted"]
    found = scores.to_pandas().set_index(["representation", "task", "metric", "split"])["value"]
    judged = set(scores["representation"].to_pylist())
    assert {"majority", "hvg", "pca", "mean_mean_layers", "mean_scalar_mix"} <= judged
    # Batches were drawn by lot: they are mixed in every representation.
    assert found["mean_l03", "integration", "asw_batch", "all"] > 0.9
    assert found["mean_l03", "integration", "ilisi", "all"] > 0.8
    page = (tmp_path / "judged" / "report.html").read_text()
    assert page.count("data:image/png") >= 4
    parts = [path for path in (tmp_path / "judged").rglob("*.parquet") if path.parent.name == "parts"]
    before = {path: path.stat().st_mtime_ns for path in parts}
    again = cluster.run("evaluate", *command, cwd=tmp_path)
    assert "are committed already" in again
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())


@pytest.mark.nightly
@pytest.mark.ray
def test_killed_and_continued_it_ends_as_if_undisturbed(cluster, cells, tmp_path):
    more = {"baselines": "majority,pca", "combinations": "mean", "tasks": "probe,knn,clustering"}
    cluster.run("evaluate", *flags(cells, output="whole", **more), cwd=tmp_path)
    process = cluster.start("evaluate", *flags(cells, output="torn", **more), cwd=tmp_path)
    manifest = tmp_path / "torn" / "manifest.jsonl"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not manifest.exists() or manifest.read_text().count("\n") < 2):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    cluster.run("evaluate", *flags(cells, output="torn", **more), cwd=tmp_path)
    whole, torn = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("whole", "torn"))
    assert whole.equals(torn)
    assert (tmp_path / "torn" / "report.html").read_bytes()


def plan(stored, **more):
    job = load_job("evaluate")
    named = {"embeddings": str(stored), "labels": ("cell_type",), "output": "unused"} | more
    return plan_evaluation(job.EvaluateJob(**named))


def test_a_dry_run_says_who_is_judged_on_what(cells):
    text = describe(plan(cells, group="donor_id"))
    assert "600 rows, 600 judged" in text
    assert "cell_type: 3 classes" in text
    assert "mean: 0 to 5 (6)" in text


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"labels": ("cell_typ",)}, "NO_COLUMN", "cell_type"),
        ({"labels": ("score",)}, "NUMERIC_LABEL", "measurement"),
        ({"labels": ("cell_type",), "group": "batch"}, "TOO_FEW_GROUPS", "3 groups"),
        ({"labels": ("cell_type",), "min_class": 500}, "ONE_CLASS", "min_class"),
        ({"labels": ("cell_type",), "pools": ("cls",)}, "NO_POOL", "mean"),
        ({"labels": ("cell_type",), "layers": (9,)}, "NO_LAYER", "stored are"),
        ({"labels": ("cell_type",), "time": "donor_id"}, "NO_TIME", "numbers"),
        ({"labels": ("cell_type",), "time": "day", "root": "type 0"}, "BAD_ROOT", "COLUMN=VALUE"),
        ({"labels": ("cell_type",), "time": "day", "root": "cell_type=x"}, "BAD_ROOT", "type 0"),
        ({"embeddings": "nowhere.h5ad"}, "NO_SUCH_FILE", "nowhere"),
        ({"split": "batch"}, "BAD_SPLIT", "--split batch: expected train, .* found 'one' among one"),
        ({"split": "part"}, "NO_COLUMN", "part"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_words(cells, settings, code, words):
    with pytest.raises(Refused, match=words) as refused:
        plan(cells, **settings)
    assert refused.value.code == code


def test_the_split_leaves_no_donor_on_two_sides_and_the_digest_knows_no_seed(cells):
    first, second = plan(cells, group="donor_id"), plan(cells, group="donor_id", seed=1)
    donors = anndata.read_h5ad(cells, backed="r").obs["donor_id"].to_numpy()
    assert pd.crosstab(donors, first.judged.split.parts).gt(0).sum(axis=1).eq(1).all()
    assert first.run["recipe"]["cells"] == second.run["recipe"]["cells"]
    assert first.run["recipe"]["split"] != second.run["recipe"]["split"]


def test_a_stated_split_is_taken_as_it_is_and_unused_shares_part_no_run(cells):
    first = plan(cells, split="stated")
    numbers = np.array([int(name.removeprefix("cell")) for name in first.judged.row_ids]) % 5
    np.testing.assert_array_equal(first.judged.split.parts, np.array([TEST, VALIDATION, TRAIN, TRAIN, TRAIN])[numbers])
    other = plan(cells, split="stated", test=0.4, validation=0.1)
    assert other.run["recipe"] == first.run["recipe"]
    assert first.run["recipe"]["config"]["split"] == "stated"
    drawn = plan(cells)
    assert drawn.run["recipe"]["split"] != first.run["recipe"]["split"]
    assert drawn.run["recipe"]["config"]["test"] == 0.2
    # As before there was the field, so that the fingerprint of an old run is what it was.
    assert not {"split", "choose_by", "source", "backbone"} & set(drawn.run["recipe"]["config"])


def test_carved_validation_rows_are_said_and_their_share_parts_runs(cells):
    first = plan(cells, split="halves", validation=0.2)
    assert first.judged.split.cells() == (240, 60, 300)
    assert any("halves names no validation cells: 60 of the training ones" in warning for warning in first.warnings)
    same, other = plan(cells, split="halves", test=0.4), plan(cells, split="halves", validation=0.3)
    assert same.run["recipe"] == first.run["recipe"]
    assert other.run["recipe"]["config"] != first.run["recipe"]["config"]
    assert other.run["recipe"]["split"] != first.run["recipe"]["split"]


def test_what_a_stated_split_leaks_is_said_and_kept(cells, tmp_path):
    data = anndata.read_h5ad(cells)
    for name in data.obsm:
        data.obsm[name][:10:5] = data.obsm[name][2:4]  # cells 0 and 5 are test cells, 2 and 3 training cells
    data.obs.loc[data.obs_names[20:50], "stated"] = None
    data.write_h5ad(tmp_path / "copies.h5ad")
    found = plan(tmp_path / "copies.h5ad", split="stated", group="donor_id")
    assert len(found.judged.row_ids) == 570
    text = " ".join(found.warnings)
    assert "30 cells have no stated and are left out." in text
    assert "2 test cells have a copy among the training ones" in text
    donors = data.obs["donor_id"].to_numpy()
    parts = data.obs["stated"].astype(object).to_numpy()
    torn = np.isin(donors[parts == "Test"], donors[parts == "train"]).sum()
    assert f"{torn} test cells are of a donor_id that training ones are of too" in text
    some = plan(tmp_path / "copies.h5ad", split="stated", cells=300)
    assert len(some.judged.row_ids) == 300
    assert "300 of 570 cells are judged, by a keyed draw" in " ".join(some.warnings)
    assert min(some.judged.split.cells()) > 0


def test_embeddings_come_from_one_place(cells):
    job = load_job("evaluate")
    source, backbone = {"kind": "h5ad", "path": str(cells)}, {"kind": "scgpt", "checkpoint": "x"}
    for given in ({}, {"backbone": backbone}, {"embeddings": "x", "source": source, "backbone": backbone}):
        with pytest.raises(ValidationError, match="give --embeddings, or --source and --backbone"):
            job.EvaluateJob(labels=("cell_type",), output="unused", **given)
    with pytest.raises(ValidationError, match="--pools clss: known are cls, mean, max"):
        job.EvaluateJob(labels=("cell_type",), output="unused", source=source, backbone=backbone, pools=("clss",))
    made = job.EvaluateJob(labels=("cell_type",), output="unused", source=source, backbone=backbone)
    stored = job.EvaluateJob(labels=("cell_type",), output="unused", embeddings="x")
    assert made.recipe() == stored.recipe()


def test_without_a_probe_there_is_no_verdict_and_the_job_says_so_at_once(cells):
    with pytest.raises(ValidationError, match="must hold probe"):
        plan(cells, tasks=("clustering",))
    with pytest.raises(ValidationError, match="must hold svm"):
        plan(cells, tasks=("probe",), choose_by="svm")
    with pytest.raises(ValidationError, match="needs --time"):
        plan(cells, root="cell_type=type 0")


def test_a_group_column_with_gaps_is_no_group_and_said(cells, tmp_path):
    data = anndata.read_h5ad(cells)
    data.obs["half"] = np.where(np.arange(CELLS) % 2, data.obs["donor_id"].astype(str), None)
    data.obs["nothing"] = pd.Series([None] * CELLS, index=data.obs_names, dtype="string")
    data.write_h5ad(tmp_path / "gaps.h5ad")
    found = plan(tmp_path / "gaps.h5ad", group="half")
    assert any("300 of 600 cells have no half" in warning for warning in found.warnings)
    with pytest.raises(Refused, match="no judged row has a value"):
        plan(tmp_path / "gaps.h5ad", group="nothing")


def test_a_column_called_like_a_baseline_of_ours_keeps_its_own_place(cells, tmp_path):
    data = anndata.read_h5ad(cells)
    data.obsm["pca"] = np.random.default_rng(0).standard_normal((CELLS, 12)).astype(np.float32)
    data.write_h5ad(tmp_path / "pca.h5ad")
    names = [each.name for each in plan(tmp_path / "pca.h5ad").representations]
    assert "obsm_pca" in names
    assert "pca" not in names


def test_only_layers_that_the_network_has_get_a_random_twin(cells, tiny_scgpt):
    made = plan(cells)
    known = replace(
        made,
        backbone=ScGPT(checkpoint=str(tiny_scgpt / "checkpoint")).randomised(0),
        pools={"mean": [0, 3, 40], "cls": [0, 12], "geneformer_mean": [2]},
    )
    twins, without = _random_twins(known)
    assert twins == {"mean": [0, 3], "cls": [0, 12]}
    assert without == ["mean", "geneformer_mean"]
    assert _random_twins(made) == ({}, [])
