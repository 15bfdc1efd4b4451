"""The picture of two scores and the front between them."""

import csv

import pytest

from xfm.plots.search import FrontScore, Pair, draw_front

PAIRS = [
    Pair(0, 0.9, 0.7, "finished", True),
    Pair(1, 0.45, 0.6, "finished", True),
    Pair(2, 0.95, 0.6, "finished", False),
    Pair(3, 0.9, 0.5, "pruned", False),
    Pair(4, None, None, "failed", False),
]


def drawn(folder, axes, across):
    figure = draw_front(folder, "front", PAIRS, across=across, up=FrontScore("f1"), caption="Two scores.")
    return figure, axes[0]


def test_the_table_has_both_scores_as_measured_and_who_is_on_the_front(tmp_path, axes):
    figure, _ = drawn(tmp_path, axes, FrontScore("leakage", near=0.5))
    with (tmp_path / figure.csv).open() as file:
        assert list(csv.reader(file)) == [
            ["trial", "status", "leakage", "f1", "on_front"],
            ["0", "finished", "0.9", "0.7", "true"],
            ["1", "finished", "0.45", "0.6", "true"],
            ["2", "finished", "0.95", "0.6", "false"],
            ["3", "pruned", "0.9", "0.5", "false"],
            ["4", "failed", "", "", "false"],
        ]
    assert figure.alt == "f1 against leakage of 4 trials. On the front: 1, 0."


def test_what_shall_be_near_a_value_is_drawn_by_its_distance_and_both_axes_say_what_is_better(tmp_path, axes):
    _, panel = drawn(tmp_path, axes, FrontScore("leakage", near=0.5))
    assert panel.get_xlabel() == "|leakage - 0.5|\n(lower is better)"
    assert panel.get_ylabel() == "f1\n(higher is better)"
    staircase, *dots = panel.lines
    assert list(staircase.get_xdata()) == pytest.approx([0.05, 0.4])
    assert list(staircase.get_ydata()) == [0.6, 0.7]
    assert [float(dot.get_xdata()[0]) for dot in dots] == pytest.approx([0.4, 0.05, 0.45, 0.4])
    assert [text.get_text() for text in panel.texts] == ["1", "0"]


@pytest.mark.parametrize(
    ("across", "where"), [(FrontScore("cost", is_lower_better=True), "post"), (FrontScore("gain"), "pre")]
)
def test_between_two_trials_no_more_is_promised_than_the_worse_of_both_gives(tmp_path, axes, across, where):
    """Of a cost, whoever spends less than the dearer one has only what the cheaper gives; of a gain the other way."""
    _, panel = drawn(tmp_path, axes, across)
    assert panel.lines[0].get_drawstyle() == f"steps-{where}"


def test_nothing_to_draw_is_said(tmp_path):
    with pytest.raises(ValueError, match="none of 1 trials has both a and b"):
        draw_front(tmp_path, "front", [PAIRS[4]], across=FrontScore("a"), up=FrontScore("b"), caption="Nothing.")
