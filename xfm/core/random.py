"""Randomness that is a function of (seed, key), never of what was drawn before.

`rng_for` gives a NumPy generator for one named thing. `mix` is the vectorised form for millions of keys at once:
the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), a bijection on 64-bit words. `mix` and `uniform` use
operators only, so that numba compiles the very same functions for scalars.
"""

from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


def key64(seed: int, key: str) -> int:
    """A 64-bit key for one named thing, e.g. a row id."""
    return int.from_bytes(blake2b(f"{seed}\x1f{key}".encode(), digest_size=8).digest(), "little")


def rng_for(seed: int, key: str) -> np.random.Generator:
    """A generator whose stream depends on the seed and the key alone."""
    digest = blake2b(f"{seed}\x1f{key}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def mix(words: U64) -> U64:
    """(N,) 64-bit words to (N,) well-mixed 64-bit words."""
    z = words + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def uniform(words: U64) -> NDArray[np.float64]:
    """(N,) mixed words to (N,) numbers in [0, 1), from their upper 53 bits."""
    return (words >> np.uint64(11)) * np.float64(2.0**-53)


def in_fraction(seed: int, keys: list[str], fraction: float) -> NDArray[np.bool_]:
    """Whether each key falls into the first `fraction` of a keyed split: (N,) bool, the same on every machine."""
    words = np.fromiter((key64(seed, key) for key in keys), dtype=np.uint64, count=len(keys))
    return uniform(words) < fraction
