"""Sizes of a fusion of gene embeddings with text, and where it follows its public model or corrects it."""

from typing import Literal, Self

from pydantic import Field, PositiveInt, model_validator

from xfm.core.config import Config


class FusionSizes(Config):
    """Sizes of the network."""

    design: Literal["fusion", "concat"] = "fusion"
    """fusion: both sides are resampled and attend to each other. concat: the inputs beside each other, as they are."""

    inputs: Literal["both", "gene", "text"] = "both"
    """What a concat reads; a fusion reads both."""

    latents: PositiveInt = 32
    """Latent vectors of each side."""

    heads: PositiveInt = 8
    """Attention heads."""

    hidden: PositiveInt = 256
    """Width of a latent, and of the head of a classifier."""

    layers: PositiveInt = 1
    """Blocks of each resampler."""

    projection: PositiveInt = 128
    """Width of the space in which cells and words are aligned."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Of resampled latents and of what was attended across."""

    resampler_dropout: float = Field(0.0, ge=0, lt=1)
    """Inside the resamplers; the public model has none there."""

    pool: Literal["residual", "attended"] = "residual"
    """What a side's vector is the mean of: latents after the residual and its norm, or, as the public model, what was
    attended before it."""

    share_attention: bool = False
    """One attention for both directions, as the public model."""

    parallel: bool = True
    """Both sides attend to what the other was; False: the gene side to what the text side has become, as the public
    model."""

    gene_chunks: PositiveInt = 1
    """Pieces that an embedding is cut into before it is resampled; 1 keeps it whole."""

    @model_validator(mode="after")
    def _divide(self) -> Self:
        if self.design == "fusion" and self.hidden % self.heads:
            raise ValueError(f"hidden {self.hidden} is no multiple of heads {self.heads}")
        if self.design == "fusion" and self.inputs != "both":
            raise ValueError(f"inputs {self.inputs} goes with design concat; a fusion reads both")
        return self

    @property
    def sizes(self) -> "FusionSizes":
        """Without what a subclass adds."""
        return FusionSizes(**{name: getattr(self, name) for name in FusionSizes.model_fields})
