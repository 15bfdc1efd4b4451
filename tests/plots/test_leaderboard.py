import csv

import pytest

from xfm.plots.axes import COLOURS
from xfm.plots.dots import Dot, draw_leaderboard, far_edge

DOTS = [
    Dot("scgpt mean_l08 (best)", "layer", 0.87, 0.83, 0.91, (0.86, 0.88)),
    Dot("scgpt cls_mean_layers", "combination", 0.84, 0.80, 0.88),
    Dot("hvg $x_{", "baseline", 0.82),
]


def draw(folder, dots=DOTS, **more):
    return draw_leaderboard(folder, "board", dots, metric="probe F1, test", caption="Rows.", title="cell_type", **more)


def test_the_csv_beneath_holds_every_number_drawn(tmp_path):
    figure = draw(tmp_path)
    with (tmp_path / figure.csv).open() as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["row", "name", "kind", "probe F1, test", "low", "high", "seeds"],
        ["1", "scgpt mean_l08 (best)", "layer", "0.87", "0.83", "0.91", "0.86 0.88"],
        ["2", "scgpt cls_mean_layers", "combination", "0.84", "0.8", "0.88", ""],
        ["3", "hvg $x_{", "baseline", "0.82", "", "", ""],
    ]


def test_the_picture_is_the_same_each_time_and_has_the_colours_of_its_kinds(tmp_path):
    from matplotlib.image import imread

    first = (tmp_path / draw(tmp_path).png).read_bytes()
    path = tmp_path / draw(tmp_path).png
    assert path.read_bytes() == first
    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    for colour in (*COLOURS[:2], "#57606a"):
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert (abs(pixels - wanted).max(axis=-1) <= 2).sum() > 50


def test_one_row_that_fails_does_not_press_the_others_together():
    dots = [Dot(str(value), "layer", value) for value in (0.9, 0.8, 0.7, 0.1)]
    # The median is .75, the best .15 above: the axis ends at .75 - .45.
    assert far_edge(dots, higher_is_better=True) == pytest.approx(0.3)
    assert far_edge(dots[:3], higher_is_better=True) is None
    errors = [Dot(str(value), "layer", value) for value in (1.0, 2.0, 3.0, 30.0)]
    assert far_edge(errors, higher_is_better=False) == pytest.approx(2.5 + 3 * 1.5)
    wide = [Dot("wide", "layer", 0.7, 0.2, 0.9), *dots]
    # Now the median is .7: .7 - .6 is .1, and nothing lies beyond.
    assert far_edge(wide, higher_is_better=True) is None
    assert far_edge([*wide, Dot("far", "layer", -5.0), Dot("a", "layer", 0.8)], higher_is_better=True) == pytest.approx(
        0.1
    )


def test_many_rows_are_cut_in_the_picture_and_kept_in_the_csv(tmp_path):
    many = [Dot(f"row {n}", "layer", 1 - n / 100) for n in range(50)]
    figure = draw(tmp_path, many)
    assert "first 40 of 50" in figure.caption
    assert len((tmp_path / figure.csv).read_text().splitlines()) == 51


def test_no_row_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one row"):
        draw(tmp_path, [])
