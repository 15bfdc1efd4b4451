"""What a search says of itself."""

import pyarrow as pa
import pytest

from xfm.studies.tune.report import draw, tune_report
from xfm.studies.tune.trials import Aim, Trial, best_of, trials_table

AIM = Aim("validation_f1")
FIELDS, DEFAULTS = {"lr": True, "task.mode": False}, {"lr": 2e-5, "task.mode": "full"}
RUN = {"recipe": {"weights": {}, "data": {}}, "versions": {}}


def records(*scores, metric="validation_f1"):
    return [{"step": 4 * i, "epoch": float(i), "seconds": 2.0 * i, metric: score} for i, score in enumerate(scores, 1)]


TRIALS = [
    Trial(0, {}, "finished", records(0.5, 0.71)),
    Trial(1, {"lr": 1e-4, "task.mode": "lora"}, "finished", records(0.6, 0.8, 0.7)),
    Trial(2, {"lr": 1e-3, "task.mode": "full"}, "pruned", records(0.9)),
    Trial(3, {"lr": 1.0, "task.mode": "full"}, "failed", [], "NOT_FINITE: the loss is not finite"),
]


def report(trials=TRIALS, aim=AIM):
    return tune_report(trials, aim, FIELDS, DEFAULTS, RUN, (80, 20), {"EMPTY_TEXT": 1})


def test_the_best_ran_to_its_end_and_counts_by_its_best_epoch():
    assert best_of(TRIALS, AIM) is TRIALS[1]
    assert best_of([TRIALS[2], TRIALS[3]], AIM) is None
    losses = [Trial(0, {}, "finished", records(0.4, 0.3, metric="validation_loss")),
              Trial(1, {}, "finished", records(0.2, 0.5, metric="validation_loss"))]  # fmt: skip
    assert best_of(losses, Aim.of("-validation_loss")).number == 1
    assert best_of([TRIALS[0], Trial(5, {}, "finished", records(0.71))], AIM).number == 0  # the first of equals


def test_the_headline_measures_the_gain_against_the_job_as_it_was_given():
    said = report()
    assert said.headline == (
        "The best of 4 trials reached a validation_f1 of 0.8, the default settings 0.71: 0.09 higher, on the rows it "
        "was chosen by."
    )
    assert said.numbers["best validation_f1"] == 0.8
    assert said.numbers["validation_f1 of the default settings"] == 0.71
    assert said.numbers["training seconds"] == 4 + 6 + 2
    assert [said.numbers[status] for status in ("finished", "pruned", "failed")] == [2, 1, 1]
    assert "has not read" in said.warnings[0]
    assert "1 of 4 trials failed, the first (trial 3) because: NOT_FINITE" in said.warnings[1]


def test_a_loss_is_lower():
    losses = [Trial(0, {}, "finished", records(0.4, metric="validation_loss")),
              Trial(1, {"lr": 1e-4}, "finished", records(0.2, metric="validation_loss"))]  # fmt: skip
    assert "0.2 lower" in report(losses, Aim.of("-validation_loss")).headline


def test_no_gain_and_no_default_are_said():
    assert report(TRIALS[:1] + TRIALS[3:]).headline == (
        "None of 1 trials was better than the default settings, validation_f1 0.71."
    )
    lost = [Trial(0, {}, "failed", [], "out of memory"), TRIALS[1]]
    assert "the default settings failed" in report(lost).headline
    assert "nobody knows what the search gained" in " ".join(report(lost).warnings)


def test_the_table_has_the_finished_first_and_the_best_in_bold():
    best, trials = report().tables
    assert best.rows == [["lr", "0.0001", "2e-05"], ["task.mode", "lora", "full"]]
    assert [row[0] for row in trials.rows] == [1, 0, 2, 3]
    assert trials.best == 0
    assert trials.rows[1][5:] == ["2e-05", "full"]


def test_the_parquet_table_has_a_row_a_trial_and_a_column_a_field():
    table = trials_table(TRIALS, list(FIELDS), DEFAULTS, AIM)
    assert table.column_names == ["trial", "status", "validation_f1", "epochs", "seconds", "reason", "lr", "task.mode"]
    assert table["lr"].to_pylist() == [2e-5, 1e-4, 1e-3, 1.0]
    assert table["validation_f1"].to_pylist() == [0.71, 0.8, 0.9, None]
    assert table["epochs"].to_pylist() == [2.0, 3.0, 1.0, 0.0]
    mixed = trials_table(TRIALS[:2], ["clip"], {"clip": None}, AIM)
    assert mixed.schema.field("clip").type == pa.null()
    words = trials_table([Trial(0, {}), Trial(1, {"x": "a"}), Trial(2, {"x": 1})], ["x"], {"x": None}, AIM)
    assert words["x"].to_pylist() == [None, "a", "1"]


def test_both_figures_have_every_trial_in_their_tables(tmp_path):
    for figure in draw(TRIALS, AIM, FIELDS, {"lr": 2e-5}, tmp_path):
        assert (tmp_path / figure.csv).read_text().count("\n") == 1 + 4
        assert (tmp_path / figure.png).stat().st_size > 3000


@pytest.mark.parametrize("watch", ["validation_f1", "-validation_loss"])
def test_an_aim_is_written_as_it_was_read(watch):
    assert Aim.of(watch).watch == watch
