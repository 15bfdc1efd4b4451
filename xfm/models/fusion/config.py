"""The fusion of embeddings with words as a recipe: from scratch by its sizes, or from an aligned checkpoint."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, NonNegativeInt, field_validator

from xfm.core.config import fingerprint
from xfm.core.errors import Refused
from xfm.core.schema import EMBEDDING
from xfm.models.fusion.bank import TextBank
from xfm.models.fusion.sizes import FusionSizes
from xfm.models.fusion.text import BertText, HashedText
from xfm.tokenizers.embedding import EmbeddingTokenizer

if TYPE_CHECKING:
    from xfm.models.fusion.network import Concatenation, FusionModel

AnyText = Annotated[HashedText | BertText, Field(discriminator="kind")]


class Fusion(FusionSizes):
    """A cell's embedding fused with the words for its type (the network of a public gene-text model, corrected)."""

    kind: Literal["fusion"] = "fusion"

    checkpoint: str | None = None
    """What `pretrain --task.kind alignment` wrote; its sizes and text encoder then count. Without: from scratch."""

    text_column: str = "cell_type"
    """obs column of the words."""

    text: AnyText = HashedText()
    """What turns words into vectors; each different label is encoded once."""

    weights_seed: NonNegativeInt | None = None
    """Of weights drawn from scratch; by default the seed of the job."""
