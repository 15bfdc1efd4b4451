import csv
import math

import pytest

from xfm.plots.layer_curve import Baseline, Series, draw_layer_curve, spread

SERIES = [
    Series("ridge", [0, 1, 2], [0.1, 0.4, 0.3], [0.05, 0.35, 0.25], [0.15, 0.45, 0.35]),
    Series("decoder", [0, 1, 2], [0.0, math.nan, 0.2]),
]
BASELINES = [Baseline("mean of the gene", 0.15, 0.12, 0.18), Baseline("mean of the cell", 0.0)]


def draw(folder, **more):
    options = {"metric": "skill", "caption": "Skill by layer.", "title": "Skill", "higher_is_better": True}
    return draw_layer_curve(folder, "skill", SERIES, BASELINES, **(options | more))


def test_the_csv_beneath_holds_every_number_drawn(tmp_path):
    figure = draw(tmp_path)
    with (tmp_path / figure.csv).open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["series", "layer", "skill", "low", "high"],
        ["ridge", "0", "0.1", "0.05", "0.15"],
        ["ridge", "1", "0.4", "0.35", "0.45"],
        ["ridge", "2", "0.3", "0.25", "0.35"],
        ["decoder", "0", "0.0", "", ""],
        ["decoder", "1", "", "", ""],
        ["decoder", "2", "0.2", "", ""],
        ["mean of the gene", "", "0.15", "0.12", "0.18"],
        ["mean of the cell", "", "0.0", "", ""],
    ]


def test_the_picture_is_a_legible_png_and_the_same_each_time(tmp_path):
    first = (tmp_path / draw(tmp_path).png).read_bytes()
    second = (tmp_path / draw(tmp_path).png).read_bytes()
    assert first == second
    assert first.startswith(b"\x89PNG")
    width = int.from_bytes(first[16:20], "big")
    assert 900 < width < 1600


def test_colours_of_the_series_are_in_the_picture(tmp_path):
    from matplotlib.image import imread

    pixels = (imread(tmp_path / draw(tmp_path).png)[..., :3] * 255).round().astype(int)
    for red, green, blue in [(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00), (0x57, 0x60, 0x6A)]:
        assert (abs(pixels - [red, green, blue]).max(axis=-1) <= 2).sum() > 50


def test_names_from_data_are_not_read_as_formulas(tmp_path):
    draw_layer_curve(tmp_path, "a", [Series("a $x_{ b", [0, 1], [0.0, 1.0])], metric="m", caption="c")


@pytest.mark.parametrize(
    "bad",
    [[], [Series("a", [0, 1], [0.1])], [Series("a", [0], [0.1], low=[0.0])], [Series("a", [0], [0.1], [0.0], [])]],
)
def test_series_that_do_not_fit_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="series"):
        draw_layer_curve(tmp_path, "a", bad, metric="m", caption="c")


def test_labels_move_apart_as_little_as_needed():
    assert spread([0.0, 1.0, 0.5], 0.1) == [0.0, 1.0, 0.5]
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.52, 0.5, 0.9], 0.1) == pytest.approx([0.56, 0.46, 0.9])
    assert spread([0.5, 0.5, 0.6], 0.1) == pytest.approx([1.6 / 3 - 0.1, 1.6 / 3, 1.6 / 3 + 0.1])
