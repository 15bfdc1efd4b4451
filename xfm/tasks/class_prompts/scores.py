"""What an adapted CLIP scores at every share of its update, and the share that validation chooses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.metric import words_of
from xfm.core.parts import TEST, VALIDATION
from xfm.core.random import rng_for
from xfm.core.report import Estimate
from xfm.judging.classifier_scores import TASK, predicted
from xfm.judging.comparison import Comparison, compared
from xfm.judging.eval_set import MISSING
from xfm.judging.judge import classifier_scores
from xfm.judging.labelled import Labelled
from xfm.judging.probe import Prediction, guessed, largest_class
from xfm.judging.representations import CHANCE, MAJORITY, Representation
from xfm.judging.score import table_of
from xfm.metrics.classification import bootstrap_scores
from xfm.metrics.paired import bootstrap_difference, permutation_test
from xfm.metrics.resampling import GroupDraws, Resampled, estimate
from xfm.models.clip.prompts import Prompts

# Shapes: N rows, K classes, A shares of the update.
ADAPTED, ZERO_SHOT = "finetuned_lora", "zero_shot"
SCORES = {name: words_of(name) for name in ("accuracy", "balanced_accuracy")}


@dataclass(frozen=True, slots=True)
class ShareScores:
    """Of one set of images at every share."""

    accuracy: tuple[Resampled, ...]  # accuracy, recall: by share; `recall` is the mean over classes
    recall: tuple[Resampled, ...]


@dataclass(frozen=True, slots=True)
class Adapted:
    """All there is to say of the shares."""

    shares: tuple[float, ...]  # (A,) rising from 0
    chosen: int  # position of the share that validation chooses; the last one where there are no validation images
    validation: ShareScores | None  # validation, test: scores of the images; validation is None without any
    test: ShareScores
    forgetting: ShareScores | None  # of the other images, None where there are none
    difference: dict[str, Comparison]  # chosen share minus zero-shot on test images, by metric of SCORES

    @property
    def share(self) -> float:
        """The chosen one."""
        return self.shares[self.chosen]


def arranged(prompts: Prompts, classes: Sequence[str]) -> Prompts:
    """The same sentences in the order of the label's classes, those that no row has behind them."""
    order = [prompts.values.index(value) for value in classes if value in prompts.values]
    order += [place for place, value in enumerate(prompts.values) if value not in classes]
    values, names = (tuple(each[place] for place in order) for each in (prompts.values, prompts.names))
    return Prompts(values, names, tuple(prompts.texts[place] for place in order))


def with_all_classes(labelled: Labelled, prompts: Prompts) -> Labelled:
    """The rows, their label knowing every class that is asked for, as `arranged` orders them.

    Rows of other classes have none then, and are counted in a warning.
    """
    label, noun = labelled.label, labelled.judged.noun
    places = [prompts.values.index(value) if value in prompts.values else MISSING for value in label.classes]
    codes = np.array([*places, MISSING], np.int32)[label.codes]
    warnings = labelled.warnings
    if lost := int(((codes == MISSING) & (label.codes != MISSING)).sum()):
        strangers = [value for value in label.classes if value not in prompts.values]
        warnings += (
            f"{lost:,} {noun} are of none of the {len(prompts.values)} classes ({', '.join(strangers[:5])}) and were "
            "left out.",
        )
    judged = replace(labelled.judged, labels=(replace(label, codes=codes, classes=prompts.values),))
    return replace(labelled, judged=judged, warnings=warnings)


def at_share(outcome: Mapping[str, Any], place: int) -> dict[str, NDArray[np.float32]]:
    """Logits of validation and test rows at one share."""
    return {name: outcome[name][place] for name in ("validation", "test")}


def adapted_scores(outcome: Mapping[str, Any], labelled: Labelled, shares: Sequence[float]) -> Adapted:
    """Scores at every share, and the choice among them.

    The share with the best validation accuracy is chosen; of equals the smallest, nearest to the pretrained network.
    """
    judged, label = labelled.judged, labelled.label
    k = len(label.classes)
    found: dict[str, list[dict[str, Resampled]]] = {"validation": [], "test": []}
    predictions: list[Prediction] = [predicted(at_share(outcome, place), labelled) for place in range(len(shares))]
    for part in (VALIDATION, TEST):
        rows = labelled.held(part)
        if not len(rows):
            continue
        draws = GroupDraws(judged.split.groups[rows], judged.seed, judged.resamples)
        found[part.word] = [
            bootstrap_scores(label.codes[rows], getattr(prediction, part.word), k, draws) for prediction in predictions
        ]
    validation, test = (_share_scores(found[name]) for name in ("validation", "test"))
    assert test is not None
    chosen = len(shares) - 1
    if validation is not None:
        chosen = int(np.argmax([resampled.value for resampled in validation.accuracy]))
    held = labelled.held(TEST)
    groups = judged.split.groups[held]
    n_groups, difference = len(np.unique(groups)), {}
    for metric, side in (("accuracy", test.accuracy), ("balanced_accuracy", test.recall)):
        pair = bootstrap_difference(side[chosen].draws, side[0].draws, side[chosen].value, side[0].value, n_groups)
        p = permutation_test(
            label.codes[held], predictions[chosen].test, predictions[0].test, k, groups, metric,
            rng_for(judged.seed, f"adapted {metric}"),
        )  # fmt: skip
        difference[metric] = compared(ADAPTED, ZERO_SHOT, pair, p, n_groups)
    return Adapted(tuple(shares), chosen, validation, test, _forgetting(outcome, judged.seed), difference)


def score_table(outcome: Mapping[str, Any], labelled: Labelled, adapted: Adapted) -> pa.Table:
    """Rows of `evaluation.judge.SCHEMA`: the chosen share, zero-shot, every other share, and guesses."""
    judged, label = labelled.judged, labelled.label
    held = np.flatnonzero(label.codes != MISSING)
    codes, parts = label.codes[held], judged.split.parts[held]
    found = {(ADAPTED, "layer"): predicted(at_share(outcome, adapted.chosen), labelled, f"share {adapted.share:g}")}
    for place, share in enumerate(adapted.shares):
        if place != adapted.chosen or share == 0:
            name, kind = (ZERO_SHOT, "baseline") if share == 0 else (f"{ADAPTED}_share_{share:g}", "layer")
            found[(name, kind)] = predicted(at_share(outcome, place), labelled, f"share {share:g}")
    found[(MAJORITY, "baseline")] = largest_class(codes, parts)
    found[(CHANCE, "baseline")] = guessed(codes, parts, rng_for(judged.seed, f"chance\x1f{label.name}"))
    return pa.concat_tables(
        table_of(
            Representation(name, kind, "none", "", ()),  # type: ignore[arg-type]
            classifier_scores(TASK, prediction, judged, label),
        )
        for (name, kind), prediction in found.items()
    )


def shown(resampled: Resampled) -> Estimate | float:
    """A score with its interval, where it has one."""
    return estimate(*resampled) or resampled.value


def _share_scores(found: Sequence[Mapping[str, Resampled]]) -> ShareScores | None:
    if not found:
        return None
    return ShareScores(*(tuple(each[metric] for each in found) for metric in SCORES))


def _forgetting(outcome: Mapping[str, Any], seed: int) -> ShareScores | None:
    if "forgetting" not in outcome:
        return None
    codes = outcome["forgetting_codes"]
    rows = np.flatnonzero(codes != MISSING)
    k, draws = outcome["forgetting"].shape[-1], GroupDraws(rows, seed)
    return _share_scores(
        [
            bootstrap_scores(codes[rows], logits[rows].argmax(axis=1).astype(np.int64), k, draws)
            for logits in outcome["forgetting"]
        ]
    )
