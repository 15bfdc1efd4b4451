"""Token tables written by hand, and backbones whose states are known, for the tests of loops."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from xfm.core.backbone import Backbone
from xfm.core.schema import DEPTH, INPUT_IDS, ROW_ID, SHARD, VALUES
from xfm.core.tokenizer import Tokens
from xfm.studies.layerwise.readouts import Readouts, fit_readouts
from xfm.studies.layerwise.scoring import Design, FitLayers, ScoreLayers
from xfm.tokenizers.binned import BinnedTokenizer

CLS, PAD = 200, 201
MASK = -1.0
GENES = {f"G{i}": i for i in range(CLS)}


def token_table(
    cells: list[tuple[list[int], list[int]]], depths: list[float] | None = None, **obs: list[Any]
) -> pa.Table:
    """Cells as (gene ids, bins); `<cls>` is put in front."""
    ids = [[CLS, *genes] for genes, _ in cells]
    values = [[-2, *bins] for _, bins in cells]
    columns = {
        ROW_ID: [f"cell-{i}" for i in range(len(cells))],
        SHARD: ["s"] * len(cells),
        **obs,
        DEPTH: pa.array(depths or [100.0 + i for i in range(len(cells))], pa.float32()),
        INPUT_IDS: pa.array(ids, pa.large_list(pa.uint16())),
        VALUES: pa.array(values, pa.large_list(pa.int16())),
    }
    return pa.table(columns)


def random_cells(n: int, seed: int, bins: Callable[..., np.ndarray] | None = None) -> list[tuple[list[int], list[int]]]:
    """Cells of 8 to 40 genes; `bins(genes, rng)` gives their bins, at random by default."""
    rng = np.random.default_rng(seed)
    cells = []
    for _ in range(n):
        genes = rng.choice(CLS, rng.integers(8, 41), replace=False)
        drawn = rng.integers(1, 51, len(genes)) if bins is None else bins(genes, rng)
        cells.append((genes.tolist(), np.clip(drawn, 1, 50).astype(int).tolist()))
    return cells


class FakeBackbone(Backbone):
    """States from a function of (layer, ids, values); the decoder reads the state's first number."""

    def __init__(self, recipe: "FakeConfig") -> None:
        super().__init__()
        self.n_layers, self.dim, self.recipe = recipe.layers, recipe.width, recipe
        self.architecture = SimpleNamespace(decoder=recipe.decoder, mask_value=MASK)
        self.blocks_run = 0
        self.seen: list[Tokens] = []

    @property
    def blocks(self) -> torch.nn.ModuleList:
        return torch.nn.ModuleList()

    def layers(self, tokens: Tokens) -> Iterator[Tensor]:
        self.seen.append(tokens)
        for layer in range(self.n_layers + 1):
            self.blocks_run += layer > 0
            yield self.recipe.state(layer, tokens.ids, tokens.values)

    def decode_expression(self, state: Tensor, tokens: Tokens) -> Tensor:
        return state[..., 0]


def echo(layer: int, ids: Tensor, values: Tensor) -> Tensor:
    """Each position holds the bin it was shown."""
    return torch.stack([values, ids.float()], dim=-1)


def noise(ids: Tensor, values: Tensor, salt: float) -> Tensor:
    """A number in [-0.5, 0.5) that looks random and depends on the position's own id and value."""
    word = torch.sin(ids.double() * 12.9898 + values.double() * 78.233 + salt * 37.719) * 43758.5453
    return (word - word.floor() - 0.5).float()


def noise_states(layer: int, ids: Tensor, values: Tensor) -> Tensor:
    """Four numbers that say nothing."""
    return torch.stack([noise(ids, values, 10 * layer + i) for i in range(4)], dim=-1)


@dataclass
class FakeConfig:
    """The recipe of a `FakeBackbone`; keeps the backbones that it built."""

    state: Callable[[int, Tensor, Tensor], Tensor] = echo
    layers: int = 2
    width: int = 2
    decoder: bool = True
    built: list[FakeBackbone] = field(default_factory=list)

    def tokenizer(self, seed: int) -> BinnedTokenizer:
        return BinnedTokenizer(vocabulary=GENES, cls_id=CLS, pad_id=PAD, seed=seed)

    def build(self, device: str) -> FakeBackbone:
        self.built.append(FakeBackbone(self))
        return self.built[-1]

    def identity(self) -> dict[str, Any]:
        return {"weights": "none"}

    def describe(self) -> dict[str, Any]:
        return {}

    def n_layers(self) -> int:
        return self.layers

    def dim(self) -> int:
        return self.width

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        return {}


def make_design(**changes: Any) -> Design:
    """Both modes, a quarter masked, half of the cells for fitting."""
    defaults: dict[str, Any] = {
        "modes": ("masked", "visible"), "mask_fraction": 0.25, "fit_fraction": 0.5, "group": None, "seed": 0,
        "batch_tokens": 2048, "device": "cpu",
    }  # fmt: skip
    return Design(**(defaults | changes))


def fit_and_score(
    config: Any, design: Design, shards: list[pa.Table]
) -> tuple[Readouts, dict[tuple[str, str], int], dict[str, np.ndarray], list[str]]:
    """Both stages in this process: readouts, best layers, {column: (C, 5)}, and the row ids of the scored cells."""
    fitter, sums = FitLayers(config, design), {}
    for shard in shards:
        table = fitter(shard)
        for name, values in zip(table["name"].to_pylist(), table["values"].to_pylist(), strict=True):
            sums[name] = sums.get(name, 0) + np.array(values)
    readouts, best = fit_readouts(sums, design.modes, config.n_layers(), config.dim())
    scored = pa.concat_tables(map(ScoreLayers(config, design, readouts), shards))
    columns = {name: np.array(scored[name].to_pylist()) for name in scored.column_names if name != ROW_ID}
    return readouts, best, columns, scored[ROW_ID].to_pylist()
