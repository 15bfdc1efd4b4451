"""jobs/compare.py as a user runs it, on hand-made OUTPUTs and without Ray."""

import json
import re
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.browser import open_page
from tests.conftest import REPOSITORY, load_job
from tests.evaluate_outputs import score, spread, write_evaluate
from xfm.core.report import Report
from xfm.engine.job import main
from xfm.track import mlflow as track

# MLflow 3.17 asks SQLAlchemy 2.1 for a loader that is on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

VALUES = {"big": 0.90, "small": 0.70}  # test F1 of the chosen layer of two models


def scores(value, seed):
    """A chosen layer, a last layer 0.05 below, and a baseline at 0.60; draws of one seed move together."""
    own = 0.004 * np.random.default_rng(int(value * 100) + seed).standard_normal(200)
    move = spread(0.01 * seed, seed=seed)
    return [
        *score("mean_l03", value + 0.01 * seed, validation=value, draws=value + move + own),
        *score("mean_l06", value - 0.05 + 0.01 * seed, validation=value - 0.05, draws=value - 0.05 + move - own),
        *score("hvg", 0.60, validation=0.60, draws=0.60 + move),
    ]


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two models, two seeds each, on the same cells."""
    monkeypatch.chdir(tmp_path)
    # An address where nobody listens: a job that wanted Ray would end with 5.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name, value in track.ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name, value in VALUES.items():
        for seed in (0, 1):
            folder = tmp_path / "runs" / f"{name}-{seed}"
            write_evaluate(folder, scores(value, seed), seed=seed, weights=name, choice="mean_l03")
    return tmp_path / "runs"


@pytest.fixture
def compare(runs, capsys, caplog):
    """Runs the job in this process and returns what it printed."""
    job = load_job("compare")

    def start(*words, expect=0):
        with pytest.raises(SystemExit) as end:
            main(job.CompareJob, job.run, "compare", [*words, "--output", str(runs / "board")])
        printed = capsys.readouterr()
        assert end.value.code == expect, printed.err
        return printed.out + printed.err + caplog.text

    return start


def test_many_runs_become_one_leaderboard_in_every_form(compare, runs, tmp_path):
    text = compare("--runs", "runs/big-*,runs/small-*")
    board = runs / "board"
    report = Report.from_json((board / "report.json").read_text())
    table = report.tables[0]
    assert [row[0] for row in table.rows] == ["1. mean_l03 (best)", "2. mean_l06 (last)", "3. mean_l03 (best)",
                                              "4. mean_l06 (last)", "5. hvg"]  # fmt: skip
    first = table.rows[0][table.columns.index("probe macro F1, test")]
    assert first.value == pytest.approx((0.90 + 0.91) / 2)
    assert {row[table.columns.index("seeds")] for row in table.rows} == {"0, 1"}
    assert "it beats 4 of 4 tested rows beyond noise" in report.headline
    assert report.headline in text

    rows = pq.read_table(board / "leaderboard.parquet").to_pylist()
    assert [row["value"] for row in rows] == pytest.approx([0.905, 0.855, 0.705, 0.655, 0.60])
    markdown = (board / "leaderboard.md").read_text()
    fingerprint = json.loads((runs / "big-0" / "run.json").read_text())["fingerprint"]
    assert fingerprint[:12] in markdown
    assert "[runs/big-0](../big-0/report.html)" in markdown
    assert (board / "leaderboard.md").parent.joinpath("../big-0/report.json").is_file()
    assert (board / report.figures[0].png).is_file()
    assert (board / report.figures[0].csv).is_file()
    assert report.headline in (board / "report.html").read_text().replace("&#39;", "'")


@pytest.mark.slow
def test_mlflow_has_the_leaderboard_and_the_runs_it_rests_on(compare, runs, tmp_path):
    import mlflow

    compare("--runs", "runs/big-0,runs/small-0")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    found = client.search_experiments()
    (run,) = client.search_runs([each.experiment_id for each in found], "tags.`xfm.job` = 'compare'")
    files = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"leaderboard.md", "leaderboard.parquet", "report.html", "report.json", "run.json", "plots"} <= files
    data = {item.dataset.name: json.loads(item.dataset.source) for item in run.inputs.dataset_inputs}
    assert {name: source["digest"] for name, source in data.items()} == {
        name: json.loads((runs / name / "run.json").read_text())["fingerprint"] for name in ("big-0", "small-0")
    }
    assert data["big-0"]["uri"] == str(runs / "big-0")
    assert run.data.metrics["runs"] == 2


@pytest.mark.slow
def test_a_query_finds_the_runs_of_a_store(compare, runs, tmp_path):
    from tests.evaluate_outputs import fingerprint
    from xfm.track.mlflow import start_run

    for name in ("big-0", "small-0"):
        recipe = json.loads((runs / name / "run.json").read_text())["recipe"]
        tags = {"xfm.job": "evaluate", "xfm.output": str(runs / name), "xfm.fingerprint": fingerprint(recipe)}
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        tracker = start_run(
            runs / name / "tracking.jsonl", name, uri=uri, experiment="xfm", tags=tags, close_timeout_s=60
        )
        assert tracker.close()
    text = compare("--query", "experiment = 'xfm' and tags.`xfm.job` = 'evaluate'", "--dry-run")
    assert "runs/big-0" in text
    assert "runs/small-0" in text
    assert "runs/big-1" not in text


def test_a_dry_run_says_what_would_be_compared_and_writes_nothing(compare, runs):
    write_evaluate(runs / "killed", [], finished=False)
    text = compare("--runs", "runs/*", "--dry-run")
    assert re.search(r"leaderboard +cell_type: 5 rows of probe macro F1, test", text)
    assert re.search(r"not compared +runs/killed: UNFINISHED", text)
    assert not (runs / "board").exists()


@pytest.mark.slow
def test_an_unfinished_run_is_listed_and_the_exit_code_says_so(compare, runs):
    write_evaluate(runs / "killed", [], finished=False)
    compare("--runs", "runs/*", expect=3)
    report = Report.from_json((runs / "board" / "report.json").read_text())
    assert report.refused == {"UNFINISHED": 1}
    assert report.tables[-1].rows[0][:2] == ["runs/killed", "UNFINISHED"]
    (line,) = (runs / "board" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == "runs/killed"
    assert "runs/killed" in (runs / "board" / "leaderboard.md").read_text()


@pytest.mark.slow
def test_other_cells_end_with_4_and_with_columns_data_stand_side_by_side(compare, runs):
    write_evaluate(runs / "lung", scores(0.5, 0), weights="big", cells="lung", embedded="lung", choice="mean_l03")
    text = compare("--runs", "runs/*", expect=4)
    assert "OTHER_DATA" in text
    assert "runs/lung" in text
    assert "--columns data" in text
    assert not (runs / "board").exists()
    compare("--runs", "runs/*", "--columns", "data")
    report = Report.from_json((runs / "board" / "report.json").read_text())
    overview = report.tables[0]
    assert [column for column in overview.columns if "probe" in column] == [
        "A: probe macro F1, test",
        "B: probe macro F1, test",
    ]
    assert [table.name for table in report.tables[1:3]] == ["cell_type_A_summary", "cell_type_B_summary"]
    assert len(report.figures) == 2


@pytest.mark.slow
def test_the_same_command_again_continues_and_other_runs_need_another_output(compare, runs):
    compare("--runs", "runs/big-0,runs/small-0")
    # The same runs, however they were found and in whatever order.
    compare("--runs", "runs/small-0,runs/big-?,runs/small-0", "--runs", "runs/small-0,runs/big-0")
    assert json.loads((runs / "board" / "run.json").read_text())["attempts"] == 2
    assert "OTHER_RUN" in compare("--runs", "runs/*", expect=4)


def test_typos_end_with_2_and_the_nearest_name(compare):
    assert "--metrics" in compare("--runs", "runs/*", "--metric", "f1", expect=2)
    assert "data" in compare("--runs", "runs/*", "--columns", "date", expect=2)


@pytest.mark.slow
def test_no_ray_and_no_torch_is_imported(runs):
    words = ["jobs/compare.py", "--runs", "runs/*", "--output", "runs/board"]
    code = (
        "import runpy, sys\n"
        f"sys.argv = {words!r}\n"
        "try:\n"
        f"    runpy.run_path({str(REPOSITORY / 'jobs' / 'compare.py')!r}, run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    print('ended', end.code, sorted({'ray', 'torch', 'scanpy'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=runs.parent, env=None, capture_output=True, text=True, timeout=120
    )
    assert "ended 0 []" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_the_page_shows_the_leaderboard_in_a_browser(compare, runs, tmp_path):
    compare("--runs", "runs/*")
    profile = tmp_path / "profile"
    profile.mkdir()
    words = ["mean_l03 (best)", "minus #1", "The runs, and where to find them"]
    page = open_page((runs / "board" / "report.html").as_uri(), profile, until=words)
    assert page.errors == []
    assert page.requests == [(runs / "board" / "report.html").as_uri()]
