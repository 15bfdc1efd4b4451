"""`jobs/tune.py` as a user runs it: a short search, its preset, a killed driver, and the rows it never reads."""

import json
import signal
from collections import Counter

import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import load_job
from tests.search_outputs import await_half_way, book, children, stored_rows
from tests.text_examples import write_encoder, write_sentences
from xfm.core.errors import Refused
from xfm.engine.settings import UsageError, parse

pytestmark = pytest.mark.ray

SPACE = {"lr": {"loguniform": [1e-4, 1e-2]}, "task.dropout": {"uniform": [0.0, 0.4]}, "batch_size": {"choice": [8, 16]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """120 sentences, a quarter of them for the test, and a tiny BERT."""
    folder = tmp_path_factory.mktemp("search")
    write_sentences(folder / "data", 120)
    write_encoder(folder / "bert", "bert")
    return folder


def search(data, folder, **more):
    """search.yaml in a folder."""
    finetune = {
        "source": {"kind": "hub_text", "path": str(data / "data"), "shard_rows": 30},
        "backbone": {"kind": "hf_text", "checkpoint": str(data / "bert"), "max_length": 24},
        "task": {"label": "label"}, "split": "split", "carve": True, "epochs": 4, "batch_size": 16, "lr": 1e-3,
        "seeds": 2, "output": "elsewhere",
    }  # fmt: skip
    path = folder / "search.yaml"
    path.write_text(yaml.safe_dump({"finetune": finetune, "space": SPACE, "trials": 3} | more))
    return str(path)


def check_no_test_rows(output):
    rows = stored_rows(output)
    assert {part for _, part in rows} == {0, 1}
    assert {row.partition("/")[0] for row, _ in rows} == {"train.parquet"}


@pytest.fixture(scope="module")
def searched(cluster, data):
    words = ["--config", search(data, data), "--output", str(data / "out")]
    return data, words, cluster.run("tune", *words, cwd=data, expect=3)  # one sentence is empty


def test_each_trial_is_a_child_of_the_search_with_its_values_and_its_curve(searched):
    folder, _, _ = searched
    client, parent, runs = children(folder)
    assert [run.data.tags["xfm.trial"] for run in runs] == ["0", "1", "2"]
    assert {run.info.status for run in (parent, *runs)} == {"FINISHED"}
    table = pq.read_table(folder / "out" / "trials.parquet").to_pylist()
    assert [row["trial"] for row in table] == [0, 1, 2]
    assert (table[0]["lr"], table[0]["batch_size"], table[0]["task.dropout"]) == (1e-3, 16, 0.1)
    for run, row in zip(runs, table, strict=True):
        assert float(run.data.params["lr"]) == row["lr"]
        assert run.data.tags["xfm.status"] == row["status"]
        curve = client.get_metric_history(run.info.run_id, "validation/f1")
        assert [point.step for point in curve] == list(range(1, len(curve) + 1))
        assert max(point.value for point in curve) == pytest.approx(row["validation_f1"])
        assert len(curve) == row["epochs"]
    assert table[0]["status"] == "finished"


def test_no_row_of_the_test_split_is_stored(searched):
    folder, _, _ = searched
    check_no_test_rows(folder / "out")
    # 90 rows are for training, one of them empty; the validation rows are carved from them.
    assert len(stored_rows(folder / "out")) == 89
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["numbers"]["training rows"] + report["numbers"]["validation rows"] == 89


def test_the_report_sets_the_best_beside_the_job_as_given_and_says_that_it_is_a_maximum(searched):
    folder, _, _ = searched
    report = json.loads((folder / "out" / "report.json").read_text())
    table = pq.read_table(folder / "out" / "trials.parquet").to_pylist()
    finished = [row for row in table if row["status"] == "finished"]
    assert report["numbers"]["best validation_f1"] == max(row["validation_f1"] for row in finished)
    assert report["numbers"]["validation_f1 of the default settings"] == table[0]["validation_f1"]
    assert "is a maximum" in report["warnings"][0]
    assert [figure["name"] for figure in report["figures"]] == ["objective", "fields"]
    assert all((folder / "out" / figure["png"]).stat().st_size > 3000 for figure in report["figures"])


@pytest.mark.slow
def test_the_best_is_a_preset_that_finetune_runs(searched, cluster):
    folder, _, _ = searched
    best = yaml.safe_load((folder / "out" / "best.yaml").read_text())
    table = pq.read_table(folder / "out" / "trials.parquet").to_pylist()
    chosen = max((row for row in table if row["status"] == "finished"), key=lambda row: row["validation_f1"])
    assert (best["lr"], best["batch_size"]) == (chosen["lr"], chosen["batch_size"])
    assert best["seeds"] == 2
    assert "output" not in best
    printed = cluster.run(
        "finetune", "--config", str(folder / "out" / "best.yaml"), "--output", "o", "--dry-run", cwd=folder
    )
    assert "rows          120" in printed


@pytest.mark.nightly
def test_the_same_command_does_nothing_twice_and_more_trials_join(searched, cluster):
    folder, words, printed = searched
    assert printed.count("tune: trial ") == 3
    assert "3 of 3 trials" in printed
    again = cluster.run("tune", *words, cwd=folder, expect=3)
    assert "tune: trial " not in again
    assert "3 trials are in the book already, 0 are left to run" in again
    before = pq.read_table(folder / "out" / "trials.parquet").to_pylist()
    more = cluster.run("tune", *words, "--trials", "4", cwd=folder, expect=3)
    assert more.count("tune: trial ") == 1
    assert pq.read_table(folder / "out" / "trials.parquet").to_pylist()[:3] == before
    assert len(children(folder)[2]) == 4
    # Another search does not fit in here.
    refused = cluster.run("tune", *words, "--searcher", "random", cwd=folder, expect=4)
    assert "OTHER_RUN" in refused
    assert "searcher" in refused


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"space": {"lrr": {"uniform": [0, 1]}}}, "Did you mean lr?"),
        ({"space": {"split": {"choice": ["a", "b"]}}}, "the same rows"),
        ({"space": {"task.dropout": {"uniform": [0, 2]}}}, "may give 2.0"),
        ({"metric": "validation_beauty"}, "BAD_SETTINGS: finetune: --watch"),
        ({"metric": "-validation_f1"}, "BAD_METRIC: --metric -validation_f1: the higher is better"),
        ({"metric": "f1"}, "write validation_f1"),
        ({"finetune": {"lr": 1.0}}, "BAD_SETTINGS: finetune: --source.kind: is required"),
        ({"finetune": "absent.yaml"}, "BAD_SETTINGS: finetune: absent.yaml: No such file"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(data, tmp_path, more, said):
    job = load_job("tune")
    words = ["--config", search(data, tmp_path, **more), "--output", str(tmp_path / "out")]
    config = parse(job.TuneJob, words, {}, "tune")
    with pytest.raises(Refused) as caught:
        job.run(config)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"pretrain": {}}, "found both"),
        ({"finetune": None}, "found neither"),
        ({"also": "-validation_loss", "asha": {"grace_epochs": 1}}, "--also asks for two"),
    ],
)
def test_one_job_is_searched_and_two_scores_have_no_halving(data, tmp_path, more, said):
    words = ["--config", search(data, tmp_path, **more), "--output", str(tmp_path / "out")]
    with pytest.raises(UsageError, match=said):
        parse(load_job("tune").TuneJob, words, {}, "tune")


def test_two_scores_turn_halving_off(data, tmp_path):
    words = ["--config", search(data, tmp_path, also="-validation_loss"), "--output", str(tmp_path / "out")]
    assert parse(load_job("tune").TuneJob, words, {}, "tune").asha is None
    assert (
        parse(load_job("tune").TuneJob, ["--config", search(data, tmp_path), *words[2:]], {}, "tune").asha is not None
    )


@pytest.mark.nightly
@pytest.mark.timeout(900)
def test_a_killed_driver_ends_with_eight_children_none_of_them_twice(cluster, data, tmp_path):
    words = ["--config", search(data, tmp_path, trials=8), "--output", str(tmp_path / "out")]
    job = cluster.start("tune", *words, cwd=tmp_path)
    await_half_way(job, tmp_path / "out")
    job.send_signal(signal.SIGKILL)
    job.communicate()
    killed = book(tmp_path / "out")
    assert len(killed) < 8
    printed = cluster.run("tune", *words, cwd=tmp_path, expect=3)
    assert f"{len(killed)} trials are in the book already" in printed

    after = book(tmp_path / "out")
    assert [trial["number"] for trial in after] == list(range(8))
    assert [trial["values"] for trial in after][: len(killed)] == [trial["values"] for trial in killed]
    client, parent, runs = children(tmp_path)
    assert [run.data.tags["xfm.trial"] for run in runs] == [str(number) for number in range(8)]
    assert parent.data.tags["attempt"] == "2"
    assert {run.info.status for run in (parent, *runs)} == {"FINISHED"}
    for run, trial in zip(runs, after, strict=True):
        points = client.get_metric_history(run.info.run_id, "validation/f1")
        assert max(Counter(point.step for point in points).values()) == 1
        assert [point.value for point in sorted(points, key=lambda point: point.step)] == pytest.approx(
            [record["validation_f1"] for record in trial["history"]]
        )
    over = {trial["number"] for trial in killed if trial["status"] != "running"}
    assert all(runs[number].data.tags["attempt"] == "1" for number in over)
    check_no_test_rows(tmp_path / "out")
    assert not [path for path in (tmp_path / "out" / "trials").iterdir() if path.is_dir()]
    best = ["--config", str(tmp_path / "out" / "best.yaml"), "--output", str(tmp_path / "best"), "--dry-run"]
    cluster.run("finetune", *best, cwd=tmp_path)
