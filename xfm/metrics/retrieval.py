"""Whether the nearest thing is the right one: recall at 1, and what guessing would reach.

Radford et al., ICML 2021, section 3.1, as measured on Flickr30k and COCO; several things may be right, as there every
caption of an image is.
"""

import numpy as np
from numpy.typing import NDArray

# Shapes: Q queries, G things to find, P width.
Ints = NDArray[np.int64]


def nearest_is_right(
    queries: NDArray[np.floating], gallery: NDArray[np.floating], query_ids: Ints, gallery_ids: Ints
) -> NDArray[np.bool_]:
    """Whether the nearest thing carries the query's id; recall at 1 is the mean.

    Args:
        queries: (Q, P) unit vectors.
        gallery: (G, P) unit vectors; of equally near ones the first counts.
        query_ids: (Q,).
        gallery_ids: (G,).

    Returns:
        (Q,).

    Raises:
        ValueError: there is nothing to find, or the shapes do not match.
    """
    if len(queries) != len(query_ids) or len(gallery) != len(gallery_ids) or not len(gallery):
        raise ValueError(
            f"{len(queries)} queries with {len(query_ids)} ids, {len(gallery)} things with {len(gallery_ids)} ids"
        )
    found: NDArray[np.bool_] = gallery_ids[np.argmax(queries @ gallery.T, axis=1)] == query_ids
    return found


def chance_of_right(query_ids: Ints, gallery_ids: Ints) -> float:
    """Recall at 1 of drawing from the (G,) things blindly, each alike, for (Q,) queries."""
    names, counts = np.unique(gallery_ids, return_counts=True)
    share = dict(zip(names.tolist(), (counts / len(gallery_ids)).tolist(), strict=True))
    return float(np.mean([share.get(name, 0.0) for name in query_ids.tolist()]))
