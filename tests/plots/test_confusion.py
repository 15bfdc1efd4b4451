import csv

import numpy as np
import pytest

from xfm.plots.classifier import draw_confusion, gather, in_order

COUNTS = np.array([[90, 0, 10], [0, 50, 0], [20, 0, 30]])
CLASSES = ["CD4 T cell", "B cell", "CD8 T cell"]


def test_the_csv_holds_all_counts_as_they_came(tmp_path):
    figure = draw_confusion(tmp_path, "c", COUNTS, CLASSES, caption="c")
    with (tmp_path / figure.csv).open() as file:
        head, *rows = csv.reader(file)
    assert head == ["true class", *CLASSES]
    assert [row[0] for row in rows] == CLASSES
    np.testing.assert_array_equal(np.array([row[1:] for row in rows], dtype=int), COUNTS)


def test_rows_are_truth_shaded_by_their_own_shares_with_counts_inside(tmp_path, axes):
    draw_confusion(tmp_path, "c", COUNTS, CLASSES, caption="c")
    names = [text.get_text() for text in axes[0].get_yticklabels()]
    order = [CLASSES.index(name.rpartition(" (")[0]) for name in names]
    assert [name.rpartition(" (")[2] for name in names] == [f"{COUNTS[row].sum()})" for row in order]
    shown = np.asarray(axes[0].images[0].get_array())
    by_hand = np.array([[0.9, 0, 0.1], [0, 1, 0], [0.4, 0, 0.6]])
    np.testing.assert_allclose(shown, by_hand[np.ix_(order, order)])
    written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes[0].texts}
    expected = {(row, column): COUNTS[order[row], order[column]] for row in range(3) for column in range(3)}
    assert written == {place: str(count) for place, count in expected.items() if count}


def test_classes_that_are_mistaken_for_each_other_stand_side_by_side():
    rng = np.random.default_rng(0)
    pairs = rng.permutation(12).reshape(6, 2)
    counts = np.diag(np.full(12, 100))
    # One way only, and from either of the two: a mistake counts whichever class is the true one.
    for number, (one, other) in enumerate(pairs):
        counts[(one, other) if number % 2 else (other, one)] = 30
    ordered, names = in_order(counts, [str(n) for n in range(12)])
    place = {int(name): index for index, name in enumerate(names)}
    assert all(abs(place[one] - place[other]) == 1 for one, other in pairs)
    back = [int(name) for name in names]
    np.testing.assert_array_equal(ordered, counts[np.ix_(back, back)])


def test_a_lineage_stands_from_end_to_end():
    """Stages of which each is mistaken for the next: one order, or its reverse, has all neighbours side by side."""
    counts = np.diag(np.full(6, 100))
    for stage, mistaken in enumerate([40, 30, 40, 25, 40]):
        counts[stage, stage + 1] = counts[stage + 1, stage] = mistaken
    shuffled = np.random.default_rng(1).permutation(6)
    _, names = in_order(counts[np.ix_(shuffled, shuffled)], [str(stage) for stage in shuffled])
    assert "".join(names) in {"012345", "543210"}


def test_beyond_sixty_the_most_frequent_are_shown_and_no_cell_is_lost():
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 5, size=(75, 75)) + np.diag(rng.permutation(75) * 10)
    names = [f"n{n}" for n in range(75)]
    shown, shown_names = gather(counts, names)
    assert shown.shape == (61, 61)
    assert shown_names[-1] == "other (15 classes)"
    largest = np.argsort(-counts.sum(axis=1), kind="stable")[:60]
    assert {int(name[1:]) for name in shown_names[:-1]} == set(largest.tolist())
    assert shown.sum() == counts.sum()
    rest = np.setdiff1d(np.arange(75), largest)
    assert shown[-1, -1] == counts[np.ix_(rest, rest)].sum()
    assert in_order(shown, shown_names)[1][-1] == "other (15 classes)"


def test_sixty_and_more_classes_have_no_counts_inside_but_their_names(tmp_path, axes):
    draw_confusion(tmp_path, "c", np.diag(np.arange(1, 71)), [f"class {n}" for n in range(70)], caption="c")
    assert len(axes[0].texts) == 0
    assert len(axes[0].get_yticklabels()) == 61


def test_a_class_that_is_only_guessed_has_an_empty_row_and_one_that_never_occurs_has_none(tmp_path, axes):
    counts = np.array([[5, 1, 0], [0, 0, 0], [0, 0, 0]])
    draw_confusion(tmp_path, "c", counts, ["a", "guessed", "never"], caption="c")
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["a (6)", "guessed (0)"]
    assert axes[0].images[0].get_array().mask.tolist() == [[False, False], [True, True]]


def test_a_perfect_diagonal_is_dark_and_the_bytes_are_the_same_each_time(tmp_path, pixels):
    path = tmp_path / draw_confusion(tmp_path, "c", np.diag([3, 3, 3]), CLASSES, caption="c").png
    first = path.read_bytes()
    # The darkest colour of ColorBrewer's Blues.
    assert (abs(pixels(path) - [0x08, 0x30, 0x6B]).max(axis=-1) <= 2).sum() > 10_000
    draw_confusion(tmp_path, "c", np.diag([3, 3, 3]), CLASSES, caption="c")
    assert path.read_bytes() == first


def test_the_words_for_those_who_do_not_see_name_the_largest_mistakes(tmp_path):
    assert draw_confusion(tmp_path, "c", COUNTS, CLASSES, caption="c").alt == (
        "170 of 200 cells on the diagonal. Most often mistaken: CD8 T cell as CD4 T cell (20); "
        "CD4 T cell as CD8 T cell (10)."
    )


@pytest.mark.parametrize(
    "counts", [np.zeros((3, 3), int), np.ones((2, 3), int), np.ones((2, 2), int), np.diag([1, 1, -1])]
)
def test_what_is_no_confusion_matrix_is_refused(tmp_path, counts):
    with pytest.raises(ValueError, match="confusion matrix of 3 classes"):
        draw_confusion(tmp_path, "c", counts, CLASSES, caption="c")
