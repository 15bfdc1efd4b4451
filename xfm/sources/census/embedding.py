"""Where an embedding of Census cells lies, and the vectors of some of them."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.sources.census.arrays import check_embedding, context, hosted_embedding, read_embedding
from xfm.sources.census.tiles import TILE
from xfm.sources.gene_table import missing


class Origin(NamedTuple):
    """Where to look for what the store does not hold."""

    release: str | None  # published release, None for a store of one's own
    organism: str  # its experiment
    address: str | None  # of the one array that is given beside the store


@contextmanager
def embedding_array(measurement: Any, name: str, asked: tuple[str, ...], origin: Origin) -> Iterator[Any]:
    """The array of one embedding: a layer of obsm, else at the address, else hosted by Census.

    Args:
        measurement: of the experiment.
        name: of the embedding.
        asked: all embeddings that are read; an address can stand for one of them.
        origin: where to look beside the store.

    Raises:
        Refused: NO_EMBEDDING or EMBEDDING_MISMATCH.
    """
    import tiledbsoma

    layers = measurement.obsm if "obsm" in measurement else {}
    if name in layers:
        yield layers[name]
        return
    elsewhere = [other for other in asked if other not in layers]
    if origin.address is not None and len(elsewhere) == 1:
        address = origin.address
    elif origin.release is not None and origin.address is None:
        address = hosted_embedding(name, origin.organism, origin.release)
    else:
        raise Refused(
            "NO_EMBEDDING",
            f"{missing('obsm layer', name, sorted(layers))}. embedding_uri names the array of one embedding; "
            f"{len(elsewhere)} are not in the store: {', '.join(elsewhere)}",
        )
    try:
        array = tiledbsoma.open(address, context=context(address))
    except tiledbsoma.DoesNotExistError as error:
        raise Refused("NO_EMBEDDING", f"there is no SOMA array at {address} for embedding {name!r}") from error
    with array:
        check_embedding(array, origin.release, origin.organism)
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
