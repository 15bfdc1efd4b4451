"""Which rows make up which batch."""

import numpy as np
import pytest

from xfm.core.errors import Refused
from xfm.training.order import BucketOrder, Order

SIZES = [40, 60, 3]


def test_an_epoch_draws_each_row_once_in_an_order_of_its_own():
    order = Order([5, 0, 30, 1, 14], 10, seed=1, window_rows=12)
    assert order.batches_per_epoch == 5
    epochs = []
    for epoch in range(2):
        batches = [order.batch(number) for number in range(5 * epoch, 5 * epoch + 5)]
        assert [batch[0] for batch in batches] == [epoch] * 5
        epochs.append([pair for _, parts, rows in batches for pair in zip(parts.tolist(), rows.tolist(), strict=True)])
    everything = [(part, row) for part, size in enumerate([5, 0, 30, 1, 14]) for row in range(size)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]


def test_any_batch_can_be_had_without_those_before_it():
    one, other = (Order([40, 60, 3], 8, seed=1, window_rows=50) for _ in range(2))
    wanted = [one.batch(number) for number in range(30)][27]
    epoch, parts, rows = other.batch(27)
    assert (wanted[0], wanted[1].tolist(), wanted[2].tolist()) == (epoch, parts.tolist(), rows.tolist())


def test_no_rows_are_refused():
    with pytest.raises(Refused, match="NO_TRAINING_ROWS"):
        Order([0, 0], 8, seed=1)


def bucket_order(**more) -> BucketOrder:
    rng = np.random.default_rng(0)
    return BucketOrder(SIZES, 8, 1, [rng.integers(3, 80, size + 5) for size in SIZES], **more)


@pytest.mark.parametrize("window_rows", [1000, 50])
def test_buckets_draw_what_a_plain_order_draws(window_rows: int):
    """No row twice, none of another part, and none beyond a part's training rows."""
    order = bucket_order(window_rows=window_rows, bucket_batches=4)
    for epoch in range(3):
        numbers = range(epoch * order.batches_per_epoch, (epoch + 1) * order.batches_per_epoch)
        drawn = [pair for n in numbers for pair in zip(*(each.tolist() for each in order.batch(n)[1:]), strict=True)]
        assert len(drawn) == len(set(drawn)) == 96
        assert all(row < SIZES[part] for part, row in drawn)


def test_rows_of_a_bucketed_batch_are_of_like_lengths_and_batches_come_in_no_order_of_length():
    order = bucket_order(bucket_batches=12)
    plain = Order(SIZES, 8, 1)

    def lengths(of: Order, number: int) -> np.ndarray:
        _, parts, rows = of.batch(number)
        return order._lengths[order._starts[parts] + rows]

    spread = [np.ptp(lengths(order, n)) for n in range(12)]
    assert np.mean(spread) < 0.25 * np.mean([np.ptp(lengths(plain, n)) for n in range(12)])
    middle = [float(lengths(order, n).mean()) for n in range(12)]
    assert middle != sorted(middle)
    assert middle != sorted(middle, reverse=True)


def test_the_shares_of_workers_make_up_the_batch():
    order = Order(SIZES, 8, seed=1)
    _, parts, rows = order.batch(5)
    shares = [order.share(5, rank, 3) for rank in range(3)]
    together = {(p, r) for _, ps, rs in shares for p, r in zip(ps.tolist(), rs.tolist(), strict=True)}
    assert together == set(zip(parts.tolist(), rows.tolist(), strict=True))
    assert sorted(len(ps) for _, ps, _ in shares) == [2, 3, 3]
    with pytest.raises(Refused, match="9 workers cannot share 8 rows"):
        order.share(0, 0, 9)
