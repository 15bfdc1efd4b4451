from collections import Counter

import numpy as np
import pytest

from xfm.plots.panels import OTHER, PALETTE, group_classes


def test_classes_come_by_frequency_and_equals_by_name():
    found = group_classes(["b", "a", "c", "c", "", "b", "a"])
    assert found.names == ["a", "b", "c", "(no label)"]
    assert found.counts == [2, 2, 2, 1]
    assert [found.names[code] for code in found.codes] == ["b", "a", "c", "c", "(no label)", "b", "a"]
    assert found.gathered == 0


def test_beyond_thirty_the_29_largest_keep_their_names_and_the_rest_is_gathered():
    rng = np.random.default_rng(1)
    labels = [f"type {n}" for n in np.minimum(rng.geometric(0.06, 3000), 45)]
    truth = Counter(labels)
    assert len(truth) == 45
    found = group_classes(labels)
    assert len(found.names) == len(found.colours) == 30
    assert found.names[-1] == "other (16 classes)"
    assert found.gathered == 16
    assert found.colours[-1] == OTHER
    assert dict(zip(found.names[:29], found.counts[:29], strict=True)) == {n: truth[n] for n in found.names[:29]}
    assert min(found.counts[:29]) >= max(count for name, count in truth.items() if name not in found.names)
    assert found.counts[-1] == sum(count for name, count in truth.items() if name not in found.names)
    assert np.bincount(found.codes).tolist() == found.counts


def test_thirty_classes_need_no_other():
    found = group_classes([str(n) for n in range(30)])
    assert found.gathered == 0
    assert len(set(found.colours)) == 30


def test_no_cells_are_refused():
    with pytest.raises(ValueError, match="0 cells"):
        group_classes([])


def linear(colours):
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in colours])
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    """CIELAB of linear sRGB under D65 (CIE 1976)."""
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = (rgb @ np.array(to_xyz).T / [0.95047, 1.0, 1.08883]).T
    f = [np.where(v > 216 / 24389, np.cbrt(v), (24389 / 27 * v + 16) / 116) for v in (x, y, z)]
    return np.stack([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])], axis=1)


# Machado, Oliveira, Fernandes 2009, severity 1.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}


@pytest.mark.parametrize("sight", SIGHT)
def test_the_first_eight_colours_differ_to_every_eye(sight):
    """A difference of 10 in CIELAB is seen at a glance; 2.3 is just noticeable (Mahy et al. 1994)."""
    seen = lab(np.clip(linear(PALETTE[:8]) @ np.array(SIGHT[sight]).T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[np.triu_indices(8, 1)].min() > 10


def test_all_thirty_differ_to_normal_sight_from_each_other_from_white_and_from_other():
    seen = lab(linear([*PALETTE, OTHER, "#FFFFFF"]))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[np.triu_indices(len(seen), 1)].min() > 10
