"""Tolerances of float32 results in units of their own rounding, whatever CPU adds them up in whatever order."""

from typing import Any

import torch

UNIT = 2.0**-23
"""One unit in float32's last place, of a number of size 1."""


def assert_same_but_rounding(found: Any, expected: Any, units: float, **of: Any) -> None:
    """Asserts that two float32 arrays are the same sums, perhaps added in another order.

    Sums cancel, so a number near 0 is as uncertain as the terms it is left of, whose size is that of the largest number
    of the array. A matrix product leaves a few units, a block of a transformer some ten, a gradient through a few
    blocks some hundred.

    Args:
        found, expected: tensors or numpy arrays of one shape.
        units: how many units in the last place of the largest number each may be off.
        of: as for `torch.testing.assert_close`.
    """
    found, expected = (torch.as_tensor(array).detach().double() for array in (found, expected))
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected, rtol=0, atol=units * UNIT * largest, **of)
