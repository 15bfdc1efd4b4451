"""scGPT's binned values: each cell's expressed genes, sorted into equally filled bins of that cell.

Cui et al., Nature Methods 2024, Methods, value binning; the arithmetic is that of the package `scgpt` 0.2.4
(`binning`, `DataCollator`). Two things differ on purpose, because there a cell's tokens depend on the cells
before it (scGPT issue 281). A value that spans several bins (a tie) gets its bin by rule, not from a stream of
random numbers; and a cell longer than the model's input is sampled by hashes. Both hashes are functions of the
seed and of the cell's own genes and counts, so file, shard, batch, neighbours and gene order do not matter.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.schema import CONDITION, COUNTS, DEPTH, GENE_IDS, GENE_TABLE_KEY, INPUT_IDS, REFUSED, VALUES
from xfm.core.tokenizer import Tokens
from xfm.tokenizers.ragged import RaggedIds, padded, ragged, row_sums
from xfm.tokenizers.vocabulary import GeneMatch, gene_table, match_genes

Ties = Literal["mid", "keyed", "low", "high"]


@dataclass(frozen=True)
class BinnedTokenizer(RaggedIds):
    """Raw counts to (gene token, bin) pairs behind a `<cls>` token."""

    vocabulary: Mapping[str, int]  # gene token to id, special tokens left out
    cls_id: int  # cls_id, pad_id: ids of `<cls>` and `<pad>`
    pad_id: int
    cls_value: float = -2.0  # value at `<cls>`; the reference embeds with `pad_value`, its fine-tuning tutorials use 0
    pad_value: float = -2.0  # value at padding
    n_bins: int = 51  # bins run from 1 to n_bins - 1; 0 is kept for zero counts
    # the bin of a value that spans several: mid (the middle), low, high, or keyed (one of them, drawn from a hash of
    # seed and cell)
    ties: Ties = "mid"
    max_length: int = 1200  # longest row, `<cls>` included; longer cells are sampled
    seed: int = 0
    min_overlap: float = 0.1  # smallest share of genes that must be known
    # batch_key, batch_labels: obs column, and its values in the order of the model's labels
    batch_key: str | None = None
    batch_labels: tuple[str, ...] = ()
    _matches: dict[int, GeneMatch] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Ragged GENE_IDS and COUNTS to ragged INPUT_IDS and VALUES; one row in, one row out.

        Raises:
            Refused: NO_OVERLAP between the batch's genes and the vocabulary.
        """
        from xfm.tokenizers.binning import bin_cells

        key = hash(batch.schema.metadata[GENE_TABLE_KEY])
        if key not in self._matches:
            self._matches[key] = match_genes(gene_table(batch.schema), self.vocabulary, self.min_overlap)
        offsets, genes = ragged(batch.column(GENE_IDS))
        _, counts = ragged(batch.column(COUNTS))
        token_of_gene, longest = self._matches[key].token_of_gene, self.max_length - 1
        out_offsets, tokens, bins = bin_cells(
            offsets, genes, counts, token_of_gene, self.n_bins, self.ties, longest, self.seed
        )
        ids, values, ends = self._with_cls(out_offsets, tokens, bins)
        refused = _refuse(batch.column(REFUSED), np.diff(out_offsets) == 0, "EMPTY: no expressed gene is known")
        columns = {name: batch.column(name) for name in batch.schema.names if name not in (GENE_IDS, COUNTS, REFUSED)}
        if self.batch_key is not None:
            known = {label: i for i, label in enumerate(self.batch_labels)}
            labels = batch.column(self.batch_key).to_pylist()
            condition = np.array([known.get(str(label), -1) for label in labels], dtype=np.int32)
            why = f"UNKNOWN_BATCH: {self.batch_key} is none of {', '.join(self.batch_labels)}"
            columns[CONDITION], refused = pa.array(condition), _refuse(refused, condition < 0, why)
        columns |= {REFUSED: refused, DEPTH: pa.array(row_sums(offsets, counts))}
        columns[INPUT_IDS] = pa.LargeListArray.from_arrays(ends, pa.array(ids))
        columns[VALUES] = pa.LargeListArray.from_arrays(ends, pa.array(values))
        return pa.RecordBatch.from_pydict(columns)

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Pads to the longest row: ids and values (B, T)."""
        import torch

        ids, is_token = padded(batch, INPUT_IDS, np.int64(self.pad_id))
        values, _ = padded(batch, VALUES, np.float32(self.pad_value))
        is_content = is_token & (np.arange(is_token.shape[1]) > 0)
        condition = None
        if CONDITION in batch.schema.names:
            condition = torch.from_numpy(batch.column(CONDITION).to_numpy().astype(np.int64))
        from_numpy = torch.from_numpy
        return Tokens(from_numpy(ids), from_numpy(values), from_numpy(is_token), from_numpy(is_content), condition)

    def describe(self) -> dict[str, Any]:
        """The gene match of every gene table seen by this copy of the tokenizer."""
        return {"genes": [match.describe() for match in self._matches.values()]}

    def _with_cls(
        self, offsets: NDArray[np.int64], tokens: NDArray[np.int32], bins: NDArray[np.int32]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
        """Puts `<cls>` in front of every row, in the narrowest types that hold all ids and values."""
        n = len(offsets) - 1
        ends = offsets + np.arange(n + 1)
        widest = max(self.cls_id, self.pad_id, max(self.vocabulary.values()))
        ids = np.empty(ends[-1], dtype=np.uint16 if widest < 2**16 else np.int32)
        whole = self.cls_value == int(self.cls_value) and self.n_bins <= 2**15 and abs(self.cls_value) < 2**15
        values = np.empty(ends[-1], dtype=np.int16 if whole else np.float32)
        is_gene = np.ones(ends[-1], dtype=bool)
        is_gene[ends[:-1]] = False
        ids[is_gene], values[is_gene] = tokens, bins
        ids[~is_gene], values[~is_gene] = self.cls_id, self.cls_value
        return ids, values, ends


def _refuse(refused: pa.Array, bad: NDArray[np.bool_], why: str) -> pa.Array:
    """Adds a reason to rows that have none yet."""
    return pc.coalesce(refused.cast(pa.string()), pa.array([why if each else None for each in bad], pa.string()))
