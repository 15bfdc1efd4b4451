"""Which columns of var name genes."""

import pyarrow as pa
import pytest

from xfm.core.errors import Refused
from xfm.sources.gene_table import encode_genes, identifier_columns

NAMES = [
    *("index", "feature_name", "feature_id", "feature_ids", "gene_symbols", "gene_symbol", "gene_name", "gene_names"),
    *("gene_ids", "gene_id", "gene_short_name", "symbol", "ensembl", "ensembl_id", "ensembl_gene_id", "ensg", "Symbol"),
    *("GeneID", "hgnc_symbol", "gene"),
]
OTHERS = [
    *("feature_types", "feature_type", "feature_biotype", "feature_reference", "genome", "chromosome", "gene_type"),
    *("highly_variable", "feature_is_filtered", "gene_biotype", "strand", "description", "n_cells"),
]


def test_identifiers_are_told_from_descriptions():
    assert identifier_columns(NAMES + OTHERS, None) == NAMES
    assert identifier_columns(NAMES + OTHERS, "genome") == ["genome"]
    with pytest.raises(Refused, match="Did you mean 'ensembl_id'"):
        identifier_columns(NAMES, "ensemble_id")


def test_the_table_survives_its_journey():
    table = pa.table({"index": ["TP53", "µ", None], "feature_id": ["ENSG1", "ENSG2", "ENSG3"]})
    assert pa.ipc.open_stream(encode_genes(table)).read_all().equals(table)
