"""Which gene of the data is which token of the model.

A source hands over every identifier it knows for a gene (symbol, Ensembl accession, ...). The column that shares
most with the vocabulary is used, and the report says which. Symbols are case-sensitive; accessions lose their
version ("ENSG00000141510.17") only where the vocabulary has none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.schema import GENE_TABLE_KEY

VERSIONED = re.compile(r"(ENS[A-Z]*G\d{11})\.\d+")


@dataclass(frozen=True, slots=True)
class GeneMatch:
    """How a gene table meets a vocabulary."""

    column: str  # the identifier column that was used
    token_of_gene: NDArray[np.int32]  # (G,) int32 token id of each gene of the table, -1 where unknown
    matched: int  # genes with a token
    total: int  # genes in the table
    repeated: int  # genes whose token another gene of the table has too
    overlap: float  # matched / min(total, vocabulary size), in [0, 1]

    def describe(self) -> dict[str, str | int | float]:
        """For the report."""
        counts = {"matched": self.matched, "genes": self.total, "repeated": self.repeated}
        return {"column": self.column, **counts, "overlap": round(self.overlap, 4)}


def gene_table(schema: pa.Schema) -> pa.Table:
    """The gene table that rides in a batch's schema metadata."""
    return pa.ipc.open_stream(pa.py_buffer(schema.metadata[GENE_TABLE_KEY])).read_all()


def match_genes(genes: pa.Table, vocabulary: Mapping[str, int], min_overlap: float) -> GeneMatch:
    """Finds the identifier column that shares most with the vocabulary.

    Args:
        genes: one string column per kind of identifier, one row a gene.
        vocabulary: token to id, genes only (no special tokens).
        min_overlap: smallest acceptable `GeneMatch.overlap`.

    Raises:
        Refused: NO_OVERLAP, with examples of what was found and what was wanted.
    """
    strip = not any(VERSIONED.fullmatch(token) for token in vocabulary)
    matches = [_match_column(genes, name, vocabulary, strip) for name in genes.column_names]
    best = max(matches, key=lambda match: match.matched)
    if best.matched == 0 or best.overlap < min_overlap:
        found = "; ".join(f"{name}: {', '.join(map(str, genes[name][:3].to_pylist()))}" for name in genes.column_names)
        raise Refused(
            "NO_OVERLAP",
            f"{best.matched} of {best.total} genes ({best.overlap:.1%} of what could match, column {best.column!r}) "
            f"are in the model's vocabulary; at least {min_overlap:.1%} is asked for. The data have {found}. The "
            f"vocabulary has {', '.join(list(vocabulary)[:4])}. Name another column with --source.gene_column, or "
            f"map the identifiers first (symbols are case-sensitive: mouse 'Cd3e' is not human 'CD3E').",
        )
    return best


def _match_column(genes: pa.Table, name: str, vocabulary: Mapping[str, int], strip: bool) -> GeneMatch:
    names = genes[name].to_pylist()
    if strip:
        names = [VERSIONED.sub(r"\1", gene) if gene is not None else None for gene in names]
    tokens = np.fromiter((vocabulary.get(gene, -1) for gene in names), dtype=np.int32, count=len(names))
    known = tokens[tokens >= 0]
    _, uses = np.unique(known, return_counts=True)
    overlap = len(known) / max(1, min(len(names), len(vocabulary)))
    return GeneMatch(name, tokens, len(known), len(names), int(uses[uses > 1].sum()), overlap)
