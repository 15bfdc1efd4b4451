import csv

import numpy as np
import pytest

from xfm.plots.panels import PALETTE
from xfm.plots.scatter import CAUTION, Panel, draw_panels

KINDS = ["T cell", "B cell", "monocyte", "NK cell", "dendritic cell", "platelet", "plasma cell", "stem cell"]


@pytest.fixture
def clouds():
    """400 cells of eight types in eight clouds, in three batches that mix, and a second layout of them."""
    rng = np.random.default_rng(7)
    kinds = rng.choice(8, 400, p=np.arange(8, 0, -1) / 36)
    angle = 2 * np.pi * kinds / 8
    first = 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + rng.normal(size=(400, 2))
    labels = np.array(KINDS)[kinds]
    batches = np.array(["one", "two", "three"])[rng.integers(3, size=400)]
    return first.astype(np.float32), rng.normal(size=(400, 2)).astype(np.float32), labels, batches


def four_panels(clouds):
    best, last, labels, batches = clouds
    return [
        Panel("layer 7", best, labels, "cell_type"),
        Panel("layer 12", last, labels, "cell_type"),
        Panel("layer 7", best, batches, "batch"),
        Panel("layer 12", last, batches, "batch"),
    ]


def test_the_csv_holds_every_cell_once_with_all_coordinates_and_labels(tmp_path, clouds):
    best, last, labels, batches = clouds
    figure = draw_panels(tmp_path, "umap", four_panels(clouds), "c", cells=[f"cell-{n}" for n in range(400)])
    with (tmp_path / figure.csv).open() as file:
        head, *rows = csv.reader(file)
    layers = ["layer 7 UMAP1", "layer 7 UMAP2", "layer 12 UMAP1", "layer 12 UMAP2"]
    assert head == ["cell", *layers, "cell_type", "batch"]
    assert [row[0] for row in rows] == [f"cell-{n}" for n in range(400)]
    found = np.array([row[1:5] for row in rows], dtype=np.float64)
    np.testing.assert_allclose(found, np.hstack([best, last]), atol=5e-5)  # four decimals
    assert [row[5] for row in rows] == labels.tolist()
    assert [row[6] for row in rows] == batches.tolist()


@pytest.mark.slow
def test_every_class_has_its_colour_in_the_picture_and_the_bytes_are_the_same_each_time(tmp_path, clouds, pixels):
    path = tmp_path / draw_panels(tmp_path, "umap", four_panels(clouds), "c").png
    first = path.read_bytes()
    picture = pixels(path)
    assert 1000 < picture.shape[1] < 1300
    for colour in PALETTE[:8]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        # Fewer colours in the file, and dots that shine through, move it a little.
        assert (abs(picture - wanted).max(axis=-1) <= 16).sum() > 60, colour
    draw_panels(tmp_path, "umap", four_panels(clouds), "c")
    assert path.read_bytes() == first


def test_panels_of_the_same_labels_share_a_row_and_its_legend_with_counts(tmp_path, clouds, axes):
    draw_panels(tmp_path, "umap", four_panels(clouds), "c")
    boxes = [one.get_position() for one in axes]
    assert boxes[0].y0 == boxes[1].y0 > boxes[2].y1
    assert boxes[2].y0 == boxes[3].y0
    by_type, by_batch = axes[0].figure.legends
    labels = clouds[2].tolist()
    expected = sorted(((labels.count(kind), kind) for kind in KINDS), key=lambda item: (-item[0], item[1]))
    assert [text.get_text() for text in by_type.get_texts()] == [f"{kind} ({count})" for count, kind in expected]
    assert by_batch.get_title().get_text() == "batch"
    for one in axes:
        width, height = one.get_window_extent().size
        assert np.diff(one.get_xlim()) / width == pytest.approx(np.diff(one.get_ylim()) / height)
        assert not one.get_xticks().size


def test_names_stand_where_the_class_is_and_nowhere_where_classes_mix(tmp_path, clouds, axes):
    draw_panels(tmp_path, "umap", four_panels(clouds), "c")
    apart, mixed, *_ = ([text.get_text().replace("\n", " ") for text in one.texts] for one in axes)
    assert sorted(apart) == sorted(KINDS)
    assert mixed == []


def test_no_class_lies_on_top_of_the_others(tmp_path, pixels):
    """Two classes at the same 3,000 places: the last one drawn would hide the first."""
    xy = np.tile(np.random.default_rng(0).uniform(size=(3000, 2)), (2, 1))
    panel = Panel("both", xy, ["a"] * 3000 + ["b"] * 3000)
    picture = pixels(tmp_path / draw_panels(tmp_path, "umap", [panel], "c", columns=1).png)
    seen = []
    for colour in PALETTE[:2]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        seen.append((abs(picture - wanted).max(axis=-1) <= 90).sum())
    assert 0.6 < seen[0] / seen[1] < 1.7


@pytest.mark.slow
def test_a_large_picture_stays_small(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.array(KINDS)[rng.integers(8, size=20_000)]
    panels = [Panel(f"p{n}", rng.uniform(size=(20_000, 2)), labels) for n in range(4)]
    figure = draw_panels(tmp_path, "umap", panels, "c")
    assert (tmp_path / figure.png).stat().st_size < 600_000


def test_the_caption_says_what_a_umap_is_worth(tmp_path, clouds):
    assert draw_panels(tmp_path, "umap", four_panels(clouds)[:1], "By type.").caption == f"By type. {CAUTION}"
    assert "distorts" in CAUTION
    assert "proves nothing" in CAUTION


@pytest.mark.parametrize("labels", [["a $x_{ b", "c\x1b"], ["", " "], ["x" * 300, "y"]])
def test_names_from_data_do_no_harm(tmp_path, labels):
    xy = np.arange(40.0).reshape(20, 2)
    draw_panels(tmp_path, "umap", [Panel("t $_{", xy, labels * 10, "l $_{")], "c")


@pytest.mark.parametrize(
    ("panels", "message"),
    [
        ([], "at least one panel"),
        ([Panel("p", np.zeros((3, 2)), ["a", "b"])], "for 2 cells"),
        ([Panel("p", np.zeros((2, 2)), ["a", "b"]), Panel("q", np.zeros((3, 2)), ["a"] * 3)], "'q'"),
        ([Panel("p", np.array([[0.0, np.nan], [1.0, 1.0]]), ["a", "b"])], "NaN"),
    ],
)
def test_panels_that_do_not_fit_are_refused(tmp_path, panels, message):
    with pytest.raises(ValueError, match=message):
        draw_panels(tmp_path, "umap", panels, "c")
