"""Which cells make up a batch, which types are set against them, and what is said of a shared space."""

import numpy as np
import pytest
from sklearn.metrics.pairwise import euclidean_distances

from xfm.core.errors import Refused
from xfm.tasks.alignment.batches import TypeDraws, frequencies, other_types
from xfm.tasks.alignment.outcome import by_type, retrieved, space_scores

TYPES = np.repeat([0, 1, 3], [400, 100, 4])  # type 2 has no training cell
SIZES = (300, 0, 204)


def drawn(sampler: str, steps: int, batch: int = 50) -> np.ndarray:
    draws = TypeDraws(SIZES, TYPES, batch, 0, sampler)
    return np.concatenate([draws.batch(step)[2] for step in range(steps)])


def test_types_are_drawn_by_the_root_of_their_frequency():
    """20 : 10 : 2 of 32, against 400 : 100 : 4."""
    shares = np.bincount(drawn("type_balanced", 400)) / 20_000
    np.testing.assert_allclose(shares, [20 / 32, 10 / 32, 0, 2 / 32], atol=0.015)


def test_a_uniform_epoch_has_every_row_once():
    draws = TypeDraws(SIZES, TYPES, 56, 0, "uniform")
    assert draws.order.batches_per_epoch == 9
    seen = [pair for step in range(9) for pair in zip(*draws.batch(step)[:2], strict=True)]
    assert len(seen) == len(set(seen)) == 504


@pytest.mark.parametrize("sampler", ["type_balanced", "uniform"])
def test_rows_keep_their_types_and_shares_make_up_the_batch(sampler):
    draws = TypeDraws(SIZES, TYPES, 50, 3, sampler)
    parts, rows, types = draws.batch(7)
    assert set(parts.tolist()) <= {0, 2}
    np.testing.assert_array_equal(types, TYPES[np.where(parts == 0, rows, rows + 300)])
    shares = [draws.share(7, rank, 3) for rank in range(3)]
    together = np.concatenate([np.stack(share, axis=1) for share in shares])
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, np.stack([parts, rows, types], axis=1).tolist()))
    with pytest.raises(Refused, match="51 workers"):
        draws.share(0, 0, 51)


@pytest.mark.parametrize(("negatives", "expected"), [("uniform_types", 0.5), ("balanced", 100 / 104)])
def test_a_wrong_type_is_never_the_own_one_and_is_drawn_as_asked(negatives, expected):
    types = np.zeros(20_000, np.int64)
    found = other_types(types, frequencies(TYPES, 4, negatives), np.random.default_rng(0))
    assert set(found.tolist()) == {1, 3}, "neither the own type nor one without training cells"
    assert (found == 1).mean() == pytest.approx(expected, abs=0.015)
    for own in range(4):
        many = other_types(np.full(5000, own), frequencies(TYPES, 4, negatives), np.random.default_rng(own))
        assert own not in many
        assert many.max() < 4


def test_a_single_type_has_no_wrong_one():
    with pytest.raises(ValueError, match="second type"):
        other_types(np.zeros(3, np.int64), np.array([5.0]), np.random.default_rng(0))


def test_scores_of_a_space_by_hand():
    """Cells at 0, 90 and 180 degrees; words at 0 and 90. The third cell's words are at 90."""
    genes = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    texts = np.array([[1, 0], [0, 1]], np.float32)
    types, others = np.array([0, 1, 1]), np.array([1, 0, 0])
    scores = space_scores(genes, texts, types, others, 0)
    assert retrieved(genes, texts, types).tolist() == [True, True, True]
    assert (scores["retrieval"], scores["margin_accuracy"]) == (1.0, 1.0)
    assert scores["alignment"] == pytest.approx(2 / 3)
    # Squared distances of pairs: 2, 4, 2.
    assert scores["uniformity"] == pytest.approx(np.log((2 * np.exp(-4) + np.exp(-8)) / 3))
    # Mean cell (0, 1/3), mean words (1/3, 2/3).
    assert scores["modality_gap"] == pytest.approx(np.hypot(1 / 3, 1 / 3))


def test_uniformity_against_scikit_learn_distances():
    rows = np.random.default_rng(1).normal(size=(60, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    squares = euclidean_distances(rows.astype(np.float64), squared=True)[np.triu_indices(60, 1)]
    found = space_scores(rows, rows[:2], np.zeros(60, np.int64), None, 0)
    assert found["uniformity"] == pytest.approx(np.log(np.exp(-2 * squares).mean()))
    assert "margin_accuracy" not in found


def test_the_mean_over_types_counts_a_rare_type_as_a_frequent_one():
    genes = np.array([[1, 0]] * 9 + [[1, 0]], np.float32)
    types = np.array([0] * 9 + [1])
    scores = space_scores(genes, np.eye(2, dtype=np.float32), types, None, 0)
    assert scores["retrieval"] == pytest.approx(0.9)
    assert scores["retrieval_macro"] == pytest.approx(0.5)
    assert by_type(np.array([True, False, True]), np.array([4, 4, 2])) == {2: (1.0, 1), 4: (0.5, 2)}
