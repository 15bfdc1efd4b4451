import csv

import numpy as np
import pytest

from xfm.core.report import Estimate
from xfm.plots.tradeoff import TradeoffPoint, draw_tradeoff
from xfm.plots.training_curves import draw_training_metrics

# Two records an epoch, a validation at the end of each.
HISTORY = [
    {"step": 5, "epoch": 0.5, "lr": 1e-3, "loss": 4.0, "main_loss": 3.0, "adversary_loss": 1.0},
    {"step": 10, "epoch": 1.0, "lr": 2e-3, "loss": 2.0, "main_loss": 1.5, "adversary_loss": 0.9}
    | {"validation_loss": 2.5, "validation_f1": 0.4, "validation_leakage_auroc": 0.9},
    {"step": 15, "epoch": 1.5, "lr": 1e-3, "loss": 1.0, "main_loss": 0.5, "adversary_loss": 0.8},
    {"step": 20, "epoch": 2.0, "lr": 0.0, "loss": 0.5, "main_loss": 0.2, "adversary_loss": 0.7}
    | {"validation_loss": 1.5, "validation_f1": 0.8, "validation_leakage_auroc": 0.7},
]
TITLES = ["combined loss", "main loss", "adversary loss", "loss by epoch", "learning rate", "validation"]


def lines_of(axes):
    return [(line.get_label(), line.get_xdata().tolist(), line.get_ydata().tolist()) for line in axes.get_lines()]


def test_six_panels_show_what_the_records_hold(tmp_path, axes):
    draw_training_metrics(tmp_path, HISTORY)
    assert [one.get_title(loc="left") for one in axes] == TITLES
    drawn = {one.get_title(loc="left"): lines_of(one) for one in axes}
    assert drawn["main loss"][0][1:] == ([5, 10, 15, 20], [3.0, 1.5, 0.5, 0.2])
    # Epochs from 1; training is the mean of the records of an epoch.
    assert drawn["loss by epoch"] == [("training", [1, 2], [3.0, 0.75]), ("validation", [1, 2], [2.5, 1.5])]
    assert drawn["validation"] == [("f1", [10, 20], [0.4, 0.8]), ("leakage auroc", [10, 20], [0.9, 0.7])]


def test_what_was_not_recorded_has_no_panel(tmp_path, axes):
    plain = [{key: value for key, value in record.items() if key in ("step", "loss")} for record in HISTORY]
    draw_training_metrics(tmp_path, plain)
    assert [one.get_title(loc="left") for one in axes] == ["combined loss"]


def test_panels_are_those_that_are_named(tmp_path, axes):
    losses = {"contrastive": "loss", "nothing": "absent"}
    draw_training_metrics(tmp_path, HISTORY, losses=losses, scores=["validation_f1"])
    titles = [one.get_title(loc="left") for one in axes]
    assert titles == ["contrastive loss", "loss by epoch", "learning rate", "validation"]
    assert [name for name, *_ in lines_of(axes[-1])] == ["f1"]


def test_the_csv_holds_every_entry_of_every_record(tmp_path):
    figure = draw_training_metrics(tmp_path, HISTORY)
    with (tmp_path / figure.csv).open() as file:
        rows = list(csv.DictReader(file))
    assert [{key: float(value) for key, value in row.items() if value} for row in rows] == HISTORY


def test_numbers_that_are_none_are_not_drawn(tmp_path, axes):
    broken = [HISTORY[0], HISTORY[1] | {"loss": float("nan")}, *HISTORY[2:]]
    draw_training_metrics(tmp_path, broken)
    assert lines_of(axes[0])[0][1] == [5, 15, 20]


@pytest.mark.slow
def test_the_pictures_bytes_are_the_same_each_time(tmp_path, pixels):
    path = tmp_path / draw_training_metrics(tmp_path, HISTORY).png
    first = path.read_bytes()
    assert pixels(path).min() < 100
    draw_training_metrics(tmp_path, HISTORY)
    assert path.read_bytes() == first


def test_no_record_and_none_of_the_entries_are_refused(tmp_path):
    with pytest.raises(ValueError, match="history is empty"):
        draw_training_metrics(tmp_path, [])
    with pytest.raises(ValueError, match="can be drawn"):
        draw_training_metrics(tmp_path, [{"step": 1}])


POINTS = [
    TradeoffPoint("1", Estimate(value=0.7, low=0.6, high=0.8), Estimate(value=0.55, low=0.5, high=0.6), 1.0, "fixed"),
    TradeoffPoint("0", Estimate(value=0.9, low=0.8, high=1.0), 0.95, 0.0, "fixed"),
    TradeoffPoint("0.1", 0.88, 0.8, 0.1, "fixed"),
    TradeoffPoint("logistic regression", 0.93, 0.96),
]


def test_a_curve_joins_the_strengths_in_their_order_and_whiskers_are_intervals(tmp_path, axes):
    figure = draw_tradeoff(tmp_path, POINTS, score="macro F1", leakage="AUROC")
    curve = next(line for line in axes[0].get_lines() if len(line.get_xdata()) == 3)
    assert list(curve.get_xdata()) == [0.95, 0.8, 0.55]
    whiskers = [(*line.get_xdata(), *line.get_ydata()) for line in axes[0].get_lines() if len(line.get_xdata()) == 2]
    assert (0.5, 0.6, 0.7, 0.7) in whiskers
    assert (0.55, 0.55, 0.6, 0.8) in whiskers
    assert {text.get_text() for text in axes[0].texts} == {"0", "0.1", "1", "logistic regression", "chance"}
    with (tmp_path / figure.csv).open() as file:
        head, first, *_, last = csv.reader(file)
    ends = ("", " low", " high")
    assert head == ["name", "series", "strength", *(f"{axis}{end}" for axis in ("macro F1", "AUROC") for end in ends)]
    assert first == ["1", "fixed", "1.0", "0.7", "0.6", "0.8", "0.55", "0.5", "0.6"]
    assert last[2] == ""


def test_names_of_points_that_lie_together_do_not_cover_each_other(tmp_path, axes):
    near = [TradeoffPoint(f"model {n}", 0.9 + 0.001 * n, 0.8 + 0.001 * n) for n in range(5)]
    draw_tradeoff(tmp_path, [*near, TradeoffPoint("far", 0.1, 0.5)], score="F1", leakage="AUROC")
    boxes = [text.get_window_extent() for text in axes[0].texts if text.get_text().startswith("model")]
    assert len(boxes) == 5
    assert not any(one.overlaps(other) for n, one in enumerate(boxes) for other in boxes[:n])


def test_a_trade_off_of_nothing_or_of_no_number_is_refused(tmp_path):
    for points in ([], [TradeoffPoint("a", np.nan, 0.5)]):
        with pytest.raises(ValueError, match="finite numbers"):
            draw_tradeoff(tmp_path, points, score="F1", leakage="AUROC")
