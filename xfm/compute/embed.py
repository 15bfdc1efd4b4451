"""Every layer of every row of a shard, in one pass per batch.

Batches are formed inside the shard: rows sorted by length (ties by position), cut where rows x longest row would
exceed a token budget. So a shard's embeddings are a function of its tokens, the weights and the settings alone.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from numpy.typing import NDArray

from xfm.compute.predict import HeadReader
from xfm.core.backbone import Backbone, BackboneConfig, Reduction
from xfm.core.errors import EnvironmentProblem, ShardRefused
from xfm.core.schema import OURS, ROW_ID, layer_column
from xfm.core.tokenizer import Tokenizer

OUTPUTS = "outputs of the head"


def carried(tokens: pa.Table) -> list[str]:
    """Columns that reach an OUTPUT: row_id and those of the data."""
    return [name for name in tokens.column_names if not name.startswith(OURS)]


class Embedder:
    """Holds the weights; maps a shard's tokens to its output table.

    Args:
        backbone: recipe of the model.
        reductions: what to keep of each layer, e.g. `Pool("cls")`.
        layers: which states, 0 to L.
        batch_tokens: token budget of a batch, padding included.
        device: "cpu" or "cuda".
        seed: for the tokenizer's padding rules.
        stored_dtype: "float32" or "float16", of the columns.
        identity: the weights that the job was planned with.
        predictions: whether to add what the checkpoint's own head says of each row.

    Raises:
        Refused: NO_HEAD.
        EnvironmentProblem: this machine's copy of the checkpoint is another one.
    """

    def __init__(
        self,
        backbone: BackboneConfig,
        reductions: Sequence[Reduction],
        layers: Sequence[int],
        *,
        batch_tokens: int,
        device: str,
        seed: int,
        stored_dtype: str = "float32",
        identity: Mapping[str, Any] | None = None,
        predictions: bool = False,
    ) -> None:
        check_identity(backbone, identity)
        self.backbone: Backbone = backbone.build(device)
        self.tokenizer: Tokenizer = backbone.tokenizer(seed)
        self.reductions = tuple(reductions)
        self.layers = tuple(layers)
        if self.layers and max(self.layers) > self.backbone.n_layers:
            raise ValueError(f"layer {max(self.layers)} of a model that has layers 0 to {self.backbone.n_layers}")
        self.head = HeadReader(backbone, device) if predictions else None
        self.last = max((*self.layers, self.backbone.n_layers if predictions else 0))
        self.batch_tokens = batch_tokens
        self.device = device
        self.dtype = np.dtype(stored_dtype)

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """N tokenised rows to row_id, obs columns and one fixed-size list per reduction and layer; N rows."""
        out = tokens.select(carried(tokens))
        found = self.embed(tokens)
        if self.head is not None:
            for name, column in self.head.columns(found.pop(OUTPUTS)).items():
                out = out.append_column(name, column)
        for name, values in found.items():
            flat = pa.array(self._stored(name, values).reshape(-1))
            out = out.append_column(name, pa.FixedSizeListArray.from_arrays(flat, values.shape[1]))
        return out

    def embed(self, tokens: pa.Table) -> dict[str, NDArray[np.float32]]:
        """{column: (N, D)} in the order of the rows; of a head its (N, K) outputs under OUTPUTS.

        Raises:
            ShardRefused: NOT_FINITE, a state overflowed; the weights or the input values must be wrong.
        """
        columns = {
            layer_column(name, layer): np.empty((tokens.num_rows, self.backbone.dim), np.float32)
            for reduction in self.reductions
            for name in reduction.columns
            for layer in self.layers
        }
        if self.head is not None:
            columns[OUTPUTS] = np.empty((tokens.num_rows, self.head.head.classifier.out_features), np.float32)
        for rows in batches(self.tokenizer.lengths(tokens), self.batch_tokens):
            for name, values in self._batch(tokens.take(rows)).items():
                columns[name][rows] = values
        for name, values in columns.items():
            if not np.isfinite(values).all():
                raise ShardRefused("NOT_FINITE", f"{name} is not finite: are the weights or the input values wrong?")
        return columns

    def _stored(self, name: str, values: NDArray[np.float32]) -> NDArray[Any]:
        """The numbers in the type asked for.

        Raises:
            ShardRefused: NOT_FINITE, a number is too large for float16.
        """
        with np.errstate(over="ignore"):
            stored: NDArray[Any] = values.astype(self.dtype, copy=False)
        if not np.isfinite(stored).all():
            largest = float(np.abs(values).max())
            raise ShardRefused(
                "NOT_FINITE", f"{name} reaches {largest:g}, more than {self.dtype} holds; use --dtype float32"
            )
        return stored

    def _batch(self, rows: pa.Table) -> Mapping[str, NDArray[np.float32]]:
        batch = self.tokenizer.collate(rows).to(self.device)
        out: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for layer, state in enumerate(self.backbone.layers(batch)):
                if layer in self.layers:
                    for reduction in self.reductions:
                        for name, values in reduction(state, batch, self.backbone).items():
                            out[layer_column(name, layer)] = values.float().cpu().numpy()
                if self.head is not None and layer == self.backbone.n_layers:
                    out[OUTPUTS] = self.head(state, batch, self.backbone)
                if layer == self.last:
                    break
        return out


class KeepRows:
    """Passes on only the rows of some ids to the computation that `build` makes."""

    def __init__(
        self, build: Callable[..., Callable[[pa.Table], pa.Table]], row_ids: Collection[str], **more: Any
    ) -> None:
        self.compute = build(**more)
        self.row_ids = pa.array(sorted(row_ids), pa.string())

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """The computation's table of the rows that are kept."""
        return self.compute(tokens.filter(pc.is_in(tokens[ROW_ID], self.row_ids)))


def batches(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[NDArray[np.int64]]:
    """Row numbers of each batch: longest rows first, rows x longest <= budget; a longer row goes alone.

    Longest first, so that a device that lacks the memory says so at once.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, int(batch_tokens // lengths[order[start]]))
        yield order[start : start + size]
        start += size


def check_identity(backbone: BackboneConfig, identity: Mapping[str, Any] | None) -> None:
    """Compares the weights here with those the job was planned with: a path may hold others on another machine."""
    if identity is not None and backbone.identity() != identity:
        raise EnvironmentProblem(f"the checkpoint on this machine is {backbone.identity()}, the job's is {identity}")
