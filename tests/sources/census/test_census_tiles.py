"""Packing of tiles into shards."""

import numpy as np

from xfm.core.random import rng_for
from xfm.sources.census.tables import Tally


def packed(shard_rows, *batches):
    tally = Tally(shard_rows)
    for joinids, nnz in batches:
        tally.add(np.asarray(joinids), None if nnz is None else np.asarray(nnz))
    return tally


def test_thin_tiles_are_packed_and_empty_ones_skipped():
    every_tenth = np.arange(0, 2048 * 40, 10)
    far = np.array([2048 * 1000 + 5])
    runs = list(packed(2048, (np.concatenate([every_tenth, far]), None)).runs())
    assert sum(run.rows for run in runs) == len(every_tenth) + 1
    assert all(run.rows <= 2048 and run.start % 2048 == run.stop % 2048 == 0 for run in runs)
    assert runs[0] == (0, 2048 * 10, 2048)
    assert runs[-1].stop == 2048 * 1001


def test_deep_cells_make_shorter_shards():
    joinids = np.arange(2048 * 4)
    shallow = list(packed(8192, (joinids, np.full(len(joinids), 1000))).runs())
    deep = list(packed(8192, (joinids, np.full(len(joinids), 8000))).runs())
    assert [run.rows for run in shallow] == [8192]
    assert [run.rows for run in deep] == [4096, 4096]


def test_order_and_cut_of_the_batches_do_not_matter_but_every_cell_does():
    joinids = rng_for(0, "joinids").permutation(100_000)[:5000]
    nnz = joinids % 77
    whole = packed(512, (joinids, nnz))
    parts = packed(512, (joinids[3000:], nnz[3000:]), ([], []), (joinids[:3000], nnz[:3000]))
    other = packed(512, (joinids[1:], nnz[1:]))
    changed = packed(512, (joinids, np.where(joinids == joinids[0], 78, nnz)))
    assert list(whole.runs()) == list(parts.runs())
    assert whole.digest() == parts.digest()
    assert len({whole.digest(), other.digest(), changed.digest()}) == 3
