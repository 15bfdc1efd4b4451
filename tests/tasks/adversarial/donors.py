"""Cells of donors as training sees them: embeddings with planted effects, split, in memory; and a tiny fusion."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tests.tasks.classification.sentiment import Memory
from xfm.core.schema import EMBEDDING, PART, ROW_ID
from xfm.judging.labelled import SplitWithContent
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import build_network
from xfm.models.fusion.sizes import FusionSizes
from xfm.tasks.adversarial.learner import AdversarialLearner, AdversarialRecipe, Columns
from xfm.tasks.adversarial.network import Network
from xfm.tasks.adversarial.settings import AdversarialClassification
from xfm.training.group import Group

SEXES = ("female", "male")
TINY = FusionSizes(hidden=16, latents=3, heads=2, projection=8, dropout=0.0)


@dataclass(frozen=True)
class Effects:
    """What moves a cell's embedding: z = type + donor + data set + sex + noise, each direction of length about 1."""

    donor: float = 1.0
    dataset: float = 0.0
    sex: float = 0.0
    type: float = 1.0
    noise: float = 1.0


def atlas(effects: Effects, *, cells: int = 400, donors: int = 6, datasets: int = 2, types: int = 4, dim: int = 16,
          seed: int = 0, unknown: int = 0) -> pa.Table:  # fmt: skip
    """Cells of donors that are nested in data sets; sex follows from the donor and is balanced inside each data set.

    The first `unknown` donors have no known sex. Split at random: 60 % train, 20 % validation, 20 % test.
    """
    rng = np.random.default_rng(seed)

    def unit(n: int) -> np.ndarray:
        drawn = rng.normal(size=(n, dim))
        return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)

    donor, kind = rng.integers(0, donors, cells), rng.integers(0, types, cells)
    dataset, sex = np.arange(donors) % datasets, (np.arange(donors) // datasets) % 2
    z = (
        effects.type * unit(types)[kind]
        + effects.donor * unit(donors)[donor]
        + effects.dataset * unit(datasets)[dataset[donor]]
        + effects.sex * np.outer(2.0 * sex[donor] - 1, unit(1))
        + effects.noise * rng.normal(size=(cells, dim)) / dim**0.5
    )
    parts = np.array(["train", "validation", "test"])[np.digitize(rng.random(cells), [0.6, 0.8])]
    return pa.table(
        {
            ROW_ID: [f"cell{i}" for i in range(cells)],
            EMBEDDING: pa.FixedSizeListArray.from_arrays(pa.array(z.astype(np.float32).ravel()), dim),
            "cell_type": [f"type {each}" for each in kind],
            "donor_id": [f"donor {each:02d}" for each in donor],
            "dataset_id": [f"set {dataset[each]}" for each in donor],
            "sex": ["unknown" if each < unknown else SEXES[sex[each]] for each in donor],
            "split": parts,
        }
    )


def memory(table: pa.Table, parts: int = 2) -> Memory:
    """The rows as the first stage stores them."""
    split = SplitWithContent(0, 0.2, 0.2, split="split")
    size = -(-table.num_rows // parts)
    return Memory([split(table.slice(start, size)) for start in range(0, table.num_rows, size)])


def bank_of(table: pa.Table, dim: int = 12) -> TextBank:
    """Random vectors for the words."""
    labels = tuple(sorted(set(table["cell_type"].to_pylist())))
    vectors = np.random.default_rng(3).normal(size=(len(labels), dim)).astype(np.float32)
    return TextBank(labels, vectors, None, {"kind": "drawn"})


def columns_of(table: pa.Table, attribute: str | None = "sex") -> Columns:
    """As the driver finds them."""
    return Columns("cell_type", "donor_id", tuple(sorted(set(table["donor_id"].to_pylist()))), attribute, SEXES)


@dataclass(frozen=True)
class Start:
    """A fusion from scratch."""

    sizes: FusionSizes

    @property
    def hidden(self) -> int:
        return self.sizes.hidden

    def start(self, gene_dim: int, bank: TextBank, seed: int) -> Network:
        return build_network(self.sizes, gene_dim, bank.dim, seed)


def learner(
    table: pa.Table,
    task: AdversarialClassification,
    sizes: FusionSizes = TINY,
    *,
    rows: Memory | None = None,
    bank: TextBank | None = None,
    batch_size: int = 32,
    steps: int = 100,
    seed: int = 0,
    group: Group | None = None,
) -> AdversarialLearner:
    """As `AdversarialRecipe.build`, with rows in memory."""
    rows, bank, columns = rows or memory(table), bank or bank_of(table), columns_of(table, task.attribute)
    width = table[EMBEDDING].type.list_size
    recipe = AdversarialRecipe(Start(sizes), task, columns, bank, width, rows.parts(), batch_size, steps, seed, {})
    return AdversarialLearner(recipe, rows, group or Group(), "cpu")


def truth(rows: Memory, part: int, name: str) -> np.ndarray:
    """Strings of the rows of a part, in the order of the store."""
    return np.concatenate([np.array(table[name].to_pylist())[table[PART].to_numpy() == part] for table in rows.tables])
