"""What MLflow's pages show of the demo's runs, in a browser: names, numbers, curves, lineage, and no error."""

import json
import re
from urllib.parse import quote

import pyarrow.parquet as pq
import pytest

from tests.browser import open_page
from tests.conftest import REPOSITORY
from tests.track.mlflow_server import running
from xfm.engine.session import SPOOL
from xfm.track.query import tracked_as

pytestmark = pytest.mark.demo

DEMO, DATABASE = REPOSITORY / "runs" / "demo", REPOSITORY / "mlflow.db"
# MLflow opens its pages for language models unless told otherwise.
TRAINING = "workflowType=machine_learning"
# Of MLflow 3.17's own page, on any run of anyone:
NOT_OURS = (
    # it asks who is logged in, which only its plug-in for passwords can answer;
    r"error: Failed to load resource: the server responded with a status of 404 \(Not Found\) "
    r"\(http://127\.0\.0\.1:\d+/ajax-api/2\.0/mlflow/users/current\)",
    # the page of a model version looks for the file that MLflow's flavours write, and does without;
    r"error: Failed to load resource: the server responded with a status of 404 \(Not Found\) "
    r"\(http://127\.0\.0\.1:\d+/model-versions/get-artifact\?path=MLmodel&name=[\w.-]+&version=\d+\)",
    # its grid of charts measures itself again while it is drawn, which browsers note as an error.
    r"error: .*ResizeObserver loop completed with undelivered notifications\. "
    r"\(http://127\.0\.0\.1:\d+/static-files/static/js/[\w.]+\.js\)",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if not DATABASE.exists():
        pytest.skip(f"{DATABASE} is not there: run `make demo` first")
    with running(f"sqlite:///{DATABASE}", tmp_path_factory.mktemp("server")) as started:
        yield started.uri


@pytest.fixture(scope="module")
def client():
    import mlflow

    return mlflow.MlflowClient(f"sqlite:///{DATABASE}")


@pytest.fixture
def show(server, tmp_path):
    """Opens a page of MLflow's and looks at what no page may have: errors of ours, and requests to anyone else."""

    def opened(place, *words):
        page = open_page(f"{server}/#/{place}?{TRAINING}", tmp_path, width=1400, height=1100, until=words,
                         screenshot=tmp_path / "page.png")  # fmt: skip
        assert [line for line in page.errors if not any(re.fullmatch(ours, line) for ours in NOT_OURS)] == []
        assert [address for address in page.requests if not address.startswith(f"{server}/")] == []
        return page

    return opened


def run_of(client, job):
    """The job's own run: that of its spool, whatever else the database holds."""
    spool = DEMO / job / SPOOL
    if not (DEMO / job / "report.json").exists():
        pytest.skip(f"{DEMO / job} is not there: run `make demo` first")
    return client.get_run(tracked_as(spool))


def place_of(run, tab=""):
    return f"experiments/{run.info.experiment_id}/runs/{run.info.run_id}{tab}"


def headline_of(job):
    """The first words of its report: markup and interval signs come after."""
    report = (DEMO / job / "report.json").read_text()
    return re.search(r'"headline": "([\w ,:]{20,})', report)[1].strip()


def in_output(job):
    """The last layer's number, as OUTPUT has it."""
    if job == "layerwise":
        tables = json.loads((DEMO / job / "report.json").read_text())["tables"]
        (rows,) = (table["rows"] for table in tables if table["name"] == "masked_summary")
        return rows[-1][3]["value"]
    scores = pq.read_table(DEMO / job / "scores.parquet").to_pylist()
    wanted = {"representation": "cls_l04", "task": "probe", "label": "bulk_labels", "metric": "f1", "split": "test"}
    (row,) = (row for row in scores if wanted.items() <= row.items())
    return row["value"]


@pytest.mark.parametrize(
    ("job", "metric"), [("layerwise", "masked/ridge_mse"), ("evaluate", "bulk_labels/probe_f1/cls")]
)
def test_a_run_page_shows_name_headline_numbers_data_and_tags(show, client, job, metric):
    run = run_of(client, job)
    assert run.data.metrics[metric] == in_output(job)
    (read,) = run.inputs.dataset_inputs
    page = show(
        place_of(run), run.info.run_name, f"xfm/{job}/pbmc", "Finished", headline_of(job), metric,
        str(run.data.metrics[metric]), f"{read.dataset.name} ({read.dataset.digest})", "xfm.fingerprint",
        run.data.tags["xfm.weights"], "mlflow 3.",
    )  # fmt: skip
    if job == "layerwise":
        assert "masked" in page.text
        assert "visible" in page.text


@pytest.mark.parametrize(
    ("job", "group", "chart"), [("layerwise", "masked", "ridge_mse"), ("evaluate", "bulk_labels/probe_f1", "cls")]
)
def test_the_layers_are_one_curve_in_a_group_of_their_own(show, client, job, group, chart):
    run = run_of(client, job)
    page = show(place_of(run, "/model-metrics"), group, "Step")
    assert chart in page.text
    points = client.get_metric_history(run.info.run_id, f"{group}/{chart}")
    assert [point.step for point in points] == [0, 1, 2, 3, 4]


def test_plots_and_page_are_among_the_artifacts(show, client):
    page = show(
        place_of(run_of(client, "layerwise"), "/artifacts/report.html"),
        "report.html",
        "report.json",
        "run.json",
        "plots",
    )
    assert "checkpoint" not in page.text


def test_the_checkpoint_is_a_version_that_names_its_run_and_weights(show, client):
    run = run_of(client, "pretrain")
    (version,) = client.search_model_versions(f"run_id = '{run.info.run_id}'")
    show(place_of(run), version.name, f"v{version.version}", "train/masked_mse")
    show(f"models/{quote(version.name)}/versions/{version.version}", run.info.run_name, "xfm.weights",
         "xfm.fingerprint", "--backbone.checkpoint")  # fmt: skip


def test_the_list_tells_runs_apart(show, client):
    run = run_of(client, "layerwise")
    show(f"experiments/{run.info.experiment_id}/runs", run.info.run_name, "pbmc")
