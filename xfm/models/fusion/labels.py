"""Labels to vectors: each different one is encoded once, and never again where a cache has it."""

import logging
from collections.abc import Sequence

import pyarrow as pa

from xfm.core.errors import Refused
from xfm.core.storage import Storage
from xfm.models.fusion.bank import LabelVectors
from xfm.models.fusion.label_table import FILE, from_bytes, rows_of, to_bytes, vectors_under
from xfm.models.fusion.text import TextEncoder

logger = logging.getLogger(__name__)


def encode_labels(encoder: TextEncoder, labels: Sequence[str], cache: Storage | None) -> dict[str, LabelVectors]:
    """Each different label's vectors.

    Args:
        encoder: called for those that the cache does not have.
        labels: in any order and number.
        cache: its label_embeddings.parquet is read first, and gets what was encoded; a damaged one is made anew.

    Raises:
        Refused: NO_TEXT, there is no label or an empty one; or as the encoder's `encode`.
    """
    wanted = sorted(set(labels))
    if not wanted or not all(label.strip() for label in wanted):
        raise Refused("NO_TEXT", f"{len(wanted)} different labels are to be encoded"
                      f"{', an empty one among them' if wanted else ''}; each needs a letter or a sign")  # fmt: skip
    key, stored = encoder.key(), _stored(cache)
    known = {} if stored is None else vectors_under(stored, key)
    more = [label for label in wanted if label not in known]
    if more:
        logger.info("text encoder %s: %d of %d labels are new", key[:12], len(more), len(wanted))
        known |= dict(zip(more, encoder.encode(more), strict=True))
        if cache is not None:
            added = rows_of({label: known[label] for label in more}, encoder.about())
            cache.write(FILE, to_bytes(added if stored is None else pa.concat_tables([stored, added])))
    return {label: known[label] for label in wanted}


def _stored(cache: Storage | None) -> pa.Table | None:
    content = None if cache is None else cache.read(FILE)
    if content is None:
        return None
    try:
        return from_bytes(content)
    except ValueError as problem:
        logger.warning("%s is made anew: %s", FILE, problem)
        return None
