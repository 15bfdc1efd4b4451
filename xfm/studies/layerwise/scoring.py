"""Reading expression back from every layer: what the decoder and a linear readout recover of a cell's bins.

Two modes. `visible`: the input holds the answer, as in published reconstruction scores; it measures how much of the
input survives. `masked`: the scored positions enter as `mask_value`, so the answer must come from the other genes.
The prediction at a position is compared with the bin at that position; an early system compared it with its
neighbour's, because the truth lacked the `<cls>` column that the prediction had.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata

from xfm.compute.embed import batches, check_identity
from xfm.core.backbone import BackboneConfig
from xfm.core.errors import Refused, ShardRefused
from xfm.core.random import in_fraction
from xfm.core.schema import DEPTH, INPUT_IDS, ROW_ID, VALUES
from xfm.core.tokenizer import Tokens
from xfm.metrics.regression import SUMS, cell_sums
from xfm.studies.layerwise.readouts import GENE_SUMS, Readouts
from xfm.tokenizers.ragged import choose_fraction, position_uniforms, ragged

Mode = Literal["visible", "masked"]
F64 = NDArray[np.float64]
BASELINES = ("cell_mean", "gene_mean", "gene_shrunken", "gene_depth")
READOUTS = ("decoder", "calibrated", "ridge")
MISALIGNED = "misaligned"  # the decoder's answer for a gene against the next gene's value, as one study scored it


@dataclass(frozen=True)
class Design:
    """How cells are split, masked and run."""

    modes: tuple[Mode, ...]  # which of visible, masked
    mask_fraction: float  # share of a cell's genes that `masked` hides
    fit_fraction: float  # share of the cells that readouts and baselines are fitted on; the rest are scored, once
    group: str | None  # obs column whose values never stand on both sides of the split, or None to split by cell
    seed: int  # seed, batch_tokens, device: as in `Embedder`
    batch_tokens: int
    device: str
    misaligned: bool = False  # whether to add what scoring against the next gene would say

    def is_fit(self, tokens: pa.Table) -> NDArray[np.bool_]:
        """(N,) whether each row belongs to the fitting cells.

        Raises:
            Refused: NO_COLUMN, the rows do not carry `group`.
        """
        name = self.group or ROW_ID
        if name not in tokens.column_names:
            raise Refused("NO_COLUMN", f"--group {name}: no such column here; add it to --source.obs")
        keys = [str(key) for key in tokens[name].to_pylist()]
        return in_fraction(self.seed, [f"split\x1f{key}" for key in keys], self.fit_fraction)


class LayerReader:
    """Runs cells through the model and hands out, per batch, what each layer says of each scored position."""

    def __init__(self, backbone: BackboneConfig, design: Design, identity: Mapping[str, Any] | None) -> None:
        check_identity(backbone, identity)
        self.backbone: Any = backbone.build(design.device)
        architecture: Any = self.backbone.architecture
        if not architecture.decoder:
            raise Refused("NO_DECODER", "layerwise reads the expression decoder (decoder.fc.*), which is missing here")
        self.tokenizer: Any = backbone.tokenizer(design.seed)
        self.mask_value = float(architecture.mask_value)
        self.design = design

    def cells(self, tokens: pa.Table) -> Iterator["CellSums"]:
        """Batches of cells in keyed masks."""
        for rows in batches(self.tokenizer.lengths(tokens), self.design.batch_tokens):
            table = tokens.take(rows).combine_chunks()
            offsets, ids = ragged(table[INPUT_IDS].chunk(0))
            _, values = ragged(table[VALUES].chunk(0))
            is_gene = np.ones(len(ids), dtype=bool)
            is_gene[offsets[:-1]] = False
            uniforms = position_uniforms(offsets, ids, values, self.design.seed, "layerwise mask")
            hidden = choose_fraction(offsets, uniforms, is_gene, self.design.mask_fraction)
            yield CellSums(rows, offsets, ids.astype(np.int64), values.astype(np.float64), is_gene, hidden,
                        np.log(table[DEPTH].to_numpy().astype(np.float64)), self.tokenizer.collate(table))  # fmt: skip

    def states(self, cells: "CellSums", mode: Mode) -> Iterator[tuple[int, torch.Tensor, F64]]:
        """Per layer: its number, the states (S, D) and the decoder's predictions (S,) at the S scored positions."""
        batch = cells.tokens
        scored = torch.from_numpy(cells.padded(cells.scored(mode)))
        values = batch.values
        assert values is not None
        if mode == "masked":
            values = values.masked_fill(scored, self.mask_value)
        batch = replace(batch, values=values).to(self.design.device)
        scored = scored.to(self.design.device)
        with torch.inference_mode():
            for layer, state in enumerate(self.backbone.layers(batch)):
                predicted = self.backbone.decode_expression(state, batch)
                out: F64 = predicted[scored].double().cpu().numpy()
                if not np.isfinite(out).all():
                    raise ShardRefused("NOT_FINITE", f"the decoder's output at layer {layer} is not finite")
                yield layer, state[scored], out


@dataclass(frozen=True)
class CellSums:
    """One batch. C cells; ragged arrays run over all their tokens, `<cls>` included."""

    rows: NDArray[np.int64]  # (C,) row numbers in the shard
    offsets: NDArray[np.int64]  # (C + 1,)
    ids: NDArray[np.int64]
    bins: F64
    is_gene: NDArray[np.bool_]
    hidden: NDArray[np.bool_]
    log_depth: F64  # (C,)
    tokens: Tokens

    def scored(self, mode: Mode) -> NDArray[np.bool_]:
        """Ragged bool: the positions a mode is judged on."""
        return self.hidden if mode == "masked" else self.is_gene

    def padded(self, flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Ragged (tokens,) to (C, T)."""
        lengths = np.diff(self.offsets)
        out = np.zeros((len(lengths), int(lengths.max())), dtype=bool)
        out[np.arange(out.shape[1]) < lengths[:, None]] = flags
        return out


class FitLayers:
    """Stage one: sums over the fitting cells of a shard, as rows (name, values)."""

    def __init__(self, backbone: BackboneConfig, design: Design, *, identity: Mapping[str, Any] | None = None) -> None:
        self.reader = LayerReader(backbone, design, identity)
        self.vocabulary_size = 1 + max(self.reader.tokenizer.vocabulary.values())

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """Tokens of a shard to a table of named sums (float64 lists); empty where no cell is for fitting."""
        design = self.reader.design
        sums: dict[str, F64] = {}
        chosen = tokens.filter(pa.array(design.is_fit(tokens)))
        if chosen.num_rows:
            keys = chosen[design.group or ROW_ID].to_pylist()
            halves = in_fraction(design.seed, [f"half\x1f{key}" for key in keys], 0.5)
            for cells in self.reader.cells(chosen):
                _add(sums, "genes", self._gene_sums(cells))
                half = np.repeat(halves[cells.rows], np.diff(cells.offsets))
                for mode in design.modes:
                    self._layer_sums(sums, cells, mode, half[cells.scored(mode)])
        names = sorted(sums)
        values = pa.array([sums[name].ravel() for name in names], pa.list_(pa.float64()))
        return pa.table({"name": pa.array(names, pa.string()), "values": values})

    def _gene_sums(self, cells: CellSums) -> F64:
        ids, target = cells.ids[cells.is_gene], cells.bins[cells.is_gene]
        depth = np.repeat(cells.log_depth, np.diff(cells.offsets))[cells.is_gene]
        columns = [np.ones_like(target), target, depth, depth * depth, target * depth, target * target]
        assert len(columns) == len(GENE_SUMS)
        return np.stack([np.bincount(ids, column, self.vocabulary_size) for column in columns], axis=1)

    def _layer_sums(self, sums: dict[str, F64], cells: CellSums, mode: Mode, half: NDArray[np.bool_]) -> None:
        target = cells.bins[cells.scored(mode)]
        for layer, state, predicted in self.reader.states(cells, mode):
            p, t = predicted, target
            moments = np.array([len(t), p.sum(), t.sum(), p @ p, p @ t, t @ t], dtype=np.float64)
            _add(sums, f"{mode}_moments_l{layer:02d}", moments)
            # Double: the fit subtracts the features' means from the sums, and some features are nearly constant.
            answer = torch.from_numpy(t).to(state.device)[:, None]
            features = torch.cat([state.double(), torch.ones_like(answer), answer], dim=1)
            for number, part in enumerate((half, ~half)):
                rows = features[torch.from_numpy(part).to(state.device)]
                _add(sums, f"{mode}_gram{number}_l{layer:02d}", (rows.T @ rows).cpu().numpy())


class ScoreLayers:
    """Stage two: per scored cell, the sums from which every score and its interval follow."""

    def __init__(
        self, backbone: BackboneConfig, design: Design, readouts: Readouts, *, identity: Mapping[str, Any] | None = None
    ) -> None:
        self.reader = LayerReader(backbone, design, identity)
        self.readouts = readouts
        self.columns = tuple(score_columns(design.modes, self.reader.backbone.n_layers, misaligned=design.misaligned))

    def __call__(self, tokens: pa.Table) -> pa.Table:
        """Tokens of a shard to row_id, group, and one fixed-size list (see `SUMS`) per mode, readout and layer."""
        design = self.reader.design
        chosen = tokens.filter(pa.array(~design.is_fit(tokens)))
        out = {name: np.full((chosen.num_rows, len(SUMS)), np.nan) for name in self.columns}
        for cells in self.reader.cells(chosen) if chosen.num_rows else ():
            for mode in design.modes:
                self._score(out, cells, mode)
        table = chosen.select(list(dict.fromkeys([ROW_ID, design.group or ROW_ID])))
        for name, values in out.items():
            table = table.append_column(name, pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), len(SUMS)))
        return table

    def _score(self, out: dict[str, F64], cells: CellSums, mode: Mode) -> None:
        scored = cells.scored(mode)
        cuts = np.concatenate([[0], np.cumsum(np.add.reduceat(scored, cells.offsets[:-1]))])
        parts = [slice(cuts[i], cuts[i + 1]) for i in range(len(cells.rows))]
        target, ids = cells.bins[scored], cells.ids[scored]
        ranks = [rankdata(target[part]) for part in parts]

        def put(name: str, predicted: F64, terms: F64 | None = None) -> None:
            for row, part, rank in zip(cells.rows, parts, ranks, strict=True):
                size = None if terms is None else terms[part]
                out[name][row] = cell_sums(predicted[part], target[part], rank, float32_terms=size)

        genes = self.readouts.genes
        put(f"{mode}_cell_mean", self._cell_means(cells, mode))
        put(f"{mode}_gene_mean", genes.by_gene(ids))
        put(f"{mode}_gene_shrunken", genes.shrunken[ids])
        pairs = zip(parts, cells.log_depth, strict=True)
        put(f"{mode}_gene_depth", np.concatenate([genes.by_gene_and_depth(ids[part], depth) for part, depth in pairs]))
        for layer, state, predicted in self.reader.states(cells, mode):
            affine, ridge = self.readouts.affine[mode, layer], self.readouts.ridge[mode, layer]
            # What the decoder sums up is not seen from here; it is no smaller than the sum.
            scaled = affine.scale * predicted
            if mode == "visible" and self.reader.design.misaligned:
                for row, part in zip(cells.rows, parts, strict=True):
                    out[f"{mode}_{MISALIGNED}_l{layer:02d}"][row] = _against_the_next(predicted[part], target[part])
            put(f"{mode}_decoder_l{layer:02d}", predicted, np.abs(predicted))
            put(f"{mode}_calibrated_l{layer:02d}", scaled + affine.shift, np.abs(scaled))
            features, weights = state.double(), torch.from_numpy(ridge.weights).to(state.device)
            read = (features @ weights).cpu().numpy() + ridge.shift
            put(f"{mode}_ridge_l{layer:02d}", read, (features.square() @ weights.square()).sqrt().cpu().numpy())

    def _cell_means(self, cells: CellSums, mode: Mode) -> F64:
        """Every scored position gets the mean of what its cell's input shows: in visible mode, of the answers."""
        known = cells.is_gene & ~cells.hidden if mode == "masked" else cells.is_gene
        means = []
        for start, stop in zip(cells.offsets[:-1], cells.offsets[1:], strict=True):
            # A cell with a single gene shows nothing when that one is hidden; its best guess is the middle gene mean.
            shown = cells.bins[start:stop][known[start:stop]]
            means.append(shown.mean() if len(shown) else float(np.median(self.readouts.genes.mean)))
        return np.repeat(means, np.diff(cells.offsets))[cells.scored(mode)]


def _against_the_next(predicted: F64, target: F64) -> F64:
    """Sums of a cell whose answers are one gene late; of a single gene there is none."""
    if len(predicted) < 2:
        return np.array([0.0, 0.0, 0.0, np.nan, np.nan])
    return cell_sums(predicted[:-1], target[1:], float32_terms=np.abs(predicted[:-1]))


def score_columns(modes: Sequence[str], n_layers: int, *, misaligned: bool = False) -> Iterator[str]:
    """Names of the columns that `ScoreLayers` writes."""
    for mode in modes:
        if misaligned and mode == "visible":
            yield from (f"{mode}_{MISALIGNED}_l{layer:02d}" for layer in range(n_layers + 1))
        yield from (f"{mode}_{baseline}" for baseline in BASELINES)
        for readout in READOUTS:
            yield from (f"{mode}_{readout}_l{layer:02d}" for layer in range(n_layers + 1))


def _add(sums: dict[str, F64], name: str, values: F64) -> None:
    sums[name] = sums[name] + values if name in sums else values
