"""CLIP adapted to a few labelled images by low-rank updates, its classes still told by sentences.

Defaults are those of CLIP-LoRA (Zanella and Ben Ayed, CVPR workshops 2024), whose one set of values serves every number
of shots: rank 2, alpha 1, dropout 0.25 on queries, keys and values of all blocks, 500 steps a shot of 32 images at a
learning rate of 2e-4 that falls to 0 by a cosine, weight decay 1e-2, one template, the scale of cosines as pretrained.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from xfm.core.task import TaskSettings
from xfm.models.clip.prompts import ClassPrompts

STEPS_A_SHOT = 500
Share = Annotated[float, Field(ge=0, le=1)]


class ClassPromptTuning(ClassPrompts, TaskSettings):
    """Low-rank updates of CLIP's towers, trained on the cross entropy over the classes' sentences."""

    task: ClassVar[str] = "xfm.tasks.class_prompts.task:ClassPromptsTask"
    watchable: ClassVar[tuple[str, ...]] = ("f1", "accuracy", "balanced_accuracy", "loss")
    measures_forgetting: ClassVar[bool] = True

    kind: Literal["class_prompts"] = "class_prompts"

    tower: Literal["image", "text", "both"] = "image"
    """Which tower gets updates. With the image tower alone, the sentences' vectors are computed once."""

    shots: PositiveInt | Literal["all"] = 16
    """Training images of each class, chosen by seed and row id; published figures are for 1, 2, 4, 8 and 16."""

    rank: PositiveInt = 2
    """Columns of an update."""

    alpha: PositiveFloat = 1.0
    """An update is scaled by alpha / rank."""

    dropout: float = Field(0.25, ge=0, lt=1)
    """Share of its input that an update does not see in training."""

    augment: bool = True
    """Crop a part of the image anew in each epoch."""

    least_area: float = Field(0.08, gt=0, le=1)
    """Smallest share of the image that such a crop keeps; nearer to 1 where the thing to tell fills the image."""

    flip: bool = True
    """Mirror half of those crops; not for digits or words, which have a right way round."""

    shares: tuple[Share, ...] = Field((0.0, 0.25, 0.5, 0.75, 1.0), min_length=1)
    """Of the update, tried after training: 0 is the pretrained network, 1 the adapted one. Validation chooses."""

    forgetting_label: str | None = None
    """Column of the classes in the images of --forgetting; by default that of --task.label."""

    forgetting_classes: tuple[str, ...] | dict[str, str] | None = None
    """Classes of those images, written as `classes`; by default the values that are found."""

    forgetting_templates: tuple[str, ...] | None = None
    """Templates for those images; by default the same."""

    @property
    def mode(self) -> str:
        """What the trained network is called among others."""
        return "lora"

    @field_validator("shares")
    @classmethod
    def _sorted(cls, shares: tuple[float, ...]) -> tuple[float, ...]:
        """Rising, once each, zero-shot always among them."""
        return tuple(sorted({0.0, *shares}))

    def forgetting_prompts(self) -> ClassPrompts:
        """What stands for the classes of the other images."""
        return ClassPrompts(
            label=self.forgetting_label or self.label,
            classes=self.forgetting_classes,
            templates=self.forgetting_templates or self.templates,
        )

    @classmethod
    def training_defaults(cls, task: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
        """CLIP-LoRA's way of training. The whole run counts: no best epoch is kept, unless one is asked for."""
        defaults: dict[str, Any] = {
            "lr": 2e-4, "weight_decay": 1e-2, "schedule": "cosine", "warmup": 0.0, "batch_size": 32,
            "checkpoint_every": None, "watch": "f1" if job.get("patience") is not None else None,
        }  # fmt: skip
        shots = str(task.get("shots", cls.model_fields["shots"].default))
        return defaults | ({"steps": STEPS_A_SHOT * int(shots)} if shots.isdecimal() else {})
