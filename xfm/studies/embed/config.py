"""Settings of an extraction."""

from typing import Any, Literal

from pydantic import Field, PositiveInt

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig

Pooling = Literal["cls", "mean", "max"]


class EmbedJob(JobConfig):
    """Extracts the embedding of every layer, for every row of a source, in one pass."""

    source: AnySource
    """Where rows come from."""

    backbone: AnyBackbone
    """The pretrained model."""

    pools: tuple[Pooling, ...] = Field(("cls", "mean"), min_length=1)
    """What to keep of a layer: cls (state at <cls>), mean or max over content tokens (no padding, no special ones)."""

    layers: tuple[int, ...] | Literal["all"] = "all"
    """Layer numbers, or all; 0 is the input embedding, the last is the model's output."""

    batch_tokens: PositiveInt = 8192
    """Tokens of a batch, padding included; rows are sorted by length inside their shard."""

    predictions: bool = False
    """Add what the head of a fine-tuned --backbone.checkpoint says of each row: predicted and probabilities."""

    dtype: Literal["float32", "float16"] = "float32"
    """Type of the stored numbers."""

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        """Runs without predictions are what they were before there were any."""
        return {"predictions": False}
