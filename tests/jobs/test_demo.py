"""The demo, shortened: pretrain, embed and layerwise on real cells, one after the other, as `make demo` runs them."""

import hashlib
import json

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY
from xfm.__main__ import main as xfm
from xfm.engine.session import SPOOL
from xfm.track.query import tracked_as

pytestmark = pytest.mark.demo


@pytest.fixture(scope="module")
def demo():
    folder = REPOSITORY / "runs" / "demo"
    if not (folder / "layerwise" / "report.json").exists():
        pytest.skip("runs/demo has no finished demo: run `make demo` first")
    return folder


def test_the_page_and_the_plot_are_there(demo):
    page = (demo / "layerwise" / "report.html").read_text()
    for words in ("the scored genes are hidden from the input", "mean of the gene", "gene x depth", "small model"):
        assert words in page
    assert (demo / "layerwise" / "plots" / "masked_mse.png").stat().st_size > 10_000


def test_scored_cells_were_never_trained_or_fitted_on(demo):
    tokens = [pq.read_table(part) for part in (demo / "pretrain" / "tokens" / "parts").glob("*.parquet")]
    trained = {row for table in tokens for row in table["row_id"].to_pylist()}
    parts = [pq.read_table(part) for part in (demo / "layerwise" / "score" / "parts").glob("*.parquet")]
    scored = [row for table in parts for row in table["row_id"].to_pylist()]
    held_out = [pq.read_table(part) for part in (demo / "embed" / "parts").glob("*.parquet")]
    assert len(scored) == len(set(scored)) > 50
    assert not trained & set(scored)
    assert set(scored) < {row for table in held_out for row in table["row_id"].to_pylist()}


def test_mean_squared_errors_of_the_report_are_those_of_the_parts(demo):
    report = json.loads((demo / "layerwise" / "report.json").read_text())
    table = next(table for table in report["tables"] if table["name"] == "masked_summary")
    parts = [pq.read_table(p) for p in sorted((demo / "layerwise" / "score" / "parts").glob("*.parquet"))]
    rows = {row[0]: row for row in table["rows"]}
    for row, column in ((rows["mean of the gene"], "masked_gene_mean"), (rows["layer 0"], "masked_ridge_l00")):
        sums = np.concatenate([np.stack(part[column].to_pylist()) for part in parts if part.num_rows])
        assert row[3]["value"] == pytest.approx(sums[:, 1].sum() / sums[:, 0].sum())
        assert row[3]["low"] < row[3]["value"] < row[3]["high"]


def test_mlflow_has_a_run_for_each_job_and_a_curve_over_layers(demo):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{REPOSITORY / 'mlflow.db'}")
    runs = {job: client.get_run(tracked_as(demo / job / SPOOL)) for job in ("pretrain", "embed", "layerwise")}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for job, run in runs.items():
        assert client.get_experiment(run.info.experiment_id).name == f"xfm/{job}/pbmc"
        model = "pretrain" if job == "pretrain" else "scgpt"
        assert run.info.run_name.startswith(f"{model}-{run.data.tags['xfm.fingerprint'][:8]}-")
    parent = runs["layerwise"].info
    children = client.search_runs([parent.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
    assert {child.info.run_name for child in children} == {"masked", "visible"}
    curve = client.get_metric_history(parent.run_id, "masked/ridge_mse")
    assert [point.step for point in curve] == [0, 1, 2, 3, 4]
    assert runs["embed"].data.metrics["rows"] == 271
    assert {"report.html", "report.json", "run.json", "plots"} <= {f.path for f in client.list_artifacts(parent.run_id)}


def test_the_checkpoint_is_registered_and_the_later_jobs_say_that_they_read_it(demo):
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{REPOSITORY / 'mlflow.db'}")
    weights = hashlib.sha256((demo / "pretrain" / "checkpoint" / "model.safetensors").read_bytes()).hexdigest()
    made_by = tracked_as(demo / "pretrain" / SPOOL)
    (version,) = client.search_model_versions(f"name = 'scgpt-pbmc' and run_id = '{made_by}'")
    assert version.tags["xfm.weights"] == weights
    assert version.tags["xfm.data"] == client.get_run(made_by).data.tags["xfm.data"]
    for job in ("embed", "layerwise"):
        assert client.get_run(tracked_as(demo / job / SPOOL)).data.tags["xfm.weights"] == weights


def test_an_output_becomes_one_anndata(demo, capsys, tmp_path):
    assert xfm(["export", str(demo / "embed"), str(tmp_path / "cells.h5ad")]) == 0
    cells = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert cells.obsm["X_scgpt_mean_l04"].shape == (271, 64)
    assert list(cells.obs.columns) == ["bulk_labels"]
    assert xfm(["export", str(demo / "embed"), str(tmp_path / "cells.h5ad")]) == 4
    assert "TARGET_EXISTS" in capsys.readouterr().err
