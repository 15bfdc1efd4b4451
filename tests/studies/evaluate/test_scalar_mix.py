import numpy as np
import pytest

from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.studies.evaluate.scalar_mix import mix_layers


def planted(cells=600, dim=12, telling=2, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, 4, cells).astype(np.int32)
    centres = rng.standard_normal((4, dim)) * 1.5
    scales = (1, 1, 1, 1, 5)
    layers = {
        f"mean_l{i:02d}": (rng.standard_normal((cells, dim)) * scale).astype(np.float32)
        for i, scale in enumerate(scales)
    }
    layers[f"mean_l{telling:02d}"] += centres[codes].astype(np.float32)
    parts = np.array([TRAIN, TRAIN, TRAIN, VALIDATION, TEST], np.int8)[np.arange(cells) % 5]
    return layers, codes, parts


def learned(layers, codes, parts):
    return mix_layers(lambda place, column: layers[column].copy(), "x", sorted(layers), codes, parts, 0)


@pytest.mark.slow
def test_the_layer_that_tells_gets_the_largest_weight_whatever_the_scale_of_others():
    for telling in (0, 2, 3):
        layers, codes, parts = planted(telling=telling)
        _, mix = learned(layers, codes, parts)
        assert mix.weights.argmax() == telling
        assert mix.weights[telling] > 0.5
        assert abs(mix.weights.sum() - 1) < 1e-12
        assert mix.steps > 0


@pytest.mark.slow
def test_test_cells_teach_nothing():
    layers, codes, parts = planted()
    mixed, mix = learned(layers, codes, parts)
    other = {name: values.copy() for name, values in layers.items()}
    for values in other.values():
        values[parts == TEST] = 100.0
    codes_too = codes.copy()
    codes_too[parts == TEST] = 0
    mixed_too, mix_too = learned(other, codes_too, parts)
    np.testing.assert_array_equal(mix.weights, mix_too.weights)
    np.testing.assert_array_equal(mixed[parts != TEST], mixed_too[parts != TEST])


@pytest.mark.slow
def test_cells_without_a_label_are_mixed_and_not_learned_from():
    layers, codes, parts = planted()
    codes[::7] = -1
    mixed, mix = learned(layers, codes, parts)
    assert len(mixed) == len(codes)
    assert mix.weights.argmax() == 2
