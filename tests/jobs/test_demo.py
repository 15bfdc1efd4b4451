"""The demo, shortened: pretrain, embed and layerwise on real cells, one after the other, as `make demo` runs them."""

import json

import anndata
import numpy as np
import pyarrow.parquet as pq
import pytest

from xfm.__main__ import main as xfm

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def demo(cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo")
    text = cluster.run("demo", "--output", "out", "--train_seconds", "5", cwd=folder)
    return folder, text


def test_it_ends_with_the_table_the_plot_and_the_line_that_opens_mlflow(demo):
    folder, text = demo
    assert "Masked: the scored genes are hidden from the input" in text
    assert "mean of the gene" in text
    assert "gene x depth" in text
    assert "mlflow ui --host 127.0.0.1" in text
    assert "small model" in text.splitlines()[-4]
    assert (folder / "out" / "layerwise" / "plots" / "masked_mse.png").stat().st_size > 10_000


def test_scored_cells_were_never_trained_or_fitted_on(demo):
    folder, _ = demo
    tokens = [pq.read_table(part) for part in (folder / "out" / "pretrain" / "tokens" / "parts").glob("*.parquet")]
    trained = {row for table in tokens for row in table["row_id"].to_pylist()}
    parts = [pq.read_table(part) for part in (folder / "out" / "layerwise" / "score" / "parts").glob("*.parquet")]
    scored = [row for table in parts for row in table["row_id"].to_pylist()]
    held_out = [pq.read_table(part) for part in (folder / "out" / "embed" / "parts").glob("*.parquet")]
    assert len(scored) == len(set(scored)) > 50
    assert not trained & set(scored)
    assert set(scored) < {row for table in held_out for row in table["row_id"].to_pylist()}


def test_mean_squared_errors_of_the_report_are_those_of_the_parts(demo):
    folder, _ = demo
    report = json.loads((folder / "out" / "layerwise" / "report.json").read_text())
    table = next(table for table in report["tables"] if table["name"] == "masked_summary")
    parts = [pq.read_table(p) for p in sorted((folder / "out" / "layerwise" / "score" / "parts").glob("*.parquet"))]
    for row, column in ((table["rows"][1], "masked_gene_mean"), (table["rows"][3], "masked_ridge_l00")):
        sums = np.concatenate([np.stack(part[column].to_pylist()) for part in parts if part.num_rows])
        assert row[3]["value"] == pytest.approx(sums[:, 1].sum() / sums[:, 0].sum())
        assert row[3]["low"] < row[3]["value"] < row[3]["high"]


def test_mlflow_has_a_run_for_each_job_and_a_curve_over_layers(demo):
    import mlflow

    folder, _ = demo
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("xfm").experiment_id])
    by_name = {run.info.run_name: run for run in runs}
    assert {"pretrain pretrain", "embed embed", "layerwise layerwise", "masked", "visible"} == set(by_name)
    assert all(run.info.status == "FINISHED" for run in runs)
    parent = by_name["layerwise layerwise"].info.run_id
    assert by_name["masked"].data.tags["mlflow.parentRunId"] == parent
    assert [m.step for m in client.get_metric_history(parent, "masked_ridge_mse")] == [0, 1, 2, 3, 4]
    assert by_name["embed embed"].data.metrics["rows"] == 271
    assert {"report.html", "report.json", "run.json", "plots"} <= {f.path for f in client.list_artifacts(parent)}


def test_an_output_becomes_one_anndata(demo, capsys):
    folder, _ = demo
    assert xfm(["export", str(folder / "out" / "embed"), str(folder / "cells.h5ad")]) == 0
    cells = anndata.read_h5ad(folder / "cells.h5ad")
    assert cells.obsm["X_scgpt_mean_l04"].shape == (271, 64)
    assert list(cells.obs.columns) == ["bulk_labels"]
    assert xfm(["export", str(folder / "out" / "embed"), str(folder / "cells.h5ad")]) == 4
    assert "TARGET_EXISTS" in capsys.readouterr().err
