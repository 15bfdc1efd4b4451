"""Types of the sections that may hold any entry of a table of the registry, told apart by `kind`."""

from collections.abc import Callable
from typing import Annotated, Any, Union

from pydantic import Field

from xfm.core import registry


def union_of(table: dict[str, str], group: str, what: str, is_wanted: Callable[[Any], bool] = lambda _: True) -> Any:
    """The type of a field that may hold any wanted entry of a table, or of the entry points that add to it."""
    kinds = tuple(filter(is_wanted, registry.load_all(group, table, what).values()))
    return kinds[0] if len(kinds) == 1 else Annotated[Union[kinds], Field(discriminator="kind")]  # noqa: UP007


AnySource = union_of(registry.SOURCES, "xfm.sources", "source")
AnyBackbone = union_of(registry.BACKBONES, "xfm.backbones", "backbone")
