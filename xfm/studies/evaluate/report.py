"""The report of an evaluation: what was found in words, the tables, and what to know before believing them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xfm.core.metric import LEAKAGE
from xfm.core.parts import PARTS, TEST, TRAIN, Part
from xfm.core.report import Estimate, Report, Table
from xfm.judging.comparison import few_groups
from xfm.judging.eval_set import EvalSet
from xfm.judging.judge_within import WITHIN
from xfm.judging.probe import CLASSIFIER_WORDS
from xfm.judging.representations import Representation
from xfm.metrics.association import TIED, association
from xfm.studies.evaluate.headline import headline
from xfm.studies.evaluate.tables import label_tables, task_tables
from xfm.studies.evaluate.targets import target_cautions, target_choice, target_numbers, target_tables
from xfm.studies.evaluate.verdict import Scores, Verdict


def evaluate_report(
    run: Mapping[str, Any],
    judged: EvalSet,
    scores: Scores,
    verdicts: Sequence[Verdict],
    warnings: Sequence[str],
    refused: Mapping[str, int],
) -> Report:
    """What an `evaluate` found.

    Args:
        verdicts: one a label, the first of which makes the headline.
        warnings: what planning has to say, e.g. which baseline is not at hand.
    """
    first = verdicts[0]
    by_name = {label.name: label for label in judged.labels}
    tables = [table for verdict in verdicts for table in label_tables(scores, judged, by_name[verdict.label], verdict)]
    tables += [*target_tables(scores, judged), *task_tables(scores, judged.noun), _split(judged)]
    train, validation, test = judged.split.cells()
    recipe = run["recipe"]
    return Report(
        title=f"What each layer knows of {', '.join(by_name)}",
        job="evaluate",
        headline=headline(scores, first),
        numbers={
            judged.noun: len(judged.rows),
            f"training {judged.noun}": train,
            f"validation {judged.noun}": validation,
            f"test {judged.noun}": test,
            "representations judged": len(scores.representations),
            **{
                f"{verdict.label} macro F1, chosen layer": _value(scores, verdict.chosen, verdict)
                for verdict in verdicts
            },
            **{
                f"{verdict.label} macro F1, last layer": _value(scores, verdict.last, verdict)
                for verdict in verdicts
                if verdict.last is not None and verdict.is_last
            },
            **_beside(scores, judged, first),
            **target_numbers(scores, judged),
        },
        tables=tables,
        warnings=[*warnings, *_cautions(judged, scores), *target_cautions(judged)],
        provenance={
            "choice": {
                verdict.label: {
                    "representation": verdict.chosen.name,
                    "chosen_on": "validation",
                    "by": f"{verdict.by} macro F1",
                }
                for verdict in verdicts
            }
            | target_choice(scores, judged),
            "weights": run.get("origin", {}).get("weights", {}),
            "data": recipe["data"],
            judged.noun: {f"sha256 of {judged.noun} and labels": recipe["cells"]},
            "versions": run["versions"],
        },
        refused=dict(refused),
    )


def nothing_judged(run: Mapping[str, Any], refused: Mapping[str, int]) -> Report:
    """The report where no representation could be scored."""
    return Report(
        title="Nothing was judged",
        job="evaluate",
        headline="No layer could be scored; each one's reason stands in quarantine.jsonl.",
        provenance={"data": run["recipe"]["data"], "versions": run["versions"]},
        refused=dict(refused),
    )


def _value(scores: Scores, representation: Representation, verdict: Verdict) -> Estimate | float:
    row = scores.primary(representation.name, verdict.label, "test")
    assert row is not None
    assert row.estimate is not None
    return row.estimate


def _beside(scores: Scores, judged: EvalSet, verdict: Verdict) -> dict[str, Estimate | float]:
    """Of the chosen layer: accuracy among the classes of the own set, and what it leaks; where they were asked for."""
    wanted = {}
    if judged.within is not None:
        words = f"{verdict.label} accuracy within {judged.within.name}, chosen layer"
        wanted[words] = (verdict.by, verdict.label, WITHIN)
    if judged.attribute is not None:
        wanted[f"AUROC of {judged.attribute.name}, chosen layer"] = (LEAKAGE, judged.attribute.name, "auroc")
    rows = {words: scores.get(verdict.chosen.name, *key, "test") for words, key in wanted.items()}
    found = {words: row.estimate for words, row in rows.items() if row is not None}
    return {words: estimate for words, estimate in found.items() if estimate is not None}


def _split(judged: EvalSet) -> Table:
    groups = [len(np.unique(judged.split.groups[judged.split.where(part)])) for part in PARTS]
    columns = [np.bincount(judged.split.parts[label.codes >= 0], minlength=len(Part)) for label in judged.labels]
    return Table(
        name="split",
        caption="Who was fitted on, chosen on and scored",
        columns=["part", judged.noun, "groups", *(f"with {label.name}" for label in judged.labels)],
        rows=[
            [part.word, cells, groups[part], *(int(column[part]) for column in columns)]
            for part, cells in zip(PARTS, judged.split.cells(), strict=True)
        ],
    )


def _cautions(judged: EvalSet, scores: Scores) -> Iterator[str]:
    n_test = len(np.unique(judged.split.groups[judged.split.where(TEST)]))
    if few := few_groups(n_test):
        yield f"{few} Raise --test."
    for label in judged.labels:
        if judged.batch is not None and (strength := association(judged.batch.codes, label.codes)) >= TIED:
            yield (
                f"{judged.batch.name} and {label.name} go together (Cramér's V {strength:.2f}, 1 where one tells the "
                f"other): a layer that knows {judged.batch.name} alone tells {label.name}, and mixing of batches is "
                f"mixing of {label.name}."
            )
        held = label.codes >= 0
        classes = [np.unique(label.codes[held & (judged.split.parts == part)]) for part in (TRAIN, TEST)]
        unseen = [label.classes[number] for number in np.setdiff1d(classes[1], classes[0])]
        if unseen:
            yield f"{label.name}: nothing in training is {_listed(unseen)}; such test {judged.noun} count as missed."
        if label.left_out:
            small = [f"{name} ({size})" for name, size in label.left_out.items()]
            yield f"{label.name}: classes with too few {judged.noun} are left out: {_listed(small)}."
        if label.missing:
            yield f"{label.name}: {label.missing:,} {judged.noun} have no value and are not scored."
    for task, words in CLASSIFIER_WORDS.items():
        slow = {key[0] for key, row in scores.rows.items() if key[1] == task and "not converged" in row.note}
        if slow:
            yield f"The {words} of {_listed(sorted(slow))} had not converged when it was stopped."


def _listed(names: Sequence[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
