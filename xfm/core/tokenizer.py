"""From raw rows to token ids, on the CPU."""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Tokens:
    """A padded batch, ready for a backbone. B rows, T tokens of the longest row; padding on the right."""

    ids: "Tensor"  # (B, T) int64
    values: "Tensor | None"  # (B, T) float32, or None for models without values
    is_token: "Tensor"  # (B, T) bool, False at padding
    is_content: "Tensor"  # (B, T) bool, True where mean pooling looks: neither padding nor special tokens
    condition: "Tensor | None" = None  # (B,) int64 batch labels for models conditioned on them, or None
    # (B, 3, S, S) uint8 for models that see, or None; T is then their patches, and `ids` are zeros
    pixels: "Tensor | None" = None
    vectors: "Tensor | None" = None  # (B, S, D) float32 for models that read what another model said of a row, or None

    def to(self, device: str) -> "Tokens":
        """The same tokens on another device."""
        held = ((field.name, getattr(self, field.name)) for field in fields(self))
        moved: dict[str, Any] = {name: tensor if tensor is None else tensor.to(device) for name, tensor in held}
        return Tokens(**moved)


class Tokenizer(Protocol):
    """Picklable, without weights. A row's tokens never depend on its neighbours."""

    def __call__(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Replaces the raw columns by ragged INPUT_IDS (and VALUES); may add a reason in REFUSED."""

    def collate(self, batch: pa.RecordBatch | pa.Table) -> Tokens:
        """Pads tokenised rows to the longest of them."""

    def lengths(self, rows: pa.Table) -> NDArray[np.int64]:
        """(N,) tokens of each tokenised row."""

    def for_training(self) -> Self:
        """The same for rows that are kept between epochs: pictures stay encoded, so that each epoch may crop anew."""

    def describe(self) -> dict[str, Any]:
        """What was matched and dropped, for the report."""
