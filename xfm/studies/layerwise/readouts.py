"""What is fitted before layers are scored: baselines, an affine calibration and a ridge readout per layer.

Everything is fitted from sums, and sums add up over shards: no prediction is stored. The penalty of a ridge readout
is chosen on one half of the fitting cells after fitting on the other, again from sums alone, then the readout is
refitted on both (Hastie, Tibshirani, Friedman, The Elements of Statistical Learning, 3.4.1).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused

F64 = NDArray[np.float64]

PENALTIES = 10.0 ** np.arange(-6, 3)  # in units of the mean squared feature
# Per gene over fitting cells: count, target, log depth, products.
GENE_SUMS = ("n", "t", "d", "dd", "td", "tt")


@dataclass(frozen=True, slots=True)
class GeneBaselines:
    """Predictions from the gene and the cell's depth alone, without any model."""

    mean: F64  # (V,) mean bin of each token id over the fitting cells, the overall mean where never seen
    # intercept, slope: (V,) of bin against log depth; slope 0 where a gene was seen in fewer than 10 cells
    intercept: F64
    slope: F64
    shrunken: F64  # (V,) the mean, drawn to the overall one by as much as so few cells leave unknown

    def by_gene(self, ids: NDArray[np.int64]) -> F64:
        """(G,) token ids to (G,) predicted bins."""
        return self.mean[ids]

    def by_gene_and_depth(self, ids: NDArray[np.int64], log_depth: float) -> F64:
        """(G,) token ids of one cell to (G,) predicted bins."""
        return self.intercept[ids] + self.slope[ids] * log_depth


def fit_gene_baselines(sums: F64) -> GeneBaselines:
    """(V, 6) sums in the order of GENE_SUMS to per-gene predictions."""
    n, t, d, dd, td, tt = sums.T
    if n.sum() == 0:
        raise Refused("NO_FIT_CELLS", "no gene was seen in the fitting cells; raise --fit_cells or --fit_fraction")
    overall = t.sum() / n.sum()
    seen = np.maximum(n, 1)
    mean = np.where(n > 0, t / seen, overall)
    mean_depth = np.where(n > 0, d / seen, 0.0)
    variance = dd - n * mean_depth**2
    covariance = td - n * mean_depth * mean
    enough = (n >= 10) & (variance > 1e-9 * np.maximum(dd, 1e-300))
    slope = np.where(enough, covariance / np.where(enough, variance, 1.0), 0.0)
    return GeneBaselines(mean, mean - slope * mean_depth, slope, shrunken_means(n, mean, tt))


def shrunken_means(n: F64, mean: F64, tt: F64) -> F64:
    """Empirical-Bayes means of (V,) genes: overall + (mean - overall) * tau² / (tau² + sigma² / n).

    A penalised readout draws rare genes to the overall mean, and would beat a plain mean by that alone. Variances by
    the method of moments (Searle, Casella and McCulloch, Variance Components, 1992, section 3.6, the ANOVA estimators):
    sigma² within genes, tau² between them, no less than 0.
    """
    seen = n > 0
    cells, genes = float(n.sum()), int(seen.sum())
    overall = float(n @ np.where(seen, mean, 0.0)) / cells
    within = float(np.where(seen, tt - n * mean**2, 0.0).sum())
    sigma = within / (cells - genes) if cells > genes else 0.0
    between = float((n * np.where(seen, mean - overall, 0.0) ** 2).sum())
    even = cells - float((n**2).sum()) / cells
    tau = max(0.0, (between - (genes - 1) * sigma) / even) if even > 0 else 0.0
    kept = np.divide(tau, tau + sigma / np.maximum(n, 1), out=np.ones_like(n), where=tau + sigma > 0)
    return np.where(seen, overall + kept * (mean - overall), overall)


@dataclass(frozen=True, slots=True)
class Affine:
    """target ≈ scale * prediction + shift."""

    scale: float
    shift: float


def fit_affine(moments: F64) -> Affine:
    """Least squares from (6,) moments: n, sum p, sum t, sum pp, sum pt, sum tt."""
    n, p, t, pp, pt, _ = moments
    variance = pp - p * p / n
    # A spread of a millionth of the predictions, eight units of float32's last place, is their rounding.
    if variance <= 1e-12 * max(pp, 1e-300):
        return Affine(0.0, float(t / n))
    scale = (pt - p * t / n) / variance
    return Affine(float(scale), float((t - scale * p) / n))


def raw_mse(moments: F64) -> float:
    """Mean squared error of the uncalibrated prediction, from its (6,) moments."""
    n, _, _, pp, pt, tt = moments
    return float((pp - 2 * pt + tt) / n)


def calibrated_mse(moments: F64) -> float:
    """Mean squared error of the calibrated prediction on the cells it was fitted on."""
    n, p, t, pp, pt, tt = moments
    line = fit_affine(moments)
    a, b = line.scale, line.shift
    return float((tt - 2 * a * pt - 2 * b * t + a * a * pp + 2 * a * b * p + n * b * b) / n)


@dataclass(frozen=True, slots=True)
class Ridge:
    """A linear readout of one layer."""

    weights: F64  # (D,)
    shift: float  # the intercept
    penalty: float  # chosen from PENALTIES
    validation_mse: float  # on the half of the fitting cells that the choice was made on


def fit_ridge(halves: tuple[F64, F64]) -> Ridge:
    """Two (D + 2, D + 2) Gram matrices of [state, 1, target] to a readout.

    Args:
        halves: Gram matrices over the scored positions of the two halves of the fitting cells.

    Raises:
        Refused: NO_FIT_CELLS, one half has fewer than two positions.
    """
    first, second = halves
    found = [int(half[-2, -2]) for half in halves]
    if min(found) < 2:
        raise Refused(
            "NO_FIT_CELLS",
            f"a readout is fitted on one half of the fitting cells and checked on the other; they hold {found[0]} and "
            f"{found[1]} scored genes. Raise --fit_cells or --fit_fraction, or give more cells",
        )
    solutions = [_solve(first, penalty) for penalty in PENALTIES]
    errors = [_mse(second, solution) for solution in solutions]
    best = int(np.argmin(errors))
    solution = _solve(first + second, PENALTIES[best])
    return Ridge(solution[:-1], float(solution[-1]), float(PENALTIES[best]), errors[best])


def _solve(gram: F64, penalty: float) -> F64:
    """(D + 1,) weights and intercept; features are centred first, so the intercept is not penalised."""
    size = gram.shape[0] - 2
    n = gram[size, size]
    mean = gram[:size, size] / n
    target = gram[size + 1, size] / n
    covariance = gram[:size, :size] - n * np.outer(mean, mean)
    cross = gram[:size, size + 1] - n * mean * target
    scale = np.trace(covariance) / size
    if scale <= 0:
        return np.append(np.zeros(size), target)
    weights = np.linalg.solve(covariance + penalty * scale * np.eye(size), cross)
    return np.append(weights, target - weights @ mean)


def _mse(gram: F64, solution: F64) -> float:
    n = gram[-2, -2]
    vector = np.append(solution, -1.0)
    return float(vector @ gram @ vector / n)


@dataclass(frozen=True, slots=True)
class Readouts:
    """All that scoring needs. Keys are (mode, layer)."""

    genes: GeneBaselines
    affine: Mapping[tuple[str, int], Affine]
    ridge: Mapping[tuple[str, int], Ridge]

    def digest(self) -> str:
        """SHA-256 over every number; scores made with other readouts must not be mixed."""
        total = hashlib.sha256()
        for array in (self.genes.mean, self.genes.intercept, self.genes.slope, self.genes.shrunken):
            total.update(np.ascontiguousarray(array).tobytes())
        for key in sorted(self.affine):
            total.update(np.array([self.affine[key].scale, self.affine[key].shift, self.ridge[key].shift]).tobytes())
            total.update(np.ascontiguousarray(self.ridge[key].weights).tobytes())
        return total.hexdigest()


def fit_readouts(
    sums: Mapping[str, F64], modes: Sequence[str], n_layers: int, dim: int
) -> tuple[Readouts, dict[tuple[str, str], int]]:
    """Everything from the merged sums of `FitLayers`.

    Returns:
        The readouts, and for each (mode, readout) the layer that did best on the fitting cells.

    Raises:
        Refused: NO_FIT_CELLS.
    """
    if "genes" not in sums:
        raise Refused("NO_FIT_CELLS", "no cell fell to the fitting side; raise --fit_fraction or give more cells")
    affine: dict[tuple[str, int], Affine] = {}
    ridge: dict[tuple[str, int], Ridge] = {}
    best: dict[tuple[str, str], int] = {}
    for mode in modes:
        errors: dict[str, list[float]] = {"decoder": [], "calibrated": [], "ridge": []}
        for layer in range(n_layers + 1):
            moments = sums[f"{mode}_moments_l{layer:02d}"]
            halves = [sums.get(f"{mode}_gram{half}_l{layer:02d}", np.zeros((dim + 2) ** 2)) for half in (0, 1)]
            first, second = (half.reshape(dim + 2, dim + 2) for half in halves)
            affine[mode, layer], ridge[mode, layer] = fit_affine(moments), fit_ridge((first, second))
            errors["decoder"].append(raw_mse(moments))
            errors["calibrated"].append(calibrated_mse(moments))
            errors["ridge"].append(ridge[mode, layer].validation_mse)
        best |= {(mode, readout): int(np.argmin(of_layers)) for readout, of_layers in errors.items()}
    return Readouts(fit_gene_baselines(sums["genes"].reshape(-1, len(GENE_SUMS))), affine, ridge), best
