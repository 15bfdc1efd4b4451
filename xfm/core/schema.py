"""Column names that travel between sources, tokenizers, backbones and output parts.

What xfm itself hands on bears a prefix, so that a column of the data may have any name: a carried `condition` or
`counts` is the data's own and reaches no network.
"""

import re
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

OURS = "xfm:"  # begins the name of every column that data cannot have

ROW_ID = "row_id"  # string, unique over the job
SHARD = OURS + "shard"  # string, the key of the shard a row came from
REFUSED = OURS + "refused"  # nullable string "CODE: why"; a row that carries one is quarantined, not computed
GENE_IDS = OURS + "gene_ids"  # ragged int32: rows of the gene table in GENE_TABLE_KEY
COUNTS = OURS + "counts"  # ragged float32: non-zero expression values, aligned with GENE_IDS
INPUT_IDS = OURS + "input_ids"  # ragged integers: token ids of one row
VALUES = OURS + "values"  # ragged integers or floats, aligned with INPUT_IDS
DEPTH = OURS + "depth"  # float32: sum of a row's expression values over all genes of the data
TEXT = OURS + "text"
IMAGE = OURS + "image"  # large_binary: an encoded picture, PNG, JPEG or WebP
PIXELS = OURS + "pixels"  # fixed-size list of uint8: 3 x S x S of a picture that was decoded, resized and cropped
PART = OURS + "part"  # int8, see `core.parts`
N_TOKENS = OURS + "n_tokens"  # int32 tokens of a row
EMBEDDING = OURS + "embedding"  # fixed-size list of float32: a vector that some model gave a row before
CONDITION = OURS + "condition"  # int32 batch label of a row, for models conditioned on one

# Key in a record batch's schema metadata. Its value is an Arrow IPC stream of one table that holds every
# identifier the source knows for a gene (symbol, Ensembl id, ...), one string column each, one row a gene.
GENE_TABLE_KEY = b"xfm.genes"


def layer_column(name: str, layer: int) -> str:
    """The column of one reduction of one layer, e.g. `cls_l07`; layer 0 is the input embedding."""
    return f"{name}_l{layer:02d}"


def spoken(names: Iterable[str]) -> str:
    """Columns for people: row_id, text, label."""
    return ", ".join(name.removeprefix(OURS) for name in names)


def check_carried(names: tuple[str, ...]) -> tuple[str, ...]:
    """Columns of the data that are carried along, as they were named.

    Raises:
        ValueError: one is named twice, or is called like a column that every part of an OUTPUT has.
    """
    for name in names:
        if name == ROW_ID or name.startswith(OURS) or re.fullmatch(r"\w+_l\d{2,}", name):
            raise ValueError(
                f"{name!r} is what OUTPUT calls a column of its own (row_id, and layers, e.g. cls_l07); rename that "
                "column of the data, or leave it out"
            )
        if names.count(name) > 1:
            raise ValueError(f"{name!r} is named twice; once is enough")
    return names


Carried = Annotated[tuple[str, ...], AfterValidator(check_carried)]
