"""Keyed masks: a function of the row alone, of the size asked for, fair to every position."""

from itertools import pairwise

import numpy as np
import pytest

from xfm.tokenizers.ragged import choose_fraction, position_uniforms


def rows(sizes, seed=0):
    """Rows of distinct ids behind a special token."""
    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum([size + 1 for size in sizes])]).astype(np.int64)
    ids = np.concatenate([[9999, *rng.choice(9000, size, replace=False)] for size in sizes]).astype(np.int64)
    values = rng.integers(1, 51, len(ids))
    values[offsets[:-1]] = -2
    eligible = np.ones(len(ids), bool)
    eligible[offsets[:-1]] = False
    return offsets, ids, values, eligible


def mask(offsets, ids, values, eligible, fraction=0.25, seed=0, purpose="mask"):
    return choose_fraction(offsets, position_uniforms(offsets, ids, values, seed, purpose), eligible, fraction)


def hidden_ids(offsets, ids, chosen):
    return [set(ids[a:b][chosen[a:b]]) for a, b in pairwise(offsets)]


@pytest.mark.parametrize(("size", "fraction", "expected"), [
    (1, 0.25, 1), (2, 0.25, 1), (2, 0.99, 1), (3, 0.99, 2), (4, 0.25, 1), (100, 0.25, 25), (101, 0.25, 25),
    (10, 0.01, 1),
])  # fmt: skip
def test_a_row_hides_its_share_at_least_one_and_not_all(size, fraction, expected):
    offsets, ids, values, eligible = rows([size, 7])
    chosen = mask(offsets, ids, values, eligible, fraction)
    assert chosen[: size + 1].sum() == expected
    assert not chosen[offsets[:-1]].any()


def test_a_row_without_eligible_positions_hides_none():
    offsets, ids, values, eligible = rows([3, 4])
    eligible[:4] = False
    assert not mask(offsets, ids, values, eligible)[:4].any()


def test_each_row_may_have_its_own_share():
    offsets, ids, values, eligible = rows([40, 40, 40])
    chosen = mask(offsets, ids, values, eligible, np.array([0.1, 0.5, 0.9]))
    assert np.add.reduceat(chosen.astype(int), offsets[:-1]).tolist() == [4, 20, 36]


def test_a_mask_does_not_depend_on_neighbours_or_on_the_order_of_tokens():
    offsets, ids, values, eligible = rows([30, 12, 55])
    together = hidden_ids(offsets, ids, mask(offsets, ids, values, eligible))
    for row, (a, b) in enumerate(pairwise(offsets)):
        order = np.concatenate([[0], 1 + np.random.default_rng(row).permutation(b - a - 1)])
        alone = ids[a:b][order], values[a:b][order], eligible[a:b][order]
        ends = np.array([0, b - a])
        assert hidden_ids(ends, alone[0], mask(ends, *alone)) == [together[row]]


def test_seed_purpose_and_values_each_change_the_mask():
    offsets, ids, values, eligible = rows([200])
    plain = mask(offsets, ids, values, eligible)
    np.testing.assert_array_equal(plain, mask(offsets, ids, values, eligible))
    other = values.copy()
    other[7] = other[7] % 50 + 1
    for changed in (
        mask(offsets, ids, values, eligible, seed=1),
        mask(offsets, ids, values, eligible, purpose="mask epoch 2"),
        mask(offsets, ids, other, eligible),
    ):
        assert 10 < (plain & changed).sum() + (plain ^ changed).sum() / 2 <= 100
        assert (plain & changed).sum() < 30  # of 50; chance gives 12.5


def test_every_position_and_every_bin_is_hidden_equally_often():
    offsets, ids, values, eligible = rows([20] * 4000, seed=3)
    chosen = mask(offsets, ids, values, eligible)
    by_position = chosen.reshape(4000, 21)[:, 1:].mean(axis=0)
    assert np.abs(by_position - 0.25).max() < 0.025  # 3.6 standard errors
    low = chosen[eligible & (values <= 25)].mean()
    assert abs(low - 0.25) < 0.008


def test_uniforms_are_uniform():
    offsets, ids, values, _ = rows([500] * 40)
    counts = np.histogram(position_uniforms(offsets, ids, values, 0, "x"), 20, (0, 1))[0]
    expected = counts.sum() / 20
    assert ((counts - expected) ** 2 / expected).sum() < 44  # chi-square, 19 degrees: 0.1 %
