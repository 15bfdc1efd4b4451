"""What one row of the data is called: read off the columns that a source gives, here and nowhere else."""

from collections.abc import Iterable

from xfm.core.schema import COUNTS, EMBEDDING, IMAGE, TEXT

ROWS = "rows"
NOUNS = {COUNTS: "cells", EMBEDDING: "cells", TEXT: "sentences", IMAGE: "images"}


def noun_of(columns: Iterable[str]) -> str:
    """The plural for people; `rows` where no column tells. The singular lacks the s."""
    given = set(columns)
    return next((noun for column, noun in NOUNS.items() if column in given), ROWS)
