"""The gene table: every identifier a source knows for its genes, one row a gene, carried with each batch.

It rides in the schema metadata of a record batch as an Arrow IPC stream, so that a tokenizer can match genes to its
vocabulary without opening the source.
"""

import re

import pyarrow as pa

from xfm.core.errors import Refused, did_you_mean

# Names under which symbols and Ensembl ids are found in var; "feature_types" or "genome" are no identifiers.
IDENTIFIER = re.compile(
    r"(feature|gene)[ _.-]?(id|name|symbol|short[ _.-]?name)?s?|symbols?|ens(embl|g)?([ _.-].*)?|.*ensembl.*|hgnc.*|"
    r"gene[ _.-]?(id|name|symbol)s?[ _.-].*|(stable|original)[ _.-]?(gene[ _.-]?)?(id|name)s?",
    re.IGNORECASE,
)


def identifier_columns(columns: list[str], gene_column: str | None) -> list[str]:
    """Those of the string columns of a var table that name genes.

    Raises:
        Refused: NO_GENE_COLUMN, `gene_column` is not there.
    """
    if gene_column is None:
        return [name for name in columns if name == "index" or IDENTIFIER.fullmatch(name)]
    if gene_column not in columns:
        raise Refused("NO_GENE_COLUMN", missing("gene column", gene_column, columns))
    return [gene_column]


def missing(what: str, name: str, known: list[str]) -> str:
    """What was asked, what is nearest, what there is."""
    return f"no {what} {name!r}.{did_you_mean(name, known, repr)} There are: {', '.join(known)}"


def encode_genes(table: pa.Table) -> bytes:
    """The table as an Arrow IPC stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return bytes(sink.getvalue())
