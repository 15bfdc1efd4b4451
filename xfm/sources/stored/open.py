"""Embeddings that were stored earlier: the OUTPUT of an embed job, or an AnnData with anything in obsm."""

from pathlib import PurePosixPath

from xfm.core.errors import Refused
from xfm.sources.stored.anndata import SUFFIXES, open_anndata
from xfm.sources.stored.columns import StoredEmbeddings
from xfm.sources.stored.output import open_output


def open_embeddings(path: str, *, verify: bool = True) -> StoredEmbeddings:
    """What is stored at a place, as a recipe that may travel to workers.

    Args:
        path: folder or URI of an OUTPUT, or local path of an .h5ad or .zarr.
        verify: compare every byte of an OUTPUT with its manifest, once, now.

    Raises:
        Refused: NOT_AN_OUTPUT, NOTHING_COMMITTED, NO_EMBEDDINGS, CORRUPT_PART or MIXED_PARTS of an OUTPUT;
            NO_SUCH_FILE, NOT_ANNDATA, NO_EMBEDDINGS or BAD_ORIGIN of an AnnData; NOT_LOCAL.
    """
    name = PurePosixPath(path.removesuffix(".gz"))
    if name.suffix not in SUFFIXES:
        return open_output(path, verify=verify)
    if "://" in path and not path.startswith("file://"):
        raise Refused("NOT_LOCAL", f"{path}: an AnnData is read where it lies; copy it to a local disk first")
    if path.endswith(".gz"):
        raise Refused("NOT_ANNDATA", f"{path} is compressed as a whole: `gunzip --keep` it first")
    return open_anndata(path.removeprefix("file://"))
