"""Column names that travel between sources, tokenizers, backbones and output parts."""

ROW_ID = "row_id"  # string, unique over the job
SHARD = "shard"  # string, the key of the shard a row came from
REFUSED = "refused"  # nullable string "CODE: why"; a row that carries one is quarantined, not computed
GENE_IDS = "gene_ids"  # ragged int32: rows of the gene table in GENE_TABLE_KEY
COUNTS = "counts"  # ragged float32: non-zero expression values, aligned with GENE_IDS
INPUT_IDS = "input_ids"  # ragged integers: token ids of one row
VALUES = "values"  # ragged integers or floats, aligned with INPUT_IDS
DEPTH = "depth"  # float32: sum of a row's expression values over all genes of the data
TEXT = "text"
IMAGE = "image"  # large_binary: an encoded picture, PNG, JPEG or WebP
PIXELS = "pixels"  # fixed-size list of uint8: 3 x S x S of a picture that was decoded, resized and cropped
PART = "part"  # int8, see `core.parts`
N_TOKENS = "n_tokens"  # int32 tokens of a row
SEQUENCE = "sequence"
EMBEDDING = "embedding"  # fixed-size list of float32: a vector that some model gave a row before
CONDITION = "condition"  # int32 batch label of a row, for models conditioned on one

# Columns of data may not bear these names: they would be taken for ours, or do not reach a part.
_OF_SOURCES = {ROW_ID, SHARD, REFUSED, GENE_IDS, COUNTS, TEXT, IMAGE, EMBEDDING}
_OF_TOKENS = {INPUT_IDS, VALUES, DEPTH, PIXELS, PART, N_TOKENS, CONDITION}
RESERVED = frozenset(_OF_SOURCES | _OF_TOKENS)

# Key in a record batch's schema metadata. Its value is an Arrow IPC stream of one table that holds every
# identifier the source knows for a gene (symbol, Ensembl id, ...), one string column each, one row a gene.
GENE_TABLE_KEY = b"xfm.genes"


def layer_column(name: str, layer: int) -> str:
    """The column of one reduction of one layer, e.g. `cls_l07`; layer 0 is the input embedding."""
    return f"{name}_l{layer:02d}"
