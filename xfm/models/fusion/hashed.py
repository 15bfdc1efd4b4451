"""Words and character triples as sums of keyed signs.

Every feature (a word, or three letters of it, with a mark at either end) has a vector of signs that follows from its
name alone; a text is the sum over its features, of unit length: a signed random projection of their counts, as Charikar
(STOC 2002) and, with hashed features, Weinberger et al. (ICML 2009) use it. Cosines of two texts are then near those of
their counts. "oligodendrocyte" and "oligodendrocyte precursor cell" share half of theirs.
"""

import re
import unicodedata
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from xfm.core.random import key64, mix
from xfm.models.fusion.bank import LabelVectors

WORD = re.compile(r"\w+|[^\w\s]")  # a sign is a word: CD4+ is not CD4-


def hash_text(text: str, dim: int, *, by_word: bool) -> LabelVectors:
    """One unit vector of the text, or one of each word.

    Args:
        text: at least one letter or sign.
        dim: numbers of a vector.
        by_word: (words, dim) instead of (1, dim).
    """
    words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    sums = np.stack([_sum_of(word, dim) for word in words])
    counts = sums if by_word else sums.sum(axis=0, keepdims=True)
    lengths = np.sqrt((counts * counts).sum(axis=1, keepdims=True).astype(np.float64))
    # Opposite signs may cancel in a few dimensions, never in all of hundreds.
    return LabelVectors((counts / np.maximum(lengths, 1.0)).astype(np.float32), len(words))


def _sum_of(word: str, dim: int) -> NDArray[np.int64]:
    """(dim,) whole numbers, so that their sum is the same in any order."""
    marked = f"<{word}>"
    features = [f"word {word}", *(f"triple {marked[i : i + 3]}" for i in range(len(marked) - 2))]
    summed: NDArray[np.int64] = np.stack([_signs(feature, dim) for feature in features]).sum(axis=0)
    return summed


@lru_cache(maxsize=4096)
def _signs(feature: str, dim: int) -> NDArray[np.int64]:
    words = mix(np.arange(dim, dtype=np.uint64) ^ np.uint64(key64(0, feature)))
    return np.where(words >> np.uint64(63), 1, -1).astype(np.int64)
