"""The rows of a search: training and validation rows. Test rows are dropped where they are read and never written."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import Refused
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.schema import PART
from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import Labelled, judged_rows
from xfm.training.tokens import SplitRows, TokenParts, TokenStore


class SplitWithoutTest(SplitRows):
    """As `SplitRows`, and the test rows away: what is not stored, no trial can read."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """N rows to those of training, validation and left out, in this order."""
        split = super().__call__(rows)
        return split.filter(pc.not_equal(split[PART], TEST))


def without_test(parts: TokenParts, cure: str) -> TokenParts:
    """The same tokens as if there were no test rows: parts that hold nothing else are not even named.

    Args:
        parts: the tokens.
        cure: where no row is held out, what gives some.

    Raises:
        Refused: NO_VALIDATION_ROWS, there is nothing that trials could be compared on.
    """
    kept = [number for number, sizes in enumerate(parts.sizes) if sizes[TRAIN] + sizes[VALIDATION]]
    seen = TokenParts(
        parts.uri,
        tuple(parts.keys[number] for number in kept),
        tuple((parts.sizes[number][TRAIN], parts.sizes[number][VALIDATION], 0) for number in kept),
        parts.left_out,
    )
    assert not sum(seen.count(TEST))
    if not sum(seen.count(VALIDATION)):
        raise Refused("NO_VALIDATION_ROWS", f"no row is held out to compare trials on; {cure}")
    return seen


def searched_rows(
    store: TokenStore, label: str, group: str | None, *, seed: int, noun: str, also_read: Sequence[str] = ()
) -> Labelled:
    """Ids, classes and parts of the stored rows.

    Args:
        store: of all tokens.
        label: column of the classes.
        group: column whose values were kept together, or None.
        seed: of the split.
        noun: what rows are called.
        also_read: other columns that the task reads as classes.

    Raises:
        Refused: NO_ROWS, ONE_CLASS, or the label cannot be used.
    """
    labelled = Labelled(judged_rows(store, label, group, also_read, seed=seed, resamples=1, noun=noun), ())
    for part in (TRAIN, VALIDATION):
        if not len(labelled.held(part)):
            raise Refused("NO_ROWS", f"no {part.adjective} row has a {label}: a search trains on some and compares "
                          "trials on others; see finetune.validation, finetune.split and finetune.carve")  # fmt: skip
    found = labelled.label
    seen = np.unique(found.codes[labelled.held(TRAIN)])
    if len(seen) < 2:
        raise Refused("ONE_CLASS", f"all training {noun} are of the class {found.classes[int(seen[0])]!r}")
    assert MISSING not in seen
    return labelled
