"""obs columns that a job makes its source carry along: those it names itself, and those its network reads."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from xfm.core.errors import Refused
from xfm.core.source import Source


def columns_of(backbone: Any) -> tuple[str, ...]:
    """obs columns that a network reads beside its input, e.g. the words for a cell's type; most read none."""
    return tuple(getattr(backbone, "columns", ()))


def with_columns(source: Source, columns: Iterable[str]) -> Source:
    """The source with more columns beside those it carries already; itself where it has them, or can carry none.

    Raises:
        Refused: NO_COLUMN; its own rules do not let it carry one of them.
    """
    carried = getattr(source, "obs", None)
    lacking = [] if carried is None else [name for name in dict.fromkeys(columns) if name not in carried]
    if not lacking:
        return source
    values = source.model_dump() | {"obs": (*carried, *lacking)}  # type: ignore[attr-defined, misc]
    try:
        made: Source = type(source).model_validate(values)  # type: ignore[attr-defined]
    except ValidationError as problem:
        said = "; ".join(one["msg"] for one in problem.errors()[:3])
        kind = getattr(source, "kind", type(source).__name__)
        raise Refused("NO_COLUMN", f"--source.kind {kind} cannot carry {', '.join(lacking)}: {said}") from None
    return made


def check_columns(source: Source, columns: Iterable[str]) -> None:
    """Raises Refused: NO_COLUMN, the source does not bring one of them."""
    given = source.schema.names
    if lacking := [name for name in columns if name not in given]:
        kind = getattr(source, "kind", type(source).__name__)
        raise Refused("NO_COLUMN", f"--source.kind {kind} gives no column {lacking[0]!r}, only {', '.join(given)}")
