"""A few training rows of each class, chosen by key: the same on every machine and for any number of workers.

Few-shot protocol of Radford et al., ICML 2021, section 3.1.5, and Zhou et al., IJCV 2022 (CoOp): so many of each class,
drawn anew for each seed. Here 2 shots hold the 1 shot of the same seed, and so on, so that curves over shots compare
like with like.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import key64

I64 = NDArray[np.int64]


def few_shots(row_ids: Sequence[str], codes: NDArray[np.integer], shots: int | Literal["all"], seed: int) -> I64:
    """Which rows to train on.

    Args:
        row_ids: of N training rows.
        codes: (N,) their classes; rows below 0 have none and are never chosen.
        shots: of each class; a class that has fewer gives what it has.
        seed: of the draw.

    Returns:
        Rising positions.
    """
    if shots == "all":
        return np.flatnonzero(codes >= 0)
    words = np.fromiter((key64(seed, f"shot\x1f{row}") for row in row_ids), np.uint64, len(row_ids))
    order = np.argsort(words, kind="stable")
    chosen = [order[codes[order] == code][:shots] for code in np.unique(codes[codes >= 0])]
    return np.sort(np.concatenate([np.empty(0, np.int64), *chosen]))
