"""Cells out of a Census store: its Experiment, count rows and embeddings of given joinids.

Measured on a local store of Census layout, 2,948 entries a cell: result order "auto" is 24 times faster than
"row-major", so rows are put in order here; and reading a whole range of joinids to keep a part of it beats a list of
single joinids down to about one cell in sixteen.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.sources.cells import CheckedRows
from xfm.sources.census.tables import TILE
from xfm.sources.gene_table import missing

BUFFER_BYTES = 64 * 2**20  # for each column of each open query; Census' own default is 1 GiB
THREADS = 2
DENSE_ENOUGH = 1 / 16
PUBLIC_BUCKETS = ("s3://cellxgene-census-public", "s3://cellxgene-contrib-public")


def context(uri: str | None) -> Any:
    """A SOMA context with small buffers and few threads, as fits one of many tasks on a machine."""
    import tiledbsoma

    settings: dict[str, str | float] = {
        "soma.init_buffer_bytes": BUFFER_BYTES,
        "sm.compute_concurrency_level": THREADS,
        "sm.io_concurrency_level": 8 if uri is None or "://" in uri else THREADS,
    }
    if uri is None or uri.startswith(PUBLIC_BUCKETS):
        settings |= {"vfs.s3.region": "us-west-2", "vfs.s3.no_sign_request": "true"}
    return tiledbsoma.SOMATileDBContext(tiledb_config=settings)


@contextmanager
def open_store(release: str | None, uri: str | None) -> Iterator[Any]:
    """The root collection of a release or of a store.

    Raises:
        Refused: NO_STORE or NO_RELEASE.
        EnvironmentProblem: the release directory cannot be reached.
    """
    import tiledbsoma

    if uri is not None:
        try:
            store = tiledbsoma.open(uri, context=context(uri))
        except tiledbsoma.DoesNotExistError as error:
            raise Refused("NO_STORE", f"there is no SOMA store at {uri}") from error
    else:
        import cellxgene_census

        try:
            store = cellxgene_census.open_soma(census_version=release, context=context(None))
        except ValueError as error:
            raise Refused("NO_RELEASE", f"Census release {release!r}: {error}") from error
        except OSError as error:
            raise EnvironmentProblem(f"the Census release directory cannot be reached: {error}") from error
    with store:
        yield store


def experiment_of(store: Any, organism: str, measurement: str, x_name: str | None) -> Any:
    """The Experiment of an organism, with its measurement and layer checked; with None nothing of X is opened.

    Raises:
        Refused: NOT_CENSUS, naming what is missing and what there is.
    """

    def check(what: str, name: str, members: Any) -> None:
        if name not in members:
            raise Refused("NOT_CENSUS", f"{store.uri}: {missing(what, name, sorted(members))}")

    check("member", "census_data", store)
    check("census_data/member", organism, store["census_data"])
    experiment = store["census_data"][organism]
    check("measurement", measurement, experiment.ms)
    if x_name is not None:
        check("layer of X", x_name, experiment.ms[measurement].X)
    return experiment


def _entries(array: Any, joinids: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Stored entries of a sparse array: row (position in `joinids`, which ascend), column, value; in any order.

    They are asked for as one range where the joinids are dense enough in it, else one by one.
    """
    first, last = int(joinids[0]), int(joinids[-1])
    is_range = len(joinids) / (last - first + 1) >= DENSE_ENOUGH
    position = np.full(last - first + 1 if is_range else 0, -1, np.int32)
    if is_range:
        position[joinids - first] = np.arange(len(joinids))
    for table in array.read(coords=(slice(first, last) if is_range else pa.array(joinids),)).tables():
        joinid, column, value = (table[name].to_numpy() for name in ("soma_dim_0", "soma_dim_1", "soma_data"))
        row = position[joinid - first] if is_range else np.searchsorted(joinids, joinid).astype(np.int32)
        if is_range and len(joinids) < len(position):
            keep = row >= 0
            row, column, value = row[keep], column[keep], value[keep]
        yield row, column, value


def read_counts(layer: Any, joinids: NDArray[np.int64], n_genes: int) -> CheckedRows:
    """Rows of X for (R,) ascending joinids.

    Raises:
        ShardRefused: DUPLICATE_ENTRY or BAD_INDICES.
    """
    from scipy.sparse import coo_matrix

    parts = []
    for row, column, value in _entries(layer, joinids):
        if len(column) and column.max() >= n_genes:
            raise ShardRefused("BAD_INDICES", f"{layer.uri}: gene {column.max()} where var holds {n_genes}")
        if len(column):
            parts.append((row, column.astype(np.int32), value))
    if not parts:
        return CheckedRows(np.zeros(len(joinids) + 1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    row, column, value = parts[0] if len(parts) == 1 else (np.concatenate(part) for part in zip(*parts, strict=True))
    matrix = coo_matrix((value, (row, column)), shape=(len(joinids), n_genes)).tocsr()
    if matrix.nnz != len(value):
        raise ShardRefused("DUPLICATE_ENTRY", f"{layer.uri}: {len(value) - matrix.nnz} entries are stored twice")
    return CheckedRows(matrix.indptr.astype(np.int64), matrix.indices, matrix.data)


def read_embedding(array: Any, joinids: NDArray[np.int64]) -> pa.Array:
    """One vector for each of (R,) ascending joinids, null where the cell was not embedded.

    A sparse array leaves out the whole row of a cell that was not embedded; a dense one holds NaN there.
    """
    width = int(array.shape[1])
    vectors = np.zeros((len(joinids), width), np.float32)
    present = np.zeros(len(joinids), bool)
    if array.soma_type == "SOMADenseNDArray":
        for tile in np.unique(joinids // TILE).tolist():
            rows = np.flatnonzero(joinids // TILE == tile)
            first, last = int(joinids[rows[0]]), int(joinids[rows[-1]])
            block = array.read((slice(first, last), slice(0, width - 1))).to_numpy()
            vectors[rows] = block[joinids[rows] - first]
        present[:] = ~np.isnan(vectors).all(axis=1)
    else:
        for row, column, value in _entries(array, joinids):
            vectors[row, column] = value
            present[row] = True
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), width, mask=pa.array(~present))


@lru_cache(maxsize=16)
def hosted_embedding(name: str, organism: str, release: str) -> str:
    """Address of an embedding that Census hosts for a release.

    Raises:
        Refused: NO_EMBEDDING.
        EnvironmentProblem: the list of embeddings cannot be reached.
    """
    from cellxgene_census.experimental import get_embedding_metadata_by_name

    try:
        found = get_embedding_metadata_by_name(name, organism, release, "obs_embedding")
    except ValueError as error:
        why = f"release {release} has no obsm layer and no hosted embedding {name!r}"
        raise Refused("NO_EMBEDDING", why) from error
    except OSError as error:
        raise EnvironmentProblem(f"the list of hosted embeddings cannot be reached: {error}") from error
    return f"s3://cellxgene-contrib-public/contrib/cell-census/soma/{found['census_version']}/{found['id']}"


def check_embedding(array: Any, release: str | None, organism: str) -> None:
    """Compare what a hosted embedding says about itself with the cells it shall describe.

    Raises:
        Refused: EMBEDDING_MISMATCH.
    """
    if "CxG_embedding_info" not in array.metadata:
        return
    about = json.loads(array.metadata["CxG_embedding_info"])
    made_for = (about.get("census_version"), about.get("experiment_name"))
    if (release is not None and made_for[0] not in (None, release)) or made_for[1] not in (None, organism):
        raise Refused("EMBEDDING_MISMATCH", f"{array.uri} was made for {made_for}, asked for ({release}, {organism})")


@contextmanager
def embedding_array(
    measurement: Any, name: str, asked: Sequence[str], release: str | None, organism: str, address: str | None
) -> Iterator[Any]:
    """The array of one embedding: a layer of obsm, else at the address, else hosted by Census.

    Args:
        asked: all embeddings that are read; an address can stand for one of them.
        release: None for a store of one's own.
        address: of the one array that is given beside the store.

    Raises:
        Refused: NO_EMBEDDING or EMBEDDING_MISMATCH.
    """
    import tiledbsoma

    layers = measurement.obsm if "obsm" in measurement else {}
    if name in layers:
        yield layers[name]
        return
    elsewhere = [other for other in asked if other not in layers]
    if release is not None and address is None:
        address = hosted_embedding(name, organism, release)
    elif address is None or len(elsewhere) != 1:
        why = f"{missing('obsm layer', name, sorted(layers))}. embedding_uri names the array of one embedding"
        raise Refused("NO_EMBEDDING", f"{why}; {len(elsewhere)} are not in the store: {', '.join(elsewhere)}")
    try:
        array = tiledbsoma.open(address, context=context(address))
    except tiledbsoma.DoesNotExistError as error:
        raise Refused("NO_EMBEDDING", f"there is no SOMA array at {address} for embedding {name!r}") from error
    with array:
        check_embedding(array, release, organism)
        yield array


def vectors_of(array: Any, joinids: NDArray[np.int64], name: str) -> tuple[NDArray[np.float32], dict[int, str]]:
    """(R, D) vectors of (R,) ascending joinids, and "CODE: why" of every row that has none and is NaN."""
    found = read_embedding(array, joinids)
    vectors = found.values.to_numpy(zero_copy_only=False).reshape(len(joinids), -1).copy()
    absent = np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))
    vectors[absent] = np.nan
    why = f"NO_EMBEDDING_ROW: embedding {name!r} holds no vector of this cell"
    return vectors, dict.fromkeys(absent.tolist(), why)


def vectors_digest(array: Any, joinids: NDArray[np.int64], name: str) -> str:
    """SHA-256 over joinids, in any order, and their vectors as `vectors_of` gives them, tile by tile."""
    content, ascending = hashlib.sha256(), np.sort(joinids)
    for tile in np.split(ascending, np.flatnonzero(np.diff(ascending // TILE)) + 1):
        content.update(tile.astype("<i8").tobytes())
        content.update(vectors_of(array, tile, name)[0].astype("<f4").tobytes())
    return f"sha256:{content.hexdigest()}"
