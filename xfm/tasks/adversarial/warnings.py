"""What a reader must know before believing that donors can be told, or that an attribute was unlearned."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xfm.judging.eval_set import MISSING
from xfm.judging.labelled import Labelled
from xfm.tasks.adversarial.settings import MOST_LOSS, AdversarialClassification
from xfm.training.report import best_was_last, out_of_time
from xfm.training.settings import Settings, Trained

PURPOSE = (
    "Telling donors apart is re-identification: it belongs to research on what public embeddings give away, and is not "
    "to be used on data of people who have not agreed to it."
)
SCHEMES = {
    "random_cell": "Cells were split at random: those of one library stand on both sides, and the scores are "
    "in-distribution.",
    "stratified_cell": "Cells were split inside each stratum of donor and cell type: those of one library stand on "
    "both sides, and the scores are in-distribution.",
    "held_out_types": "The test cells are of cell types that training never saw, of the same donors.",
}


def cautions(
    trained: Trained, settings: Settings, task: AdversarialClassification, labelled: Labelled, scheme: str | None
) -> list[str]:
    """Warnings, the gravest first.

    Args:
        scheme: of the split, where the source says so.
    """
    found = []
    if task.is_adversarial and task.reversal == "reference":
        found.append(DOUBLED)
    found += [PURPOSE] if "donor" in task.label else []
    found += list(_of_attribute(task, labelled))
    found += _of_strength(trained, settings, task)
    found += [SCHEMES[scheme]] if scheme in SCHEMES else []
    return [*found, *out_of_time(trained, settings), *best_was_last(trained, settings)]


DOUBLED = (
    "The adversary's sign is turned twice, as in the public model: behind the reversal its loss is also subtracted. "
    f"The network helps the adversary, which climbs its own loss (clipped at {MOST_LOSS:g} a row): nothing is "
    "unlearned."
)


def _of_strength(trained: Trained, settings: Settings, task: AdversarialClassification) -> list[str]:
    """A warning where the weights that are kept met a weak adversary."""
    strength = task.strength(trained.best_step / settings.steps) if task.is_adversarial else task.lambda_adv
    if strength >= task.lambda_adv / 2:
        return []
    return [f"The weights that are kept are those of step {trained.best_step:,} of {settings.steps:,}, where the "
            f"reversal had a strength of {strength:.3g}, less than half of --task.lambda_adv {task.lambda_adv:g}: they "
            "were hardly trained against it. Leave out --watch and --patience to keep those of the last step, or add "
            "--no-task.ramp"]  # fmt: skip


def _of_attribute(task: AdversarialClassification, labelled: Labelled) -> list[str]:
    attribute, label = labelled.also_read(task.attribute), labelled.label
    if attribute is None:
        return []
    held = (attribute.codes != MISSING) & (label.codes != MISSING)
    pairs = np.unique(np.stack([label.codes[held], attribute.codes[held]]), axis=1)
    found = []
    if len(attribute.classes) < 2:
        found.append(f"{attribute.name} has {len(attribute.classes)} class: there is nothing to unlearn or to measure.")
    elif several := pairs.shape[1] - len(np.unique(pairs[0])):
        found.append(
            f"{label.name} has classes of several {attribute.name} ({several:,} more pairs than classes): they are "
            f"left out where leakage is read, which needs {label.name}s of one {attribute.name} to hold out."
        )
    else:
        found.append(
            f"{attribute.name} is a function of {label.name}: whoever tells the {label.name} knows it. What can be "
            f"unlearned is what {label.name}s of one {attribute.name} share; leakage is read in {label.name}s that "
            "were held out."
        )
    if missing := int((attribute.codes == MISSING).sum()):
        found.append(f"{missing:,} {labelled.judged.noun} have no known {attribute.name}: the adversary left them out.")
    return found


def attention_words(attention: Mapping[str, Any] | None, noun: str) -> list[str]:
    """A warning where every row has the same map of attention."""
    variation = None if attention is None else attention["variation"]
    if variation is None or variation >= CONSTANT:
        return []
    return [f"Attention between the latents is the same for all test {noun} (mean total variation {variation:.2g}): "
            "its map shows parameters, not cells."]  # fmt: skip


CONSTANT = 1e-3
