"""Telling donors apart while unlearning an attribute of theirs, e.g. sex, by gradient reversal.

Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016. The loss *adds* the adversary's: the sign is
turned once, behind the features. `reversal="reference"` keeps a public model's doubled sign (reversal and subtraction):
its encoder helps the adversary, which climbs its own loss; it is there to reproduce that model, and to be seen failing.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from xfm.core.task import TaskSettings

MOST_LOSS = 10.0  # of a row's adversary loss under reversal="reference", which has no bound otherwise
MISSING = -1


class AdversarialClassification(TaskSettings):
    """Classes of a column, told from a cell's embedding and the words for its type, with or without an adversary."""

    task: ClassVar[str] = "xfm.tasks.adversarial.task:AdversarialTask"
    watchable: ClassVar[tuple[str, ...]] = ("f1", "accuracy", "balanced_accuracy", "loss")

    kind: Literal["adversarial"] = "adversarial"

    label: str = "donor_id"
    """Column of the classes."""

    attribute: str | None = "sex"
    """Column of what is to be unlearned, and measured as leakage; unknown values are left out of the adversary."""

    adversary: bool = True
    """Whether to unlearn it; without, it is measured alone. With it the weights of the last step are kept, unless
    --watch or --patience is given."""

    within: str | None = "dataset_id"
    """Column of the data set: accuracy is also told among the classes of a row's own data set."""

    lambda_adv: PositiveFloat = 0.1
    """How strongly the reversed gradient reaches the network, at most."""

    adv_weight: PositiveFloat = 1.0
    """Of the adversary's loss in the sum."""

    ramp: bool = True
    """Let the strength grow from 0 over the run; False keeps it at lambda_adv, as the public model."""

    reversal: Literal["corrected", "reference"] = "corrected"
    """corrected: reversal, and the losses added. reference: reversal, and the adversary's loss subtracted."""

    adversary_lr: PositiveFloat = 1.0
    """The adversary learns so many times as fast as the rest."""

    attribute_in_head: bool = False
    """Give the attribute to the head that tells the classes, unknown as 0.5, as the public model does."""

    head_hidden: PositiveInt | None = None
    """Width of the head's hidden layer; by default --backbone.hidden."""

    head_dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the hidden layer that is dropped in training, of head and adversary."""

    @property
    def mode(self) -> str:
        """What the trained network is called among others."""
        return "adversarial" if self.is_adversarial else "plain"

    @property
    def is_adversarial(self) -> bool:
        """Whether something is unlearned."""
        return self.adversary and self.attribute is not None

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(name for name in (self.label, self.attribute, self.within) if name)

    @property
    def sign(self) -> float:
        """With which the adversary's loss enters the sum."""
        return 1.0 if self.reversal == "corrected" else -1.0

    def strength(self, progress: float) -> float:
        """Of the reversal after a share of all steps."""
        from xfm.nn.reversal import reversal_strength

        return reversal_strength(progress, self.lambda_adv) if self.ramp else self.lambda_adv

    @classmethod
    def training_defaults(cls, task: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
        """For fields of the job that are not given: ten epochs of 32 rows, warm-up for a twentieth of them, cosine.

        Against an adversary the whole run counts: a score of the classes says nothing of what was unlearned, and would
        keep weights of an early step, against which the reversal was weak.
        """
        without = str(task.get("adversary", True)).lower() == "false" or task.get("attribute", "") is None
        return {
            "lr": 3e-4, "weight_decay": 0.01, "schedule": "cosine", "warmup": 0.5, "batch_size": 32, "epochs": 10.0,
            "patience": 3 if without and job.get("watch", "f1") is not None else None, "clip": 1.0,
            "watch": "f1" if without or job.get("patience") is not None else None,
        }  # fmt: skip
