"""The book of a search: no trial twice, whatever is killed when."""

import json

import pytest

from tests.memory_tracker import MemoryTracker
from xfm.core.errors import Refused
from xfm.studies.tune.trial_log import TrialLog
from xfm.studies.tune.trials import Aim
from xfm.track.spool import Spool
from xfm.track.tracker import open_run

AIM = Aim("validation_f1")


def record(step, f1):
    return {"step": step, "epoch": step / 4, "seconds": float(step), "loss": 1 / step, "validation_f1": f1}


def test_a_trial_that_a_kill_caught_goes_on_as_the_same_child_and_nothing_is_told_twice(tmp_path):
    spool = tmp_path / "tracking.jsonl"
    first = TrialLog(str(tmp_path), AIM, 3, open_run(Spool(spool), "job"), {"lr": 0.1})
    for number, values in enumerate(({}, {"lr": 0.2})):
        first.draw(number, values)
        first.start(number)
        first.add(number, [record(4, 0.5)])
    first.end(0, "finished")  # and here the driver was killed

    second = TrialLog(str(tmp_path), AIM, 3, open_run(Spool(spool), "job"), {"lr": 0.1})
    assert [trial.number for trial in second.unfinished] == [1]
    assert second.undrawn == [2]
    assert second.get(1).values == {"lr": 0.2}
    second.start(1)
    second.add(1, [record(4, 0.5), record(8, 0.7)])
    second.end(1, "finished")
    second.end(1, "failed", "too late")
    assert [(trial.status, len(trial.history)) for trial in second.trials] == [("finished", 1), ("finished", 2)]

    lines = [line.record for line in Spool(spool).read()]
    children = {line["run"]: line for line in lines if line["op"] == "open" and line["parent"]}
    assert sorted(run.rpartition("/")[2] for run in children) == ["trial-000", "trial-001"]
    again = [line["run"].rpartition("/")[2] for line in lines if line["op"] == "open" and line["parent"]]
    assert again == ["trial-000", "trial-001", "trial-001"]  # the finished one is not opened again
    metrics = [line for line in lines if line["op"] == "metrics" and line["run"].endswith("trial-001")]
    told = [(line["step"], line["metrics"]["validation/f1"]) for line in metrics if "validation/f1" in line["metrics"]]
    assert told == [(1, 0.5), (2, 0.7)]
    statuses = [line["status"] for line in lines if line["op"] == "close" and line["run"].endswith("trial-001")]
    assert statuses == ["KILLED", "FINISHED"]
    drawn = next(line["params"] for line in lines if line["op"] == "params" and line["run"].endswith("trial-001"))
    assert drawn == {"lr": "0.2"}


def test_a_validation_is_told_once_however_often_it_arrives(tmp_path):
    tracker = MemoryTracker("job")
    book = TrialLog(str(tmp_path), AIM, 1, tracker)
    book.draw(0, {})
    for history in ([record(4, 0.5)], [record(4, 0.5)], [record(4, 0.5), record(8, 0.7)]):
        book.add(0, history)
    assert [(step, values["validation/f1"]) for step, values in tracker.of("metrics")] == [(1, 0.5), (2, 0.7)]


def test_a_failure_that_would_be_the_same_again_stays_and_another_is_tried_again(tmp_path):
    tracker = MemoryTracker("job")
    book = TrialLog(str(tmp_path), AIM, 2, tracker)
    for number, is_final in ((0, True), (1, False)):
        book.draw(number, {"lr": 1.0})
        book.start(number)
        book.end(number, "failed", f"reason {number}", is_final=is_final)
    again = TrialLog(str(tmp_path), AIM, 2, MemoryTracker("job"))
    assert [trial.number for trial in again.unfinished] == [1]
    assert [trial.reason for trial in again.trials] == ["reason 0", "reason 1"]
    assert [content for run, kind, content in tracker.records if kind == "close"] == ["FAILED", "FAILED"]
    assert {"xfm.status": "failed", "xfm.reason": "reason 0"} in [c for _, kind, c in tracker.records if kind == "tags"]
    again.start(1)
    assert again.get(1).status == "running"
    assert again.get(1).reason == ""


def test_the_checkpoint_of_a_trial_goes_when_it_is_over_and_stays_where_it_may_go_on(tmp_path):
    book = TrialLog(str(tmp_path), AIM, 3, MemoryTracker())
    for number in range(3):
        book.draw(number, {})
        book.start(number)
        (tmp_path / "trials" / f"trial-00{number}" / "checkpoint-000000004").mkdir(parents=True)
    book.end(0, "pruned")
    book.end(1, "failed", "NOT_FINITE")
    book.end(2, "failed", "its node died", is_final=False)
    left = sorted(path.name for path in (tmp_path / "trials").iterdir() if path.is_dir())
    assert left == ["trial-002"]


def test_a_line_says_what_was_reached_the_best_and_how_many_are_over(tmp_path):
    book = TrialLog(str(tmp_path), Aim("validation_loss", is_lower_better=True), 2, MemoryTracker())
    for number, loss in ((0, 0.5), (1, 0.75)):
        book.draw(number, {})
        book.start(number)
        book.add(number, [{"step": 4, "epoch": 2.0, "seconds": 65.0, "validation_loss": loss}])
    book.end(0, "finished")
    assert "trial 0: validation_loss 0.5 after 2 epochs in 1:05; best 0.5 (trial 0); 1 of 2 trials" in book.line(
        book.get(0)
    )
    book.end(1, "pruned")
    assert book.line(book.get(1)).endswith(
        "trial 1: validation_loss 0.75 after 2 epochs in 1:05, pruned; best 0.5 (trial 0); 2 of 2 trials"
    )


def test_a_damaged_page_is_named(tmp_path):
    TrialLog(str(tmp_path), AIM, 2, MemoryTracker()).draw(0, {})
    page = tmp_path / "trials" / "000.json"
    assert json.loads(page.read_text())["status"] == "running"
    page.write_text(page.read_text()[:-5])
    with pytest.raises(Refused, match=r"trials/000\.json is damaged .*; remove it"):
        TrialLog(str(tmp_path), AIM, 2, MemoryTracker())
