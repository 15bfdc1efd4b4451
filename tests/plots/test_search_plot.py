import csv

import pytest

from xfm.plots.search import Dot, SearchedField, draw_fields, draw_objective

DOTS = [Dot(0, 0.5, "finished"), Dot(1, 0.9, "pruned"), Dot(2, None, "failed"), Dot(3, 0.7, "finished")]


def rows(folder, figure):
    with (folder / figure.csv).open() as file:
        return list(csv.reader(file))


def test_the_best_so_far_counts_trials_that_ran_to_their_end(tmp_path, axes):
    figure = draw_objective(tmp_path, "objective", DOTS, metric="F1", is_lower_better=False, caption="F1 by trial.")
    assert rows(tmp_path, figure) == [
        ["trial", "status", "F1", "best so far"],
        ["0", "finished", "0.5", "0.5"],
        ["1", "pruned", "0.9", "0.5"],
        ["2", "failed", "", "0.5"],
        ["3", "finished", "0.7", "0.7"],
    ]
    assert figure.alt == "F1 of 4 trials (2 finished, 1 pruned, 1 failed). Best 0.7."
    assert "higher is better" in axes[0].get_ylabel()
    steps, default = axes[0].lines[:2]
    assert list(steps.get_ydata())[-1] == 0.7
    assert list(default.get_ydata()) == [0.5, 0.5]


def test_a_loss_goes_down(tmp_path, axes):
    figure = draw_objective(tmp_path, "objective", DOTS, metric="loss", is_lower_better=True, caption="Loss by trial.")
    assert [row[3] for row in rows(tmp_path, figure)[1:]] == ["0.5"] * 4
    assert "lower is better" in axes[0].get_ylabel()


def test_numbers_stand_on_an_axis_and_words_in_classes(tmp_path, axes):
    fields = [
        SearchedField("lr", [1e-5, 1e-4, 1e-3, 1e-2], is_log=True),
        SearchedField("task.mode", ["full", "lora", "full", "lora"]),
        SearchedField("clip", [None, 0.5, None, 1.0]),
        SearchedField("a $x$", [1, 2, 3, 4]),
    ]
    figure = draw_fields(tmp_path, "fields", DOTS, fields, metric="F1", caption="F1 against fields.")
    assert rows(tmp_path, figure)[:3] == [
        ["trial", "status", "F1", "lr", "task.mode", "clip", "a $x$"],
        ["0", "finished", "0.5", "1e-05", "full", "", "1"],
        ["1", "pruned", "0.9", "0.0001", "lora", "0.5", "2"],
    ]
    lr, mode, clip, last = axes[:4]
    assert lr.get_xscale() == "log"
    assert [float(line.get_xdata()[0]) for line in lr.lines] == [
        1e-5,
        1e-4,
        1e-2,
    ]  # the one without a value is not drawn
    assert [text.get_text() for text in mode.get_xticklabels()] == ["full", "lora"]
    assert [round(float(line.get_xdata()[0])) for line in mode.lines] == [0, 1, 1]
    assert [text.get_text() for text in clip.get_xticklabels()] == ["0.5", "1.0", "None"]
    assert last.get_xlabel() == "a $x$"


def test_where_the_job_as_given_has_no_such_field_it_is_not_drawn(tmp_path, axes):
    draw_fields(tmp_path, "f", DOTS, [SearchedField("rank", [None, 2, 4, 8])], metric="F1", caption="F1.")
    assert [float(line.get_xdata()[0]) for line in axes[0].lines] == [2, 8]


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="none of 1 trials has a value"):
        draw_objective(tmp_path, "o", [DOTS[2]], metric="F1", is_lower_better=False, caption="F1.")
    with pytest.raises(ValueError, match=r"1 fields hold \[2\] values for 4 trials"):
        draw_fields(tmp_path, "f", DOTS, [SearchedField("lr", [1, 2])], metric="F1", caption="F1.")
