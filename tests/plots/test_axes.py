import csv
import math

import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize

from xfm.plots.axes import new_canvas, shorten, spread, write_csv, write_png


def test_labels_move_apart_as_little_as_needed():
    assert spread([0.0, 1.0, 0.5], 0.1) == [0.0, 1.0, 0.5]
    assert spread([0.5, 0.5], 0.1) == pytest.approx([0.45, 0.55])
    assert spread([0.52, 0.5, 0.9], 0.1) == pytest.approx([0.56, 0.46, 0.9])
    assert spread([0.5, 0.5, 0.6], 0.1) == pytest.approx([1.6 / 3 - 0.1, 1.6 / 3, 1.6 / 3 + 0.1])
    assert spread([], 0.1) == []


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_the_least_squares_solution_of_a_general_solver(seed):
    rng = np.random.default_rng(seed)
    wanted, sizes = np.sort(rng.uniform(0.2, 1.0, 6)), rng.uniform(0.02, 0.2, 6)
    apart = np.eye(6, k=1)[:5] - np.eye(6)[:5]
    least = (sizes[1:] + sizes[:-1]) / 2
    edges = [(size / 2, 1 - size / 2) for size in sizes]
    best = minimize(
        lambda x: ((x - wanted) ** 2).sum(), wanted, jac=lambda x: 2 * (x - wanted), method="SLSQP",
        constraints=[LinearConstraint(apart, least)], bounds=edges, options={"ftol": 1e-14, "maxiter": 500},
    )  # fmt: skip
    assert best.success
    assert spread(list(wanted), list(sizes), (0.0, 1.0)) == pytest.approx(best.x, abs=1e-5)


def test_limits_that_are_too_narrow_are_exceeded_on_both_sides_alike():
    assert spread([0.9, 0.9, 0.9], 0.5, (0.0, 1.0)) == pytest.approx([0.0, 0.5, 1.0])


def test_a_long_name_keeps_its_beginning_and_its_end():
    assert shorten("B cell") == "B cell"
    assert shorten("CD8-positive, alpha-beta cytotoxic T cell", 20) == "CD8-positive\N{HORIZONTAL ELLIPSIS}T cell"
    assert shorten("two\nlines\x1b", 20) == "two lines "
    assert all(len(shorten("x" * 99, length)) == length for length in range(5, 40))


def test_a_csv_holds_every_digit_and_leaves_out_what_is_no_number(tmp_path):
    path = tmp_path / "a.csv"
    third = 1 / 3
    write_csv(path, ["name", "x"], [["a, b", third], ["c", math.nan], ["d", None], ["e", np.float32(0.5)], ["f", 3]])
    with path.open() as file:
        rows = list(csv.reader(file))
    assert rows == [["name", "x"], ["a, b", repr(third)], ["c", ""], ["d", ""], ["e", "0.5"], ["f", "3"]]
    assert float(rows[1][1]) == third


def test_fewer_colours_make_a_smaller_picture_of_the_same_thing(tmp_path):
    from matplotlib.image import imread

    canvas = new_canvas(3, 3)
    axes = canvas.add_axes((0, 0, 1, 1))
    x, y = np.random.default_rng(0).uniform(size=(2, 4000))
    axes.scatter(x, y, c=np.where(x > 0.5, "#0072B2", "#D55E00"), alpha=0.4, s=4, linewidths=0)
    write_png(canvas, tmp_path / "all.png")
    write_png(canvas, tmp_path / "few.png", colours=256)
    assert (tmp_path / "few.png").stat().st_size < (tmp_path / "all.png").stat().st_size / 2
    full, few = (imread(tmp_path / name)[..., :3] for name in ("all.png", "few.png"))
    assert full.shape == few.shape
    assert abs(full - few).mean() < 0.02
