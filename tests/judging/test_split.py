import tracemalloc

import numpy as np
import pytest

from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.judging.copies import same_vectors
from xfm.judging.split import split_cells


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


def test_a_refusal_over_copies_says_so():
    donors = [f"d{i % 30}" for i in range(300)]
    copies = own(300)
    copies[:30] = 0  # one empty cell in each of 30 donors
    with pytest.raises(Refused, match="30 groups are tied into 1 by 30 copies of rows: remove the copies"):
        split_cells(donors, copies, 0, 0.2, 0.2)
    with pytest.raises(Refused, match="found 2: name a --group column with more values"):
        split_cells(["a"] * 5 + ["b"] * 5, np.zeros(10, np.int64), 0, 0.2, 0.2)


@pytest.mark.parametrize(("n_shared", "alike"), [(50, True), (51, False)])
def test_a_vector_of_very_many_cells_is_no_copy(n_shared, alike):
    vectors = np.random.default_rng(3).standard_normal((1000, 16)).astype(np.float32)
    vectors[100 : 100 + n_shared] = 0
    vectors[1] = vectors[0]
    numbers = same_vectors(vectors, 0)
    assert len(np.unique(numbers)) == (950 if alike else 999)
    assert numbers[0] == numbers[1]


def test_a_vector_of_one_cell_in_a_hundred_may_be_a_copy():
    vectors = np.random.default_rng(3).standard_normal((8000, 12)).astype(np.float32)
    vectors[:80] = 0
    vectors[80:161] = 1  # more than 1 % of 8,000
    assert len(np.unique(same_vectors(vectors, 0))) == 8000 - 79


def test_empty_cells_of_all_donors_leave_donors_apart():
    vectors = np.random.default_rng(4).standard_normal((600, 16)).astype(np.float32)
    donors = [f"d{i % 30}" for i in range(600)]
    vectors[:60] = 0.5
    split = split_cells(donors, same_vectors(vectors, 0), 0, 0.2, 0.2)
    assert split.cells() == (360, 120, 120)


@pytest.mark.parametrize("share", [0.2, 0.3])
def test_one_donor_with_half_the_cells_does_not_become_the_test(share):
    donors = ["big"] * 900 + [f"d{i}" for i in range(9) for _ in range(100)]
    drawn = set()
    for seed in range(50):
        split = split_cells(donors, own(1800), seed, 0.2, share)
        train, validation, test = split.cells()
        # Nearest to 20 % and 30 % of 1,800 that hundreds can come.
        assert (validation, test) == (400, {0.2: 400, 0.3: 500}[share])
        assert train >= 900
        drawn.add(tuple(sorted({donors[i] for i in split.where(TEST)})))
    assert len(drawn) > 25


def test_no_single_group_would_bring_the_test_nearer_to_its_share():
    rng = np.random.default_rng(5)
    for seed in range(100):
        sizes = rng.geometric(0.02, int(rng.integers(3, 25)))
        donors = np.repeat([f"d{i}" for i in range(len(sizes))], sizes)
        cells = len(donors)
        split = split_cells(donors, own(cells), seed, 0.2, 0.3)
        assert min(split.cells()) > 0
        groups_of = [{donors[i] for i in split.where(part)} for part in (TRAIN, VALIDATION, TEST)]
        assert sum(map(len, groups_of)) == len(sizes)
        test, by_name = split.cells()[TEST], {f"d{i}": int(size) for i, size in enumerate(sizes)}
        if 1 < len(groups_of[TEST]) < len(sizes) - 2:
            others = groups_of[TRAIN] | groups_of[VALIDATION]
            assert all(abs(test - 0.3 * cells) <= abs(test + by_name[name] - 0.3 * cells) + 1e-9 for name in others)


@pytest.mark.parametrize("sizes", [(98, 1, 1), (1, 1, 1), (45, 45, 10), (1, 98, 1)])
def test_any_three_groups_make_three_parts_in_any_order(sizes):
    donors = np.repeat(["a", "b", "c"], sizes)
    for seed in range(10):
        split = split_cells(donors, own(len(donors)), seed, 0.2, 0.2)
        assert sorted(split.cells()) == sorted(sizes)
        assert split.cells()[TRAIN] == max(sizes)
        back = split_cells(donors[::-1], own(len(donors)), seed, 0.2, 0.2)
        np.testing.assert_array_equal(back.parts[::-1], split.parts)


def copied(vectors, off, seed=6):
    """The first half of the cells again, off by up to `off` in every dimension."""
    rng = np.random.default_rng(seed)
    half = len(vectors) // 2
    vectors[half:] = vectors[:half] + rng.uniform(-off, off, vectors[half:].shape)
    return vectors


def found(vectors, stored=np.float32):
    """How many copies are found, and how many cells are taken for another one than theirs."""
    vectors = vectors.astype(stored).astype(np.float32)
    numbers, half = same_vectors(vectors, 0, stored=stored), len(vectors) // 2
    return int((numbers[half:] == numbers[:half]).sum()), half - len(np.unique(numbers[:half]))


@pytest.mark.parametrize("off", [1e-6, 1e-5])
def test_copies_are_found_in_half_precision(off):
    vectors = copied(np.random.default_rng(7).standard_normal((2000, 64)), off)
    assert found(vectors, np.float16) == (1000, 0)


def test_copies_are_found_among_vectors_of_unit_norm():
    vectors = np.random.default_rng(8).standard_normal((2000, 1024))
    assert found(copied(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), 1e-5)) == (1000, 0)


def test_copies_are_found_in_a_narrow_layer_far_from_zero():
    vectors = 1 + 2e-4 * np.random.default_rng(9).standard_normal((2000, 64))
    assert found(copied(vectors, 1e-5)) == (1000, 0)


def test_one_massive_dimension_hides_neither_copies_nor_cells():
    vectors = np.random.default_rng(10).standard_normal((2000, 64))
    vectors[:, 5] += 1000
    assert found(copied(vectors, 1e-5), np.float16) == (1000, 0)


@pytest.mark.parametrize("scale", [1.0, 0.03, 1e-6])
@pytest.mark.parametrize("dimensions", [2, 10, 64])
@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_different_cells_are_not_taken_for_copies(dimensions, scale, stored):
    vectors = scale * np.random.default_rng(11).standard_normal((5000, dimensions))
    vectors = vectors.astype(stored).astype(np.float32)
    different = len(np.unique(vectors, axis=0))
    assert len(np.unique(same_vectors(vectors, 0, stored=stored))) == different


def test_in_two_dimensions_only_equal_vectors_are_copies():
    vectors = np.random.default_rng(12).standard_normal((100, 2)).astype(np.float32)
    vectors[1], vectors[3] = vectors[0], vectors[2] + np.float32(1e-6)
    numbers = same_vectors(vectors, 0)
    assert numbers[0] == numbers[1]
    assert len(np.unique(numbers)) == 99


@pytest.mark.parametrize("stored", [np.float32, np.float16])
def test_different_cells_on_a_plane_or_in_tight_clusters_are_not_copies(stored):
    rng = np.random.default_rng(13)
    plane = 0.01 * rng.standard_normal((5000, 2)) @ rng.standard_normal((2, 32))
    clusters = rng.standard_normal((10, 32))[rng.integers(0, 10, 5000)] + 0.01 * rng.standard_normal((5000, 32))
    for vectors in (plane.astype(np.float32), clusters.astype(stored).astype(np.float32)):
        given = stored if vectors is not plane else np.float32
        assert len(np.unique(same_vectors(vectors, 0, stored=given))) == 5000


def test_copies_are_those_of_a_full_comparison():
    rng = np.random.default_rng(14)
    vectors = rng.standard_normal((12, 20))[rng.integers(0, 12, 600)] + 0.1 * rng.standard_normal((600, 20))
    for start in range(0, 200, 4):  # chains of four, each 1.5e-5 from the last
        vectors[start + 1 : start + 4] = vectors[start] + 1.5e-5 * np.arange(1, 4)[:, None]
    vectors = vectors.astype(np.float32)
    apart = np.abs(vectors[:, None] - vectors[None]).max(axis=2)
    assert not ((apart > 6e-5) & (apart < 1e-2)).any()  # chains and nothing else, by exhaustion
    numbers = same_vectors(vectors, 0)
    np.testing.assert_array_equal(numbers[:, None] == numbers[None], apart < 1e-2)


@pytest.mark.parametrize("off", [0.0, 1e-6])
def test_many_equal_vectors_are_cheap(off):
    rng = np.random.default_rng(15)
    vectors = rng.standard_normal((8000, 16)).astype(np.float32)
    vectors[:3500] = 1 + rng.uniform(-off, off, (3500, 16))
    tracemalloc.start()
    numbers = same_vectors(vectors, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(np.unique(numbers)) == 8000
    assert peak < 60e6  # bytes; half of 3,500 squared pairs would be 98e6
