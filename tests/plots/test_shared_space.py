import csv

import numpy as np
import pytest

from xfm.core.errors import Refused
from xfm.plots import umap
from xfm.plots.panels import PALETTE
from xfm.plots.umap import draw_embedding_umap, draw_shared_space, shared_points

TYPES = ["neuron", "astrocyte", "microglia", "never seen"]


@pytest.fixture(scope="module")
def space():
    """120 cells of three types of four, a tenth of the last type only, and their words beside them."""
    rng = np.random.default_rng(2)
    types = np.repeat([0, 1, 2], (90, 24, 6))
    means = 6 * rng.normal(size=(4, 8))
    return (means[types] + 0.3 * rng.normal(size=(120, 8))), means, types


@pytest.fixture(scope="module")
def points(space):
    return shared_points(*space, seed=42, per_type=20)


def test_every_type_gives_as_many_cells_and_its_words(space, points):
    _, _, types = space
    assert np.bincount(points.types).tolist() == [20, 20, 6]
    np.testing.assert_array_equal(types[points.rows], points.types)
    assert points.shown.tolist() == [0, 1, 2]
    assert points.text.shape == (3, 2)
    assert len(np.unique(points.rows)) == 46


def test_words_lie_with_their_cells_because_both_were_laid_out_together(points):
    for place, code in enumerate(points.shown):
        apart = np.linalg.norm(points.gene - points.text[place], axis=1)
        assert points.types[np.argmin(apart)] == code


def test_the_sample_is_that_of_types_and_seed_whatever_the_vectors(space, points):
    gene, text, types = space
    moved = shared_points(gene[:, ::-1] * 2, text, types)
    np.testing.assert_array_equal(moved.rows, points.rows)
    assert not np.array_equal(shared_points(gene, text, types, seed=1).rows, points.rows)
    np.testing.assert_array_equal(shared_points(*space).gene, points.gene)


def test_cells_without_a_type_are_left_out(space):
    gene, text, types = space
    found = shared_points(gene, text, np.where(np.arange(120) < 40, -1, types))
    assert found.rows.min() >= 40


def test_codes_beyond_the_bank_and_widths_that_differ_are_refused(space):
    gene, text, types = space
    with pytest.raises(ValueError, match="codes below K"):
        shared_points(gene, text, types + 2)
    with pytest.raises(ValueError, match="codes below K"):
        shared_points(gene[:, 1:], text, types)
    with pytest.raises(Refused, match="at least 16"):
        shared_points(gene[:5], text, types[:5])


def test_colours_are_those_of_types_in_both_panels_and_words_are_circles(tmp_path, space, points, axes):
    gene, text, types = space
    before = shared_points(np.random.default_rng(0).normal(size=gene.shape), text, types)
    figure = draw_shared_space(tmp_path, before, points, TYPES)
    assert [one.get_title(loc="left") for one in axes] == ["before training", "after training"]
    for panel, drawn in zip(axes, (before, points), strict=True):
        cells, words = panel.collections
        assert len(cells.get_offsets()) == 46
        np.testing.assert_allclose(words.get_offsets(), drawn.text)
        assert len(np.unique(cells.get_facecolors()[:, :3], axis=0)) == 3
    left, right = ([tuple(colour) for colour in one.collections[1].get_facecolors()] for one in axes)
    assert left == right
    with (tmp_path / figure.csv).open() as file:
        head, *rows = csv.reader(file)
    assert head == ["panel", "modality", "row", "type", "UMAP1", "UMAP2"]
    assert len(rows) == 2 * (46 + 3)
    assert sum(row[1] == "text" for row in rows) == 6
    last = rows[-1]
    assert last[3] == "microglia"
    np.testing.assert_allclose([float(n) for n in last[4:]], points.text[2], rtol=1e-6)


def test_other_cells_before_than_after_are_refused(tmp_path, space, points):
    with pytest.raises(ValueError, match="give the same cells"):
        draw_shared_space(tmp_path, shared_points(*space, seed=3), points, TYPES)


COLUMNS = {"donor_id": [f"d{n % 3}" for n in range(60)], "sex": ["", *["female", "male"] * 29, "male"]}


@pytest.fixture
def laid_out(monkeypatch):
    """Vectors are coordinates already."""
    monkeypatch.setattr(umap, "umap_coordinates", lambda x, _: x)


@pytest.mark.usefixtures("laid_out")
def test_one_panel_a_column_on_the_same_coordinates(tmp_path, axes, pixels):
    xy = np.random.default_rng(0).normal(size=(60, 2))
    figure = draw_embedding_umap(tmp_path, xy, COLUMNS, cells=[f"c{n}" for n in range(60)])
    assert [one.get_title(loc="left") for one in axes] == ["donor_id", "sex"]
    with (tmp_path / figure.csv).open() as file:
        head, *rows = csv.reader(file)
    assert head == ["cell", "UMAP1", "UMAP2", "donor_id", "sex"]
    assert rows[7][0] == "c7"
    np.testing.assert_allclose([float(n) for n in rows[7][1:3]], xy[7])
    assert rows[7][3:] == ["d1", "female"]
    colours = {tuple(colour[:3]) for colour in axes[0].collections[0].get_facecolors()}
    from matplotlib.colors import to_rgb

    assert colours == {to_rgb(colour) for colour in PALETTE[:3]}
    assert pixels(tmp_path / figure.png).min() < 100


@pytest.mark.usefixtures("laid_out")
def test_more_cells_than_are_drawn_are_sampled_by_key(tmp_path, monkeypatch):
    monkeypatch.setattr(umap, "MOST_DRAWN", 25)
    xy = np.random.default_rng(0).normal(size=(60, 2))
    drawn = []
    for folder in ("a", "b"):
        figure = draw_embedding_umap(tmp_path / folder, xy, COLUMNS)
        drawn.append((tmp_path / folder / figure.csv).read_text())
        assert "25 of 60 cells" in figure.caption
    assert drawn[0] == drawn[1]
    assert len(drawn[0].splitlines()) == 26


def test_vectors_are_laid_out(tmp_path, space):
    gene, _, types = space
    figure = draw_embedding_umap(tmp_path, gene, {"type": [TYPES[code] for code in types]})
    assert "All 120 cells laid out by UMAP, coloured by type." in figure.caption


def test_columns_of_another_length_are_refused(tmp_path):
    with pytest.raises(ValueError, match="need at least one column"):
        draw_embedding_umap(tmp_path, np.zeros((5, 2)), {})
    with pytest.raises(ValueError, match="need at least one column"):
        draw_embedding_umap(tmp_path, np.zeros((5, 2)), {"sex": ["f"] * 4})
