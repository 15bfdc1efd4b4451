import csv
import math

import pytest

from xfm.plots.dots import Bars, draw_bars

CLASSES, SUPPORT = ["rare", "common", "absent"], [8, 120, 0]
BARS = [
    Bars("layer 7", [0.6, 0.9, math.nan], [0.4, 0.85, math.nan], [0.8, 0.95, math.nan]),
    Bars("PCA", [0.7, 0.8, math.nan]),
]


def draw(folder, **more):
    options = {"metric": "F1", "caption": "F1 of each class."} | more
    return draw_bars(folder, "f1", CLASSES, SUPPORT, BARS, **options)


def test_the_csv_holds_every_number_the_largest_class_first(tmp_path):
    with (tmp_path / draw(tmp_path).csv).open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["class", "cells", "series", "F1", "low", "high"],
        ["common", "120", "layer 7", "0.9", "0.85", "0.95"],
        ["common", "120", "PCA", "0.8", "", ""],
        ["rare", "8", "layer 7", "0.6", "0.4", "0.8"],
        ["rare", "8", "PCA", "0.7", "", ""],
        ["absent", "0", "layer 7", "", "", ""],
        ["absent", "0", "PCA", "", "", ""],
    ]


def test_dots_and_whiskers_stand_at_their_numbers_beside_their_class(tmp_path, axes):
    draw(tmp_path)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["common (120)", "rare (8)", "absent (0)"]
    layer, pca = axes[0].lines
    assert list(layer.get_xdata())[:2] == [0.9, 0.6]
    assert list(pca.get_xdata())[:2] == [0.8, 0.7]
    assert [round(float(y)) for y in layer.get_ydata()] == [0, 1, 2]
    whiskers = [segment[:, 0].tolist() for segment in axes[0].collections[0].get_segments()[:2]]
    assert whiskers == [[0.85, 0.95], [0.4, 0.8]]
    bottom, top = axes[0].get_ylim()
    assert bottom > top  # the first row is above
    left, right = axes[0].get_xlim()
    assert 0.35 < left < 0.4
    assert right > 1
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == ["layer 7", "PCA"]


def test_colours_of_the_series_are_in_the_picture_and_the_bytes_are_the_same_each_time(tmp_path, pixels):
    path = tmp_path / draw(tmp_path).png
    first = path.read_bytes()
    for red, green, blue in [(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)]:
        assert (abs(pixels(path) - [red, green, blue]).max(axis=-1) <= 2).sum() > 50
    draw(tmp_path)
    assert path.read_bytes() == first


def test_beyond_sixty_classes_the_largest_are_drawn_all_are_in_the_csv_and_the_caption_says_so(tmp_path, axes):
    names = [f"class {n}" for n in range(70)]
    figure = draw_bars(tmp_path, "f1", names, list(range(70)), [Bars("a", [0.5] * 70)], metric="F1", caption="c.")
    assert len(axes[0].get_yticks()) == 60
    assert axes[0].get_yticklabels()[0].get_text() == "class 69 (69)"
    assert figure.caption == "c. The 60 largest of 70 classes."
    assert len((tmp_path / figure.csv).read_text().splitlines()) == 71


def test_scores_that_nobody_has_are_drawn_as_nothing(tmp_path):
    draw_bars(tmp_path, "f1", ["a"], [0], [Bars("x", [math.nan], [math.nan], [math.nan])], metric="F1", caption="c")


@pytest.mark.parametrize("bars", [[], [Bars("a", [0.1])], [Bars("a", [0.1] * 3, [0.0])]])
def test_numbers_that_do_not_fit_the_classes_are_refused(tmp_path, bars):
    with pytest.raises(ValueError, match="for 3 classes"):
        draw_bars(tmp_path, "f1", CLASSES, SUPPORT, bars, metric="F1", caption="c")
