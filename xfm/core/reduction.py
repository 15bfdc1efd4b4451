"""What is kept of a layer."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from xfm.core.backbone import Backbone
    from xfm.core.tokenizer import Tokens


class Reduction(Protocol):
    """One layer's (B, T, D) to named columns with leading dimension B."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, before the layer is appended."""
        ...

    def __call__(self, state: "Tensor", tokens: "Tokens", backbone: "Backbone") -> "dict[str, Tensor]":
        """{column: (B, D)} of one layer's (B, T, D)."""
        ...
