import numpy as np
import pytest

from xfm.core.errors import Refused
from xfm.loops.evaluation.split import TEST, TRAIN, VALIDATION, same_vectors, split_cells


def own(cells):
    return np.arange(cells)


def test_parts_hold_their_share_of_cells():
    split = split_cells([f"cell{i}" for i in range(2000)], own(2000), 0, 0.2, 0.3)
    assert split.cells() == (1000, 400, 600)


def test_a_donor_is_never_on_two_sides():
    rng = np.random.default_rng(0)
    donors = [f"d{i}" for i in rng.integers(0, 12, 900)]
    split = split_cells(donors, own(900), 3, 0.2, 0.2)
    sides = {}
    for donor, part in zip(donors, split.parts, strict=True):
        sides.setdefault(donor, set()).add(int(part))
    assert all(len(parts) == 1 for parts in sides.values())
    assert {part for parts in sides.values() for part in parts} == {TRAIN, VALIDATION, TEST}


def test_copies_of_a_cell_tie_their_donors_together():
    donors = [f"d{i % 10}" for i in range(200)]
    copies = own(200)
    copies[1] = copies[0]  # one cell of d0 is a cell of d1 too
    for seed in range(20):
        parts = split_cells(donors, copies, seed, 0.2, 0.2).parts
        assert parts[0] == parts[1]
        assert len({int(part) for i, part in enumerate(parts) if i % 10 in (0, 1)}) == 1


def test_the_split_knows_names_not_order():
    names = [f"cell{i}" for i in range(300)]
    split = split_cells(names, own(300), 7, 0.2, 0.2)
    order = np.random.default_rng(1).permutation(300)
    again = split_cells([names[i] for i in order], own(300), 7, 0.2, 0.2)
    np.testing.assert_array_equal(split.parts[order], again.parts)
    other = split_cells(names, own(300), 8, 0.2, 0.2)
    assert (split.parts != other.parts).any()


def test_even_three_groups_fill_three_parts():
    split = split_cells(["a"] * 50 + ["b"] * 30 + ["c"] * 20, own(100), 0, 0.2, 0.2)
    assert min(split.cells()) >= 20


@pytest.mark.parametrize("donors", [["a"] * 10, ["a"] * 5 + ["b"] * 5])
def test_too_few_groups_are_refused(donors):
    with pytest.raises(Refused, match="TOO_FEW_GROUPS"):
        split_cells(donors, own(10), 0, 0.2, 0.2)


def test_copies_are_found_through_rounding_and_nothing_else_is():
    rng = np.random.default_rng(2)
    vectors = rng.standard_normal((500, 32)).astype(np.float32)
    vectors[400:450] = vectors[:50] + rng.uniform(-1e-5, 1e-5, (50, 32)).astype(np.float32)
    numbers = same_vectors(vectors, 0)
    np.testing.assert_array_equal(numbers[400:450], numbers[:50])
    assert len(np.unique(numbers)) == 450


def test_a_constant_column_makes_no_copies():
    assert len(np.unique(same_vectors(np.ones((20, 4), np.float32), 0))) == 20
