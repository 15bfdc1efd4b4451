"""A made atlas of cells whose vectors are a sum of known effects: type, donor, data set, sex, and noise.

    z = type_effect * mu[type] + donor_effect * delta[donor] + dataset_effect * beta[data set]
        + sex_effect * sigma * [sex is male] + eps,        eps and every entry of mu, delta, beta, sigma ~ N(0, 1)

So two donors differ by about donor_effect * sqrt(2 * dim) standard deviations of the noise, and the sexes by
sex_effect * sqrt(dim). As in CELLxGENE Census donors lie within data sets, sex is a donor's, and types are far from
equally common. What a model should find can be set to zero: without donor effect, only the data set tells donors apart.

Every effect is keyed by its name and every cell by its number, so shards are independent, and an atlas with more
cells or donors begins with the same ones. The names of types are those of the cells of the central nervous system in
Census 2023-12-15, the most frequent first; proportions are Dirichlet(0.5), as uneven as there.
"""

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field, NonNegativeFloat, PositiveInt, model_validator

from xfm.core.errors import Refused
from xfm.core.random import U64, key64, mix, rng_for, uniform
from xfm.core.schema import EMBEDDING, ROW_ID, Carried
from xfm.sources.cell_split import CellSplit, RowParts, split_rows, with_split
from xfm.sources.cells import vector_array
from xfm.sources.gene_table import missing
from xfm.sources.synthetic.rows import MadeRows

TYPES = (
    "oligodendrocyte", "cerebellar granule cell", "microglial cell", "oligodendrocyte precursor cell",
    "GABAergic neuron", "astrocyte", "mural cell", "capillary endothelial cell", "glutamatergic neuron",
    "endothelial cell of artery", "differentiation-committed oligodendrocyte precursor",
    "vascular associated smooth muscle cell", "leukocyte", "central nervous system macrophage", "neuron",
    "ependymal cell",
)  # fmt: skip
COLUMNS = ("cell_type", "donor_id", "sex", "dataset_id")
SEXES = ("female", "male")
FEW = 3  # cells of every type, at least
CONCENTRATION = 0.5  # of the Dirichlet distribution of type proportions


class Effects(NamedTuple):
    """What all cells share, D numbers wide."""

    types: NDArray[np.float64]  # types, donors, datasets: (n, D) vectors, scaled
    donors: NDArray[np.float64]
    datasets: NDArray[np.float64]
    sex: NDArray[np.float64]  # (D,) what being male adds
    shares: NDArray[np.float64]  # (n_types,) proportions


class Atlas(MadeRows):
    """Embeddings of synthetic cells with cell type, donor, sex and data set."""

    kind: Literal["atlas"] = "atlas"
    n_cells: PositiveInt = 4000
    """Cells; the first of them hold each pair of type and donor once."""
    n_types: int = Field(8, ge=2)
    """Cell types, named as in the central nervous system; from the 17th on, numbered."""
    n_donors: int = Field(6, ge=2)
    """Donors, dealt to the data sets in turn."""
    n_datasets: PositiveInt = 2
    """Data sets."""
    dim: PositiveInt = 64
    """Numbers of a vector."""
    type_effect: NonNegativeFloat = 1.0
    """Standard deviation of a type's mean, in that of the noise."""
    donor_effect: NonNegativeFloat = 0.25
    """Standard deviation of a donor's shift."""
    dataset_effect: NonNegativeFloat = 0.25
    """Standard deviation of a data set's shift."""
    sex_effect: NonNegativeFloat = 0.25
    """Standard deviation of the entries of the shift between the sexes."""
    unknown_sex: float = Field(0.0, ge=0, le=1)
    """Share of donors whose sex is stated as "unknown", rounded up; the vectors have it all the same."""
    split: CellSplit | None = CellSplit()
    """Draws the column `split`: stratified_cell, random_cell or held_out_types."""
    obs: Carried = COLUMNS
    """Columns to carry along."""

    @model_validator(mode="after")
    def _large_enough(self) -> Self:
        if self.n_datasets > self.n_donors:
            raise ValueError(f"{self.n_donors} donors cannot fill {self.n_datasets} data sets")
        if self.n_cells < (least := self.n_types * max(FEW, self.n_donors)):
            raise ValueError(f"n_cells {self.n_cells} are too few: {self.n_types} types of {self.n_donors} donors take "
                             f"at least {least}")  # fmt: skip
        return self

    def identity(self) -> dict[str, Any]:
        """Digest of the effects and of the cells' types and donors, and that of the split."""
        parts = [np.ascontiguousarray(effect, "<f4").tobytes() for effect in self.effects()]
        parts += [np.ascontiguousarray(codes, "<i4").tobytes() for codes in self.codes(np.arange(self.n_cells))]
        found = {"atlas": f"sha256:{hashlib.sha256(b''.join(parts)).hexdigest()}"}
        return found | ({"split": _parts(self).digest} if self.split is not None else {})

    def effects(self) -> Effects:
        """The truth behind the vectors, scaled as they are in them."""
        drawn = {
            name: np.stack([rng_for(self.seed, f"{name}-{i}").normal(size=self.dim) for i in range(n)])
            for name, n in (("type", self.n_types), ("donor", self.n_donors), ("dataset", self.n_datasets), ("sex", 1))
        }
        gamma = [rng_for(self.seed, f"share-{i}").gamma(CONCENTRATION) for i in range(self.n_types)]
        return Effects(
            self.type_effect * drawn["type"], self.donor_effect * drawn["donor"],
            self.dataset_effect * drawn["dataset"], self.sex_effect * drawn["sex"][0],
            np.sort(np.array(gamma) / np.sum(gamma))[::-1],
        )  # fmt: skip

    def codes(self, cells: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) type and (N,) donor of some cells."""
        words = _words(self.seed, "cells", cells)
        ends = np.cumsum(self.effects().shares)
        types = np.minimum(np.searchsorted(ends, uniform(mix(words)), side="right"), self.n_types - 1)
        donors = (uniform(mix(words + np.uint64(1))) * self.n_donors).astype(np.int64)
        every = cells < self.n_types * max(FEW, self.n_donors)
        types = np.where(every, cells % self.n_types, types)
        return types, np.where(every, cells // self.n_types % self.n_donors, donors)

    def vectors(self, cells: NDArray[np.int64]) -> NDArray[np.float32]:
        """(N, D) of some cells."""
        effects, (types, donors) = self.effects(), self.codes(cells)
        datasets, male = self._known_of(donors)
        z = effects.types[types] + effects.donors[donors] + effects.datasets[datasets] + male[:, None] * effects.sex
        return (z + _noise(self.seed, cells, self.dim)).astype(np.float32)

    def columns(self, cells: NDArray[np.int64]) -> dict[str, list[str]]:
        types, donors = self.codes(cells)
        datasets, sexes = self._known_of(donors)
        keyed = sorted(range(self.n_donors), key=lambda donor: key64(self.seed, f"unknown-{donor}"))
        unknown = np.isin(donors, keyed[: int(np.ceil(self.unknown_sex * self.n_donors - 1e-9))])
        return {
            "cell_type": [TYPES[i] if i < len(TYPES) else f"cell type {i + 1}" for i in types.tolist()],
            "donor_id": [f"donor-{i + 1:02d}" for i in donors.tolist()],
            "sex": ["unknown" if odd else SEXES[i] for i, odd in zip(sexes.tolist(), unknown, strict=True)],
            "dataset_id": [f"dataset-{i + 1}" for i in datasets.tolist()],
        }

    def _known_of(self, donors: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(N,) data set of each donor, dealt in turn, and (N,) place in SEXES.

        Sexes alternate within each data set, which begin with different ones.
        """
        datasets = donors % self.n_datasets
        return datasets, (donors // self.n_datasets + datasets) % 2

    def _content(self) -> dict[str, pa.DataType]:
        return {EMBEDDING: pa.list_(pa.float32(), self.dim)}

    def _columns(self) -> Sequence[str]:
        given = with_split(self.obs, self.split)
        if unknown := [name for name in given if name not in (*COLUMNS, *with_split((), self.split))]:
            hint = "; --source.split stratified_cell draws a split" if unknown[0] == "split" else ""
            raise Refused("NO_OBS_COLUMN", missing("obs column", unknown[0], list(COLUMNS)) + hint)
        return given

    def _rows(self) -> NDArray[np.int64]:
        return np.arange(self.n_cells, dtype=np.int64)

    def _make(self, rows: NDArray[np.int64]) -> Mapping[str, list[str] | list[bytes] | pa.Array]:
        ids = self._ids(rows)
        made = {ROW_ID: ids, EMBEDDING: vector_array(self.vectors(rows)), **self.columns(rows)}
        return made | ({"split": _parts(self).column(ids)} if self.split is not None else {})

    def _ids(self, rows: NDArray[np.int64]) -> list[str]:
        return [f"atlas-{self.seed}/{row}" for row in rows.tolist()]


def _words(seed: int, name: str, cells: NDArray[np.int64]) -> U64:
    """(N,) well-mixed words of some cells."""
    return mix(cells.astype(np.uint64) + np.uint64(key64(seed, f"atlas-{name}")))


def _noise(seed: int, cells: NDArray[np.int64], dim: int) -> NDArray[np.float64]:
    """(N, dim) standard normal numbers, each a function of seed, cell and place. Box and Muller, 1958."""
    half = (dim + 1) // 2
    words = _words(seed, "noise", cells)[:, None] + np.arange(2 * half).astype(np.uint64)
    drawn = uniform(mix(words))
    radius, angle = np.sqrt(-2 * np.log1p(-drawn[:, :half])), 2 * np.pi * drawn[:, half:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)[:, :dim]


@lru_cache(maxsize=4)
def _parts(atlas: Atlas) -> RowParts:
    assert atlas.split is not None
    cells = np.arange(atlas.n_cells, dtype=np.int64)
    return split_rows(atlas.split, atlas._ids(cells), pa.table(atlas.columns(cells)))
