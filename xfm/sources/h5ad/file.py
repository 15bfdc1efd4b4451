"""One .h5ad file: opened, checked, its matrices, its gene names and its obs columns.

On-disk layout: https://anndata.readthedocs.io/en/stable/fileformat-prose.html (anndata 0.7 and later).
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused, ShardRefused
from xfm.sources.gene_table import identifier_columns, missing
from xfm.sources.h5ad.matrix import CSC, CSR, Dense, Matrix

Values = Literal["auto", "counts", "log"]
FEATURE_TYPES = ("feature_types", "feature_type")  # columns of var that tell genes from proteins and peaks
GENES = "Gene Expression"


class H5adFile:
    """An open file, used as a context manager. `name` stands for it in messages.

    Raises:
        ShardRefused: EMPTY_FILE, H5_TRUNCATED, H5_UNREADABLE, NOT_ANNDATA, NO_ROWS, NO_GENES or BAD_INDICES.
    """

    n_obs: int  # cells
    layers: list[str]  # matrices there are, in the order in which counts are looked for
    obs_columns: list[str]

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._file = stack.enter_context(_open(self.path, self.name))
            with self.reading():
                self._read_outline()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Turns what HDF5 says about damaged content into a refusal of this file."""
        try:
            yield
        except (OSError, KeyError, RuntimeError) as error:
            raise ShardRefused("H5_UNREADABLE", f"{self.name}: damaged inside: {error}") from error

    def _read_outline(self) -> None:
        import h5py

        file = self._file
        for part in ("obs", "var"):
            if not isinstance(file.get(part), h5py.Group):
                kind = "an old layout, written before anndata 0.7" if part in file else "missing"
                raise ShardRefused("NOT_ANNDATA", f"{self.name}: an HDF5 file, but its {part!r} is {kind}")
        self.obs_columns = [name for name in file["obs"] if name not in (_index(file["obs"]), "__categories")]
        self.n_obs = _length(file["obs"], _index(file["obs"]))
        named = sorted(f"layers/{name}" for name in file.get("layers", ()))
        usual = ["layers/counts"] * ("layers/counts" in named) + ["raw"] * ("raw/X" in file) + ["X"] * ("X" in file)
        self.layers = usual + [name for name in named if name not in usual]
        if not self.layers:
            raise ShardRefused("NOT_ANNDATA", f"{self.name}: neither X nor raw nor layers")
        if self.n_obs == 0:
            raise ShardRefused("NO_ROWS", f"{self.name}: holds no cell")

    def _var(self, layer: str) -> Any:
        return self._file["raw/var" if layer == "raw" else "var"]

    def matrix(self, layer: str) -> Matrix:
        """One of `layers`, with its shape and index arrays checked."""
        import h5py

        label = f"{layer} of {self.name}"
        with self.reading():
            node, var = self._file["raw/X" if layer == "raw" else layer], self._var(layer)
            encoding = node.attrs.get("encoding-type", node.attrs.get("h5sparse_format", ""))
            shape = tuple(int(n) for n in node.attrs.get("shape", node.attrs.get("h5sparse_shape", ())))
            dense = isinstance(node, h5py.Dataset)
            values = node if dense else node.get("data")
            if values is None or values.dtype.kind not in "iufb":
                raise ShardRefused("NOT_ANNDATA", f"{label}: not a matrix of numbers")
            wanted = (self.n_obs, _length(var, _index(var)))
            found = values.shape if dense else shape
            if tuple(found) != wanted:
                raise ShardRefused("NOT_ANNDATA", f"{label}: shape {tuple(found)}, but obs x var is {wanted}")
            if wanted[1] == 0:
                raise ShardRefused("NO_GENES", f"{label}: holds no gene")
            if dense:
                return Dense(node, label)
            if kind := {"csr": CSR, "csc": CSC}.get(str(encoding)[:3]):
                return kind(node, wanted, label)
        raise ShardRefused("NOT_ANNDATA", f"{label}: encoding {encoding!r}; csr_matrix, csc_matrix or dense are known")

    def choose(self, layer: str, values: Values) -> tuple[str, tuple[str, ...]]:
        """The matrix to read: the one named, or the first of layers['counts'], raw, X that holds counts; and what a
        reader should know of the choice.

        A matrix that contradicts itself, or holds nothing but zeros, is passed over where another one holds counts.

        Raises:
            ShardRefused: NO_LAYER, NOT_COUNTS, or why no matrix can be read.
        """
        if layer != "auto":
            named = [name for name in (layer, f"layers/{layer}") if name in self.layers]
            if not named:
                known = [name.removeprefix("layers/") for name in self.layers]
                raise ShardRefused("NO_LAYER", f"{self.name}: {missing('layer', layer, known)}")
            candidates = named[:1]
        else:
            candidates = [name for name in self.layers if name in ("layers/counts", "raw", "X")] or self.layers
        if values == "log":
            return "X" if layer == "auto" and "X" in self.layers else candidates[0], ()
        if values == "counts" and layer != "auto":
            return candidates[0], ()
        broken: list[ShardRefused] = []
        zeros: list[str] = []
        with self.reading():
            for number, name in enumerate(candidates):
                try:
                    matrix = self.matrix(name)
                    is_counts = matrix.looks_like_counts()
                except ShardRefused as problem:
                    broken.append(problem)
                    continue
                if is_counts and matrix.is_empty():
                    zeros.append(name)
                elif is_counts:
                    notes = [f"passed over: {problem.message}" for problem in broken]
                    notes += [f"{self.name}: passed over: {each} holds nothing but zeros" for each in zeros]
                    return name, (*notes, *self._beside(name, candidates[number + 1 :]))
            if zeros:
                return zeros[0], ()
            if len(broken) == len(candidates):
                raise broken[0]
            readable = [name for name in candidates if not any(f"{name} of" in each.message for each in broken)]
            odd = "; ".join(f"{name} holds {self.matrix(name).example()}" for name in readable)
        others = [name.removeprefix("layers/") for name in self.layers if name not in candidates]
        raise ShardRefused(
            "NOT_COUNTS",
            f"{self.name}: {odd}, and counts are whole numbers. If these are log values say so: --source.values log. "
            f"If the counts are elsewhere, name them: --source.layer NAME (besides there are: {others or 'none'})",
        )

    def _beside(self, chosen: str, others: list[str]) -> Iterator[str]:
        """Matrices that hold counts of more genes than the chosen one."""
        own = _length(self._var(chosen), _index(self._var(chosen)))
        for other in others:
            found = _length(self._var(other), _index(self._var(other)))
            if found <= own:
                continue
            try:
                is_counts = self.matrix(other).looks_like_counts()
            except ShardRefused:
                continue
            if is_counts:
                yield (f"{self.name}: {chosen} is read, with {own:,} genes, and {other} holds counts of {found:,}: "
                       f"--source.layer {other.removeprefix('layers/')} reads those")  # fmt: skip

    def is_gene(self, layer: str) -> NDArray[np.bool_] | None:
        """(G,) which columns of a matrix are genes, where var tells them from proteins and peaks; None where it does
        not, or where all are."""
        with self.reading():
            var = self._var(layer)
            for name in FEATURE_TYPES:
                if name in var and _is_text(var, name):
                    words = _column(var, name, 0, None).cast(pa.string()).to_pylist()
                    found = np.array([word == GENES for word in words], bool)
                    return found if found.any() and not found.all() else None
        return None

    def genes(self, layer: str, gene_column: str | None) -> pa.Table:
        """The gene table of one matrix: var_names as `index`, and every other identifier of var; genes alone, see
        `is_gene`."""
        with self.reading():
            var = self._var(layer)
            index = _index(var)
            columns = {"index": _column(var, index, 0, None).cast(pa.string())}
            for name in var:
                if name not in (index, "index", "__categories") and _is_text(var, name):
                    columns[name] = _column(var, name, 0, None).cast(pa.string())
        try:
            kept = identifier_columns(list(columns), gene_column)
        except Refused as error:
            raise ShardRefused(error.code, f"{self.name}: {error.message}") from error
        table, is_gene = pa.table({name: columns[name] for name in kept}), self.is_gene(layer)
        return table if is_gene is None else table.filter(pa.array(is_gene))

    def row_names(self, start: int = 0, stop: int | None = None) -> list[str]:
        """The obs names of some rows."""
        with self.reading():
            obs = self._file["obs"]
            return list(_column(obs, _index(obs), start, stop).cast(pa.string()).to_pylist())

    def obs(self, names: tuple[str, ...], start: int, stop: int) -> dict[str, pa.Array]:
        """Obs columns of some rows: categories as strings, numbers as they are.

        Raises:
            ShardRefused: NO_OBS_COLUMN.
        """
        for name in names:
            if name not in self.obs_columns:
                raise ShardRefused("NO_OBS_COLUMN", f"{self.name}: {missing('obs column', name, self.obs_columns)}")
        with self.reading():
            return {name: _column(self._file["obs"], name, start, stop) for name in names}


def _open(path: Path, name: str) -> Any:
    import h5py

    if path.stat().st_size == 0:
        raise ShardRefused("EMPTY_FILE", f"{name}: zero bytes")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        code = "H5_TRUNCATED" if "truncated" in str(error) else "H5_UNREADABLE"
        raise ShardRefused(code, f"{name}: not a whole HDF5 file: {error}") from error


def _index(frame: Any) -> str:
    """Name of the data set that holds the row names."""
    return str(frame.attrs["_index"])


def _length(frame: Any, name: str) -> int:
    """Rows of a column: of its values or codes, where it is stored as several arrays."""
    import h5py

    node = frame[name]
    return len(node.get("values", node.get("codes"))) if isinstance(node, h5py.Group) else len(node)


def _is_text(frame: Any, name: str) -> bool:
    import h5py

    node = frame[name]
    if isinstance(node, h5py.Group):
        values = node.get("categories", node.get("values"))
        return values is not None and h5py.check_string_dtype(values.dtype) is not None
    legacy = node.attrs.get("categories")
    values = node if legacy is None else frame.file[legacy]
    return h5py.check_string_dtype(values.dtype) is not None


def _column(frame: Any, name: str, start: int, stop: int | None) -> pa.Array:
    """Rows of one column of an obs or var table."""
    import h5py

    node = frame[name]
    if isinstance(node, h5py.Group):
        if "codes" in node:
            return _decoded(node["codes"][start:stop], node["categories"])
        if "values" in node and "mask" in node:
            return _plain(node["values"], start, stop, mask=node["mask"][start:stop])
        raise ShardRefused("NOT_ANNDATA", f"column {name!r}: unknown encoding {node.attrs.get('encoding-type')!r}")
    if "categories" in node.attrs:  # anndata 0.7
        return _decoded(node[start:stop], frame.file[node.attrs["categories"]])
    return _plain(node, start, stop)


def _plain(node: Any, start: int, stop: int | None, mask: Any = None) -> pa.Array:
    import h5py

    if h5py.check_string_dtype(node.dtype) is not None:
        return pa.array(node.asstr()[start:stop], pa.string(), mask=mask)
    values = node[start:stop]
    return pa.array(values.astype(values.dtype.newbyteorder("="), copy=False), mask=mask)


def _decoded(codes: Any, categories: Any) -> pa.Array:
    """Categories as strings; code -1 is a missing value."""
    names = _plain(categories, 0, None).cast(pa.string())
    return names.take(pa.array(codes.astype(np.int64), mask=codes < 0))
