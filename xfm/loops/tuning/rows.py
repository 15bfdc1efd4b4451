"""The rows of a search: training and validation rows. Test rows are dropped where they are read and never written."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import Refused
from xfm.core.schema import PART, ROW_ID
from xfm.loops.evaluation.judged import MISSING, Judged, labels_of
from xfm.loops.evaluation.split import LEFT_OUT, Split
from xfm.loops.finetuning.rows import Labelled
from xfm.loops.training import tokens
from xfm.loops.training.tokens import SplitRows, TokenStore


class SplitWithoutTest(SplitRows):
    """As `SplitRows`, and the test rows away: what is not stored, no trial can read."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """N rows to those of training, validation and left out, in this order."""
        split = super().__call__(rows)
        return split.filter(pc.not_equal(split[PART], tokens.TEST))


def searched_rows(store: TokenStore, label: str, group: str | None, *, seed: int, noun: str) -> Labelled:
    """Ids, classes and parts of the stored rows.

    Args:
        store: of all tokens.
        label: column of the classes.
        group: column whose values were kept together, or None.
        seed: of the split.
        noun: what rows are called.

    Raises:
        Refused: NO_ROWS, ONE_CLASS, or the label cannot be used.
    """
    row_ids = tuple(_together(store, ROW_ID).to_pylist())
    found = labels_of(_together(store, label), label, 1, "--task.label")
    parts = _together(store, PART).to_numpy().astype(np.int8)
    parts[parts == tokens.LEFT_OUT] = LEFT_OUT
    names = row_ids if group is None else _together(store, group).cast(pa.string()).to_pylist()
    _, groups = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    split = Split(parts, groups.astype(np.int64))
    judged = Judged(np.arange(len(row_ids)), row_ids, (found,), split, seed=seed, resamples=1, noun=noun)
    labelled = Labelled(judged, ())
    for part, word in ((tokens.TRAIN, "training"), (tokens.VALIDATION, "validation")):
        if not len(labelled.held(part)):
            raise Refused("NO_ROWS", f"no {word} row has a {label}: a search trains on some and compares trials on "
                          "others; see finetune.validation, finetune.split and finetune.carve")  # fmt: skip
    seen = np.unique(found.codes[labelled.held(tokens.TRAIN)])
    if len(seen) < 2:
        raise Refused("ONE_CLASS", f"all training {noun} are of the class {found.classes[int(seen[0])]!r}")
    assert MISSING not in seen
    return labelled


def _together(store: TokenStore, name: str) -> pa.ChunkedArray:
    columns = store.column(name)
    return pa.chunked_array([chunk for column in columns for chunk in column.chunks], columns[0].type)
