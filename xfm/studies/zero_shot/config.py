"""Settings of zero-shot classification."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig
from xfm.models.clip.prompts import ClassPrompts

Share = Annotated[float, Field(gt=0, lt=0.5)]
BY_PROMPTS = ("classes", "templates", "class_templates")


class ZeroShotJob(ClassPrompts, JobConfig):
    """Names the class of each image by prompts alone, and reads every layer the same way, beside honest baselines."""

    source: AnySource
    """Where images come from."""

    backbone: AnyBackbone
    """The pretrained model; it must have a text tower."""

    split: str | None = None
    """Which rows are scored: COLUMN=VALUE, those that have it; COLUMN, the test rows of data that state train,
    validation and test there. By default every row of the source."""

    group: str | None = None
    """Column whose rows are resampled together (photographer, tile, video), for honest intervals."""

    validation: Share = 0.2
    """With --split COLUMN where the data name no validation rows: share of the training rows that evaluate would set
    aside. Scores do not change by it, only which runs may be subtracted from each other."""

    layers: tuple[int, ...] | Literal["all"] = "all"
    """Layer numbers the logit lens reads, or all; the last one, zero-shot itself, is always among them."""

    baselines: tuple[Literal["majority", "chance", "random", "one_template"], ...] = (
        "majority", "chance", "random", "one_template",
    )  # fmt: skip
    """Beside it: the largest class, guessing by frequency, random weights (a second pass over the images), and "a photo
    of a {}." alone where there are more prompts."""

    classifier: str | None = None
    """A saved classifier in place of prompts: OUTPUT of an earlier zero_shot job, or its classifier.safetensors."""

    keep_logits: bool = False
    """Also keep the logits of all classes at the last layer in OUTPUT/images/parts."""

    bootstrap: PositiveInt = 2000
    """Resamples of groups for the 95 % intervals."""

    batch_tokens: PositiveInt = 8192
    """Tokens of a batch; an image has one a patch and one more."""

    notes: tuple[str, ...] = ()
    """Sentences to put on the report, e.g. published numbers, which are those of different weights or data."""

    @model_validator(mode="after")
    def _prompts_or_classifier(self) -> "ZeroShotJob":
        if self.classifier is not None and (given := [name for name in BY_PROMPTS if name in self.model_fields_set]):
            raise ValueError(f"--classifier brings its own classes and prompts; leave out --{given[0]}")
        return self

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Words, and where a classifier lies (its digest counts)."""
        return super().not_in_fingerprint() | {"notes", "classifier"}
