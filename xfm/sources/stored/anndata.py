"""Embeddings in `obsm` of an AnnData, .h5ad or .zarr: `X_scgpt_cls_l07` as `python -m xfm export` names them, or any.

Only what is asked for is read: one obsm matrix, or one obs column; X and layers never are.
On-disk layout: https://anndata.readthedocs.io/en/stable/fileformat-prose.html (anndata 0.7 and later).
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.errors import Refused
from xfm.sources.gene_table import missing
from xfm.sources.stored.columns import F32, StoredEmbeddings, check_unique, layer_columns

logger = logging.getLogger(__name__)

SUFFIXES = (".h5ad", ".zarr")
PIECE_BYTES = 16 * 2**20


@dataclass(frozen=True)
class StoredAnnData(StoredEmbeddings):
    """Dense matrices of obsm."""

    path: str  # the file or folder
    piece_rows: int  # rows that one piece of the widest matrix holds, a multiple of its chunks
    stamp: str  # of the files when they were opened: what was rewritten since is not equal to it

    def row_ids(self) -> list[str]:
        with _opened(self.path) as file:
            ids = [str(name) for name in _element(file["obs"][_index(file)])]
        check_unique(ids, self.place, "adata.obs_names_make_unique() gives every cell a name of its own")
        return ids

    def obs_names(self) -> list[str]:
        with _opened(self.path) as file:
            order = file["obs"].attrs.get("column-order")
            names = list(file["obs"]) if order is None else [str(name) for name in order]
            return [name for name in names if name not in ("__categories", _index(file))]

    def obs(self, names: Sequence[str]) -> pa.Table:
        known = self.obs_names()
        for name in names:
            if name not in known:
                there = missing("obs column", name, known) if known else f"no obs column {name!r}, nor any other"
                raise Refused("NO_COLUMN", f"{self.place}: {there}")
        with _opened(self.path) as file:
            return pa.table({name: _arrow(file, name) for name in names})

    def identity(self) -> dict[str, Any]:
        """SHA-256 of the file, or of a folder's files with their names."""
        path = Path(self.path)
        if path.is_file():
            return {"rows": self.rows, "sha256": _digest(path)}
        lines = "".join(f"{_digest(file)}  {file.relative_to(path).as_posix()}\n" for file in _files(path))
        return {"rows": self.rows, "sha256": hashlib.sha256(lines.encode()).hexdigest()}

    def origin(self) -> dict[str, Any] | None:
        with _opened(self.path) as file:
            return _run_of(file, self.place)

    def _pieces(self) -> Sequence[tuple[int, int]]:
        return [(start, min(start + self.piece_rows, self.rows)) for start in range(0, self.rows, self.piece_rows)]

    def _load(self, piece: int, keys: Sequence[str]) -> dict[str, F32]:
        start = piece * self.piece_rows
        # A double that float32 cannot hold becomes infinite, and is refused as such.
        with _opened(self.path) as file, np.errstate(over="ignore"):
            return {key: np.asarray(file["obsm"][key][start : start + self.piece_rows], np.float32) for key in keys}


def open_anndata(path: str) -> StoredAnnData:
    """The embeddings of an AnnData on disk.

    Raises:
        Refused: NO_SUCH_FILE, NOT_ANNDATA, NO_EMBEDDINGS or BAD_ORIGIN.
    """
    place = str(Path(path).absolute())
    stamp = _stamp(Path(place))  # before the first read: what changes while it is read has another one next time
    with _opened(place) as file:
        rows = int(file["obs"][_index(file)].shape[0])
        keys = list(file["obsm"]) if "obsm" in file else []
        dense = {key: file["obsm"][key] for key in keys if _is_dense(file["obsm"][key], rows)}
        if not dense:
            why = f"obsm holds no matrix of {rows:,} rows ({', '.join(keys) or 'it is empty'})"
            raise Refused("NO_EMBEDDINGS", f"{place}: {why}; `python -m xfm export` writes one for every layer")
        if other := sorted(set(keys) - set(dense)):
            logger.info("%s: not read, for they are no dense matrices: %s", place, ", ".join(other))
        piece_rows = min(_piece_rows(node) for node in dense.values())
        run = _run_of(file, place)
        columns = layer_columns({key: int(node.shape[1]) for key, node in dense.items()}, _backbones(run))
    return StoredAnnData(place, columns, rows, place, piece_rows, stamp)


@contextmanager
def _opened(path: str) -> Iterator[Any]:
    """The root group of a .h5ad or a .zarr; what is wrong inside becomes a refusal."""
    if not Path(path).exists():
        raise Refused("NO_SUCH_FILE", f"there is nothing at {path}")
    try:
        import h5py
        import zarr

        is_zarr = Path(path).is_dir()
        with nullcontext(zarr.open_group(path, mode="r")) if is_zarr else h5py.File(path, "r", locking=False) as file:
            if "obs" not in file or "_index" not in file["obs"].attrs:
                raise Refused("NOT_ANNDATA", f"{path}: its obs is missing or was written before anndata 0.7")
            yield file
    except (OSError, KeyError, RuntimeError) as problem:
        raise Refused("NOT_ANNDATA", f"{path}: no AnnData, or damaged inside: {problem}") from problem


def _index(file: Any) -> str:
    """Name of the data set that holds the row names."""
    return str(file["obs"].attrs["_index"])


def _is_dense(node: Any, rows: int) -> bool:
    """Whether an element of obsm is a matrix of numbers; others are frames and sparse matrices."""
    return len(getattr(node, "shape", ())) == 2 and node.shape[0] == rows and node.dtype.kind in "iuf"


def _piece_rows(node: Any) -> int:
    """Rows of about PIECE_BYTES, a multiple of what is compressed together."""
    together = getattr(node, "shards", None) or node.chunks
    step = int(together[0]) if together else 1
    rows = PIECE_BYTES // max(1, int(node.shape[1]) * max(4, int(node.dtype.itemsize)))
    return max(1, rows // step) * step


def _element(node: Any) -> Any:
    """An element of any encoding; a bare HDF5 data set, as anndata 0.7 wrote them, by its type."""
    import h5py
    from anndata.io import read_elem

    if isinstance(node, h5py.Dataset) and "encoding-type" not in node.attrs:
        return node.asstr()[()] if h5py.check_string_dtype(node.dtype) is not None else node[()]
    return read_elem(node)


def _arrow(file: Any, name: str) -> pa.Array:
    """One obs column; categories become their values."""
    node = file["obs"][name]
    if "categories" in getattr(node, "attrs", {}):  # anndata 0.7: codes beside a reference
        codes = node[:].astype(np.int64)
        names = pa.array(_element(file[node.attrs["categories"]]), from_pandas=True)
        return names.take(pa.array(codes, mask=codes < 0))
    column = pa.array(_element(node), from_pandas=True)
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _run_of(file: Any, place: str) -> dict[str, Any] | None:
    """run.json in uns["xfm"]["run"]."""
    if "uns/xfm/run" not in file:
        return None
    try:
        run = json.loads(_element(file["uns/xfm/run"]))
    except (TypeError, ValueError):
        run = None
    if not isinstance(run, dict) or not isinstance(run.get("recipe"), dict):
        raise Refused("BAD_ORIGIN", f"{place}: uns['xfm']['run'] is not the run.json of an xfm job; delete uns['xfm']")
    return run


def _backbones(run: dict[str, Any] | None) -> list[str]:
    """The kind of the backbone, where the run says so."""
    config = run["recipe"].get("config") if run else None
    backbone = config.get("backbone") if isinstance(config, dict) else None
    return [str(backbone["kind"])] if isinstance(backbone, dict) and "kind" in backbone else []


def _stamp(path: Path) -> str:
    """Digest of name, size, number and time of writing of a file, or of a folder's files; nothing is read."""
    stats = [(file.as_posix(), file.stat()) for file in _files(path) if file.exists()]
    lines = [f"{name} {stat.st_size} {stat.st_ino} {stat.st_mtime_ns}" for name, stat in stats]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
