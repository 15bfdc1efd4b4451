"""What a job leaves in MLflow, without its computation: names, tags, data, numbers, page, checkpoint, attempts."""

import hashlib
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.memory_tracker import MemoryTracker
from xfm.core.errors import OK
from xfm.core.report import Report
from xfm.engine.config import JobConfig
from xfm.engine.job import Terminated
from xfm.engine.learn import left_out
from xfm.engine.session import open_job
from xfm.engine.train_watch import track_step
from xfm.tasks.masked_expression.task import MaskedExpressionTask
from xfm.track.mlflow import ENVIRONMENT
from xfm.training.tokens import TokenParts

WEIGHTS = "ab" * 32


class SomeJob(JobConfig):
    """A job that computes nothing."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(autouse=True)
def _environment(monkeypatch, store):
    for name, value in (ENVIRONMENT | {"MLFLOW_TRACKING_URI": store}).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client(store):
    import mlflow

    return mlflow.MlflowClient(store)


def run_json(config):
    recipe = {"job": "probe", "config": config.recipe(), "weights": {"best_model.pt": WEIGHTS},
              "data": {"uri": "/data/lung.soma", "filter": "tissue == 'lung'", "cells": 12}}  # fmt: skip
    settings = config.model_dump(mode="json") | {"backbone": {"kind": "scgpt"}, "hf_token": "canary"}
    return {"job": "probe", "recipe": recipe, "settings": settings, "versions": {"xfm": "0.1.0", "torch": "2.13.0"}}


def finish(config, mse):
    """One start of the job, to its end."""
    report = Report(title="t", job="probe", headline="Layer 1 wins.", numbers={"scored cells": 12, "place": "here"},
                    warnings=["Twelve cells are few."])  # fmt: skip
    with open_job(config, run_json(config)) as job:
        job.tracker.metrics({"masked/mse": mse}, step=1)
        folder = Path(config.output) / "checkpoint"
        folder.mkdir(exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"trained")
        job.register("scgpt", folder, hashlib.sha256(b"trained").hexdigest(), "small")
        return job.finish(report)


def test_a_job_and_its_rerun_are_one_run_that_a_reader_can_tell_apart_and_trace(tmp_path, client):
    config = SomeJob(output=str(tmp_path / "out"))
    assert [finish(config, 0.5), finish(config, 0.5)] == [OK, OK]
    experiment = client.get_experiment_by_name("xfm/probe/lung")
    (run,) = client.search_runs([experiment.experiment_id])
    saved = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run.info.run_name == f"scgpt-{saved['fingerprint'][:8]}-2"
    tags = run.data.tags
    assert tags["attempt"] == "2"
    assert (tags["xfm.job"], tags["xfm.output"]) == ("probe", str(tmp_path / "out"))
    assert (tags["xfm.fingerprint"], tags["xfm.weights"]) == (saved["fingerprint"], WEIGHTS)
    assert tags["xfm.versions"] == "xfm 0.1.0, torch 2.13.0"
    assert tags["mlflow.note.content"].startswith("**Layer 1 wins.**\n\nscored cells: 12; place: here\n\n- Twelve")
    assert len(client.get_metric_history(run.info.run_id, "masked/mse")) == 1
    assert run.data.metrics == {"masked/mse": 0.5, "scored_cells": 12.0}
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {
        "report.html", "report.json", "run.json", "checkpoint",
    }  # fmt: skip
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, json.loads(data.dataset.source)["digest"]) == ("lung", tags["xfm.data"])
    (version,) = client.search_model_versions("name = 'scgpt-lung'")
    assert version.run_id == run.info.run_id
    lineage = {"xfm.init": WEIGHTS, "xfm.data": tags["xfm.data"], "xfm.datasets": "lung"}
    assert lineage.items() <= version.tags.items()
    assert version.tags["xfm.weights"] == hashlib.sha256(b"trained").hexdigest()
    assert "canary" not in (tmp_path / "out" / "tracking.jsonl").read_text()


def end_badly(config, error):
    with open_job(config, run_json(config)) as job:
        job.register("scgpt", Path(config.output), "cd" * 32, "never finished")
        raise error


@pytest.mark.parametrize(("error", "status"), [(Terminated(143), "KILLED"), (RuntimeError("broken"), "FAILED")])
def test_a_job_that_ends_badly_says_so_in_the_users_experiment_and_registers_nothing(tmp_path, client, error, status):
    with pytest.raises(type(error)):
        end_badly(SomeJob(output=str(tmp_path / "out"), experiment=f"my {status}"), error)
    (run,) = client.search_runs([client.get_experiment_by_name(f"my {status}").experiment_id])
    assert run.info.status == status
    assert client.search_model_versions(f"run_id = '{run.info.run_id}'") == []


def test_a_training_record_becomes_curves_of_training_and_validation():
    tracker = MemoryTracker()
    record = {"step": 40.0, "epoch": 0.5, "lr": 1e-3, "masked": 3.0, "validation_masked": 4.0, "validation_cell": 5.0}
    track_step(tracker, record, partial(MaskedExpressionTask.curve, None))
    assert tracker.of("metrics") == [
        (40, {"train/epoch": 0.5, "train/lr": 1e-3, "train/masked_mse": 3.0, "validation/masked_mse": 4.0,
              "validation/cell_mse": 5.0}),
    ]  # fmt: skip


def test_rows_that_pretraining_leaves_out_are_said():
    images = SimpleNamespace(required=("caption",), noun="images")
    assert left_out(TokenParts("", ("a",), ((5, 1, 0),), 3), images) == [
        "3 images belong to no part of --split or have no caption: they were left out."
    ]
    assert left_out(TokenParts("", ("a",), ((5, 1, 0),)), images) == []
