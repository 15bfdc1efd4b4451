"""A split that the data bring along: taken as it is, validation rows carved where it has none, leaks counted."""

import numpy as np
import pyarrow as pa
import pytest

from xfm.core.errors import Refused
from xfm.core.parts import LEFT_OUT, TEST, TRAIN, VALIDATION
from xfm.judging.eval_set import EvalSet, Labels, group_keys, labels_of
from xfm.judging.split import split_as_given, straddling
from xfm.metrics.resampling import GroupDraws


def own(rows):
    return np.arange(rows)


def names(rows):
    return [f"row{i}" for i in range(rows)]


def test_words_of_the_data_are_understood_in_any_case_and_rows_without_one_are_left_out():
    values = ["train", "Training", "VALID", "val", "dev", "validation", "test ", "Test", None, ""]
    split = split_as_given(values, names(10), own(10), 0, 0.2)
    expected = [TRAIN] * 2 + [VALIDATION] * 4 + [TEST] * 2 + [LEFT_OUT] * 2
    assert split.parts.tolist() == expected
    assert split.cells() == (2, 4, 2)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (["train", "held-out", "test"], r"found 'held-out' among held-out \(1\), test \(1\), train \(1\)"),
        (["train", "validation", None], r"no row is said to be test, found train \(1\), validation \(1\)"),
        (["test", "dev"], "no row is said to be train"),
        ([None, ""], "no value at all"),
    ],
)
def test_what_is_no_split_is_refused_with_what_was_found(values, words):
    with pytest.raises(Refused, match=words) as refused:
        split_as_given(values, names(len(values)), own(len(values)), 0, 0.2)
    assert refused.value.code == "BAD_SPLIT"


def test_without_validation_rows_a_keyed_share_of_the_training_rows_becomes_them():
    values = ["train"] * 800 + ["test"] * 200
    split = split_as_given(values, names(1000), own(1000), 0, 0.25)
    assert split.cells() == (600, 200, 200)
    assert (split.parts[800:] == TEST).all()
    # Known by their names, not by their places, and by the seed.
    order = np.random.default_rng(0).permutation(1000)
    again = split_as_given([values[i] for i in order], [names(1000)[i] for i in order], own(1000), 0, 0.25)
    np.testing.assert_array_equal(split.parts[order], again.parts)
    other = split_as_given(values, names(1000), own(1000), 1, 0.25)
    assert (split.parts[:800] != other.parts[:800]).any()


def test_validation_rows_are_carved_by_whole_groups_and_with_their_copies():
    groups = [f"author{i % 20}" for i in range(400)]
    copies = own(400)
    copies[1] = copies[0]  # a row of author 0 is one of author 1 too
    values = ["train"] * 300 + ["test"] * 100
    for seed in range(10):
        split = split_as_given(values, groups, copies, seed, 0.2)
        train, validation, _ = split.cells()
        # Fifteen rows a group in training; the tied pair has thirty.
        assert train + validation == 300
        assert abs(validation - 60) <= 15
        sides = {}
        for group, part in zip(groups[:300], split.parts[:300], strict=True):
            sides.setdefault(group, set()).add(int(part))
        assert all(len(parts) == 1 for parts in sides.values())
        assert sides["author0"] == sides["author1"]


def test_validation_rows_that_are_named_are_kept_whatever_share_is_asked_for():
    values = ["train"] * 8 + ["validation"] + ["test"]
    first, second = (split_as_given(values, names(10), own(10), seed, share) for seed, share in ((0, 0.2), (5, 0.4)))
    np.testing.assert_array_equal(first.parts, second.parts)
    assert first.cells() == (8, 1, 1)


def test_one_group_of_training_rows_cannot_be_carved():
    with pytest.raises(Refused, match="are one group") as refused:
        split_as_given(["train"] * 5 + ["test"], ["a"] * 6, own(6), 0, 0.2)
    assert refused.value.code == "TOO_FEW_GROUPS"


def test_copies_across_a_given_split_stay_where_they_are_and_are_counted():
    values = ["train"] * 6 + ["validation"] * 2 + ["test"] * 4
    copies = own(12)
    copies[8] = copies[9] = copies[0]  # two test rows are a training row
    copies[10] = copies[6]  # one is a validation row
    split = split_as_given(values, names(12), copies, 0, 0.2)
    assert split.cells() == (6, 2, 4)
    assert straddling(split.parts, copies) == 2
    # Copies are no independent witnesses: they are resampled together.
    assert split.groups[8] == split.groups[9] == split.groups[0]
    assert len(np.unique(split.groups)) == 9


def judged(parts, donors, labels=("a", "b") * 6, rows=range(12)):
    """Rows of a given split, some of them alone, in any order."""
    ids = [f"r{row:02d}" for row in rows]
    keys = group_keys([donors[row] for row in rows], ids)
    split = split_as_given([parts[row] for row in rows], keys, own(len(ids)), 0, 0.2)
    column = labels_of(pa.array([labels[row] for row in rows]), "label", 1)
    return EvalSet(own(len(ids)), tuple(ids), (column,), split, resamples=100)


def drawn(found):
    """{row: how often each resample of the test rows draws it}."""
    test = found.split.where(TEST)
    draws = GroupDraws(found.split.groups[test], found.seed, found.resamples)
    weights = np.concatenate(list(draws.blocks()))[:, draws.codes]
    return {found.row_ids[row]: weights[:, place].tolist() for place, row in enumerate(test)}


GIVEN = ["train"] * 4 + ["validation"] * 2 + ["test"] * 6
DONORS = [None, None, None, None, None, None, "x", "x", "y", "y", "z", None]


def test_draws_may_be_subtracted_only_where_test_rows_are_drawn_with_the_same_rows():
    one, shuffled = judged(GIVEN, DONORS), judged(GIVEN, DONORS, rows=[11, 3, 8, 0, 6, 7, 10, 1, 9, 2, 5, 4])
    assert one.split_digest() == shuffled.split_digest()
    assert drawn(one) == drawn(shuffled)
    # As many groups of the same test rows, but other ones: the n-th resamples hold different rows.
    other = judged(GIVEN, [*DONORS[:6], "x", "y", "x", "y", "z", None])
    assert drawn(one) != drawn(other)
    assert one.split_digest() != other.split_digest()
    # What training rows are drawn with moves no resample of test rows.
    moved = judged(GIVEN, ["q", "q", *DONORS[2:]])
    assert drawn(one) == drawn(moved)
    assert one.split_digest() == moved.split_digest()


def test_the_digest_of_a_split_with_rows_left_out_is_that_of_earlier_runs():
    """Recorded when -1 stood for a row that is left out; runs of then and now are compared by it."""
    ids = [f"r{i}" for i in range(6)]
    split = split_as_given(["train", "train", None, "valid", "test", "test"], ids, np.arange(6), 0, 0.2)
    label = Labels("kind", np.array([0, 1, 0, 1, 0, 1], np.int32), ("a", "b"))
    found = EvalSet(np.arange(6), tuple(ids), (label,), split, seed=3, resamples=50)
    assert found.split_digest() == "0b750c38ea4a8a5d592f11b0db40394ec784fb9668da676476a14e0437c1a46e"
    assert found.label_digests() == {"kind": "cda64281107f3e58a44c652bec241f4dd73bffa6e231aa5bf764c40d04821c84"}


def test_rows_without_a_part_or_a_class_make_no_other_data():
    """One job leaves them out as it reads, another keeps and ignores them."""
    parts = [None, *GIVEN[1:]]
    labels = ["a", "b", None, *("a", "b") * 4, "a"]
    whole, fewer = judged(parts, DONORS, labels), judged(parts, DONORS, labels, rows=[1, *range(3, 12)])
    assert whole.label_digests() == fewer.label_digests()
    assert judged(parts, DONORS, [*labels[:-1], "b"]).label_digests() != whole.label_digests()
