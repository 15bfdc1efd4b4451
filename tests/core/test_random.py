"""Keyed randomness: published numbers, independence of order, and an even spread."""

import numpy as np
from numba import njit

from xfm.core.random import in_fraction, key64, mix, rng_for, uniform

BLAKE2B_OF_0_CELL = "edd01297bf071a0a"  # printf '0\037cell' | b2sum -l 64


def splitmix64(state):
    """The published algorithm with Python's integers (Vigna's splitmix64.c)."""
    mask = 2**64 - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_mix_is_splitmix64():
    # First outputs of splitmix64.c for seed 1234567.
    assert splitmix64(1234567) == 6457827717110365317
    words = np.array([0, 1, 1234567, 2**63, 2**64 - 1], np.uint64)
    assert mix(words).tolist() == [splitmix64(int(word)) for word in words]


def test_compiled_and_vectorised_forms_agree():
    words = np.arange(5, dtype=np.uint64) * np.uint64(2**61 + 3)
    compiled_mix, compiled_uniform = njit(mix), njit(uniform)
    assert [int(compiled_mix(word)) for word in words] == mix(words).tolist()
    assert [compiled_uniform(word) for word in words] == uniform(words).tolist()


def test_uniforms_lie_in_the_half_open_unit_interval_and_are_evenly_spread():
    assert uniform(np.array([0, 2**64 - 1], np.uint64)).tolist() == [0.0, 1 - 2**-53]
    drawn = uniform(mix(np.arange(20_000, dtype=np.uint64)))
    counts = np.histogram(drawn, 20, (0, 1))[0]
    assert ((counts - 1000) ** 2 / 1000).sum() < 44  # chi-square, 19 degrees: 0.1 %


def test_a_key_means_the_same_on_every_machine_and_other_keys_mean_others():
    assert key64(0, "cell") == int.from_bytes(bytes.fromhex(BLAKE2B_OF_0_CELL), "little")
    keys = {key64(seed, key) for seed in range(3) for key in ("a", "b", "a\x1fb", "")}
    assert len(keys) == 12
    assert key64(1, "1") != key64(11, "")


def test_generators_depend_on_seed_and_key_alone():
    first = rng_for(3, "split").random(4)
    rng_for(3, "other").random(99)
    np.testing.assert_array_equal(rng_for(3, "split").random(4), first)
    assert not np.array_equal(rng_for(4, "split").random(4), first)


def test_a_keyed_split_has_its_size_and_grows_without_moving_anyone_back():
    keys = [f"cell-{i}" for i in range(4000)]
    small, large = in_fraction(0, keys, 0.2), in_fraction(0, keys, 0.6)
    assert abs(small.mean() - 0.2) < 0.02  # three standard errors
    assert abs(large.mean() - 0.6) < 0.024
    assert not (small & ~large).any()
    np.testing.assert_array_equal(in_fraction(0, keys[::-1], 0.2)[::-1], small)
    assert in_fraction(0, [], 0.5).shape == (0,)
    assert not in_fraction(0, keys, 0.0).any()
    assert in_fraction(0, keys, 1.0).all()
