"""Checks and layout of one batch."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xfm.core.schema import COUNTS, GENE_IDS, REFUSED
from xfm.sources.cells import CheckedRows, cell_batch


def batch_of(rows, counts=True):
    """rows: a list of lists of (gene, value)."""
    flat = [entry for row in rows for entry in row]
    indptr = np.cumsum([0, *[len(row) for row in rows]])
    genes, values = np.array([g for g, _ in flat], np.int64), np.array([v for _, v in flat], np.float64)
    ids = [str(i) for i in range(len(rows))]
    return cell_batch(CheckedRows(indptr, genes, values), row_ids=ids, shard="s", obs={}, genes=b"", counts=counts)


def test_genes_are_sorted_and_stored_zeros_removed():
    batch = batch_of([[(5, 1), (2, 3), (9, 0)], [], [(0, 0)], [(1, 2)]])
    assert batch[GENE_IDS].to_pylist() == [[2, 5], [], [], [1]]
    assert batch[COUNTS].to_pylist() == [[3, 1], [], [], [2]]
    assert batch[REFUSED].null_count == 4
    assert batch.schema.field(GENE_IDS).type == pa.large_list(pa.int32())
    batch.validate(full=True)


@pytest.mark.parametrize(
    ("value", "code"),
    [(-1, "NEGATIVE"), (np.nan, "NAN"), (-np.inf, "INFINITE"), (1.5, "NOT_COUNTS"), (2**24 + 2, "TOO_LARGE")],
)
def test_a_bad_value_names_its_gene(value, code):
    batch = batch_of([[(0, 1)], [(0, 1), (7, value)], []])
    assert batch[REFUSED].to_pylist()[1].startswith(f"{code}: {float(value)} at gene 7")
    assert batch[GENE_IDS].to_pylist() == [[0], [], []]


def test_a_gene_stored_twice_is_not_added_up():
    assert batch_of([[(3, 1), (3, 1)]])[REFUSED].to_pylist()[0].startswith("DUPLICATE_ENTRY")


def test_log_values_may_be_fractions_but_not_negative():
    batch = batch_of([[(0, 0.5)], [(0, -0.5)], [(0, 1e300)]], counts=False)
    assert [why and why.split(":")[0] for why in batch[REFUSED].to_pylist()] == [None, "NEGATIVE", "TOO_LARGE"]


entries = st.lists(st.tuples(st.integers(0, 20), st.floats(width=32) | st.integers(0, 9)), max_size=8)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries, min_size=1, max_size=6))
def test_no_row_leaves_with_anything_but_positive_whole_numbers(rows):
    """What lies within 1e-4 of a whole number is that number; a row with anything else is refused."""
    batch = batch_of(rows)
    batch.validate(full=True)
    for row, why, genes, values in zip(
        rows, batch[REFUSED].to_pylist(), batch[GENE_IDS].to_pylist(), batch[COUNTS].to_pylist(), strict=True
    ):
        good = all(0 <= v <= 2**24 and abs(v - round(v)) <= 1e-4 for _, v in row) and len({g for g, _ in row}) == len(
            row
        )
        assert (why is None) == good
        expected = sorted((g, round(v)) for g, v in row if round(v)) if good else []
        assert list(zip(genes, values, strict=True)) == expected
