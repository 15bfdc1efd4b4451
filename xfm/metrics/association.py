"""How far one column of classes tells another, e.g. the batch of a cell its type."""

import numpy as np

from xfm.metrics.resampling import Ints

TIED = 0.3  # Cramér's V from which a reader is warned


def association(a: Ints, b: Ints) -> float:
    """Cramér's V of two (N,) columns of codes: 0 where neither tells the other, 1 where one is a function of the other.

    Corrected for what small samples of many classes have by chance (Bergsma, J. Korean Stat. Soc. 2013). Rows that
    have no class in either column (codes below 0) are left out; 0 where a column has one class.
    """
    held = (a >= 0) & (b >= 0)
    _, rows = np.unique(a[held], return_inverse=True)
    _, columns = np.unique(b[held], return_inverse=True)
    n, r, k = int(held.sum()), int(rows.max(initial=-1)) + 1, int(columns.max(initial=-1)) + 1
    if r < 2 or k < 2:
        return 0.0
    table = np.zeros((r, k))
    np.add.at(table, (rows, columns), 1)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi = float((np.square(table - expected) / expected).sum()) / n
    by_chance = (r - 1) * (k - 1) / (n - 1)
    least = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    return float(np.sqrt(max(0.0, phi - by_chance) / least)) if least > 0 else 0.0
