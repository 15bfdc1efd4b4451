"""How well cells and the words for their types lie together in a shared space.

Alignment and uniformity: Wang and Isola, ICML 2020, equations 2 and 3, with powers 2 and 2. Modality gap: Liang et al.,
NeurIPS 2022, section 2.1. Retrieval: recall at 1 of a type among all labels of the bank, as Radford et al., ICML 2021,
measure zero-shot classes.
"""

# Shapes: N cells, T labels, P width of the shared space.

from math import log

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import rng_for

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
UNIFORMITY_ROWS = 2000  # cells at most whose pairs are looked at: two million


def retrieved(genes: F32, texts: F32, types: I64) -> NDArray[np.bool_]:
    """(N,) whether the label nearest to a cell is its own; of equally near ones the first counts."""
    found: NDArray[np.bool_] = (genes @ texts.T).argmax(axis=1) == types
    return found


def by_type(values: NDArray[np.bool_], types: I64) -> dict[int, tuple[float, int]]:
    """Type -> mean of its cells, and how many they are; types in order."""
    names, places, counts = np.unique(types, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=values) / counts
    return {int(name): (float(mean), int(count)) for name, mean, count in zip(names, means, counts, strict=True)}


def space_scores(genes: F32, texts: F32, types: I64, others: I64 | None, seed: int) -> dict[str, float]:
    """What is said of a shared space.

    Args:
        genes: (N, P) unit vectors of cells.
        texts: (T, P) unit vectors of all labels.
        types: (N,) own labels.
        others: (N,) labels that are not their own, or None where there is one label alone.
        seed: of the sample whose pairs uniformity is measured on.

    Returns:
        retrieval: share of cells that find their label; retrieval_macro: the mean of that over types;
        margin_accuracy: share that is nearer to its own label than to the other one;
        alignment: mean squared distance to the own label; uniformity: log of the mean of exp(-2 d²) over pairs of
        cells, where there are two; modality_gap: distance of the mean cell from the mean of the cells' labels.
    """
    hits = retrieved(genes, texts, types)
    own = _squares(genes, texts[types])
    scores = {
        "retrieval": float(hits.mean()),
        "retrieval_macro": float(np.mean([share for share, _ in by_type(hits, types).values()])),
    }
    if others is not None:
        scores["margin_accuracy"] = float((own < _squares(genes, texts[others])).mean())
    scores["alignment"] = float(own.mean())
    if len(genes) > 1:
        scores["uniformity"] = _uniformity(genes, seed)
    gap = genes.astype(np.float64).mean(axis=0) - texts[types].astype(np.float64).mean(axis=0)
    return scores | {"modality_gap": float(np.linalg.norm(gap))}


def _squares(first: F32, second: F32) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = ((first.astype(np.float64) - second) ** 2).sum(axis=1)
    return squares


def _uniformity(genes: F32, seed: int) -> float:
    chosen = np.sort(rng_for(seed, "uniformity").permutation(len(genes))[:UNIFORMITY_ROWS])
    rows = genes[chosen].astype(np.float64)
    similar = rows @ rows.T
    # Unit vectors: d² is 2 - 2 cos.
    kept = np.exp(-4 * (1 - similar[np.triu_indices(len(rows), 1)]))
    return log(float(kept.mean()))
