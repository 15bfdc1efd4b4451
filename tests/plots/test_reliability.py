import csv

import numpy as np
import pytest

from xfm.metrics.calibration import reliability
from xfm.plots.classifier import Reliable, draw_reliability


def one(name, confidence, is_right):
    return Reliable(name, *reliability(np.array(confidence), np.array(is_right), bins=4))


def test_points_and_bars_are_the_numbers_of_the_bins(tmp_path, axes):
    table = one("CLIP", [0.3, 0.4, 0.9, 0.8], [True, False, True, True])
    figure = draw_reliability(tmp_path, "r", [table], caption="c", noun="images")
    line = axes[0].lines[1]
    np.testing.assert_allclose(line.get_xdata(), [0.35, 0.85])
    np.testing.assert_allclose(line.get_ydata(), [0.5, 1.0])
    np.testing.assert_allclose([bar.get_height() for bar in axes[1].patches], [0, 0.5, 0, 0.5])
    with (tmp_path / figure.csv).open() as file:
        head, *rows = csv.reader(file)
    assert head == ["classifier", "low", "high", "images", "mean confidence", "accuracy"]
    assert rows[1] == ["CLIP", "0.25", "0.5", "2", "0.35", "0.5"]
    assert rows[0] == ["CLIP", "0.0", "0.25", "0", "", ""]  # an empty bin has no accuracy


def test_words_say_which_way_it_is_off(tmp_path):
    tables = [one("bold", [0.9, 0.9], [True, False]), one("shy", [0.5, 0.5], [True, True])]
    figure = draw_reliability(tmp_path, "r", tables, caption="c")
    assert "bold: right 0.5 of the time at a mean confidence of 0.9, more sure than right." in figure.alt
    assert "shy: right 1 of the time at a mean confidence of 0.5, less sure than right." in figure.alt


def test_nothing_to_draw_is_an_error(tmp_path):
    for nothing in ([], [one("none", [], [])]):
        with pytest.raises(ValueError, match="needs rows"):
            draw_reliability(tmp_path, "r", nothing, caption="c")
