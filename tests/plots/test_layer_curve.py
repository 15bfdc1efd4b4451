import csv
import math
from itertools import pairwise

import pytest

from xfm.plots.axes import GREY
from xfm.plots.layer_curve import Baseline, Mark, Series, draw_layer_curve

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


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_a_baseline_over_layers_is_a_grey_dashed_curve_and_stands_in_the_csv(tmp_path, axes):
    random = Series("random weights", [0, 1, 2], [0.11, 0.12, 0.13], [0.1, 0.1, 0.1], [0.2, 0.2, 0.2])
    figure = draw_layer_curve(tmp_path, "f1", SERIES[:1], [random], metric="f1", caption="c")
    (line,) = [line for line in axes[0].lines if list(line.get_ydata()) == [0.11, 0.12, 0.13]]
    assert line.get_color() == GREY
    assert line.is_dashed()
    assert "random weights" in words(axes[0])
    assert "random weights,1,0.12,0.1,0.2" in (tmp_path / figure.csv).read_text().splitlines()


def test_a_layer_that_others_have_and_one_lacks_is_a_gap(tmp_path, axes):
    lacking = Series("cls", [0, 1, 3, 4], [0.1, 0.2, 0.3, 0.4])
    draw_layer_curve(tmp_path, "f1", [lacking, Series("mean", [0, 1, 2, 3, 4], [0.5] * 5)], metric="f1", caption="c")
    ours = next(line for line in axes[0].lines if line.get_ydata()[0] == 0.1)
    assert list(ours.get_xdata()) == [0, 1, 2, 3, 4]
    assert [math.isnan(value) for value in ours.get_ydata()] == [False, False, True, False, False]


def test_layers_that_nobody_was_asked_for_are_no_gap(tmp_path, axes):
    draw_layer_curve(tmp_path, "f1", [Series("cls", [0, 6, 12], [0.1, 0.2, 0.3])], metric="f1", caption="c")
    assert list(axes[0].lines[0].get_xdata()) == [0, 6, 12]


def test_a_ring_lies_around_the_chosen_layer_with_its_words_above_the_axes(tmp_path, axes):
    marks = [Mark("ridge", 1, "chosen on validation: layer 1"), Mark("ridge", 2, "last layer")]
    draw(tmp_path, marks=marks)
    rings = [line for line in axes[0].lines if line.get_fillstyle() == "none" and line.get_marker() == "o"]
    centres = [
        axes[0].transData.inverted().transform(ring.get_transform().transform(ring.get_xydata()))[0] for ring in rings
    ]
    assert [list(map(float, centre)) for centre in centres] == [pytest.approx([1, 0.4]), pytest.approx([2, 0.3])]
    named = [text for text in axes[0].texts if text.get_text() in {mark.text for mark in marks}]
    boxes = [text.get_window_extent() for text in named]
    assert all(box.y0 > axes[0].get_window_extent().y1 for box in boxes)
    assert not boxes[0].overlaps(boxes[1])


def test_marks_of_one_point_share_a_ring(tmp_path, axes):
    draw(tmp_path, marks=[Mark("ridge", 2, "chosen: layer 2"), Mark("ridge", 2, "last layer")])
    assert "chosen: layer 2, last layer" in words(axes[0])


@pytest.mark.parametrize("mark", [Mark("ridge", 7, "x"), Mark("other", 1, "x"), Mark("decoder", 1, "x")])
def test_a_mark_where_no_value_is_drawn_is_refused(tmp_path, mark):
    with pytest.raises(ValueError, match="no value at layer"):
        draw(tmp_path, marks=[mark])


def test_a_baseline_far_off_is_named_with_its_value_and_does_not_press_the_curves_flat(tmp_path, axes):
    curve = Series("cls", [0, 1, 2], [0.85, 0.92, 0.9])
    baselines = [Baseline("PCA", 0.88), Baseline("majority", 0.043)]
    draw_layer_curve(tmp_path, "f1", [curve], baselines, metric="f1", caption="c")
    assert "majority 0.043 \N{DOWNWARDS ARROW}" in words(axes[0])
    low, high = axes[0].get_ylim()
    assert 0.8 < low < 0.85
    assert 0.92 < high < 0.95


def test_the_nearest_baseline_is_drawn_however_far_it_is(tmp_path, axes):
    draw_layer_curve(
        tmp_path, "f1", [Series("cls", [0, 1], [0.9, 0.91])], [Baseline("PCA", 0.2)], metric="f1", caption="c"
    )
    assert axes[0].get_ylim()[0] < 0.2


def test_eleven_names_at_the_edge_do_not_overlap(tmp_path, axes):
    from matplotlib.text import Text

    series = [Series(f"series {n}", [0, 1], [0.1, 0.5 + 0.001 * n]) for n in range(6)]
    baselines = [Baseline(f"baseline {n}", 0.5 - 0.001 * n) for n in range(5)]
    draw_layer_curve(tmp_path, "f1", series, baselines, metric="f1", caption="c")
    # Of the words alone: an annotation's own extent reaches to the line's end.
    extents = (Text.get_window_extent(text) for text in axes[0].texts if "se" in text.get_text())
    boxes = sorted(extents, key=lambda box: box.y0)
    assert len(boxes) == 11
    assert all(below.y1 <= above.y0 for below, above in pairwise(boxes))


def test_the_words_for_those_who_do_not_see_name_first_last_and_extremes(tmp_path):
    assert draw(tmp_path).alt == (
        "skill by layer. ridge: from 0.1 at layer 0 to 0.3 at layer 2, lowest 0.1 at layer 0, highest 0.4 at layer 1. "
        "decoder: from 0 at layer 0 to 0.2 at layer 2, lowest 0 at layer 0, highest 0.2 at layer 2. "
        "mean of the gene: 0.15. mean of the cell: 0."
    )
