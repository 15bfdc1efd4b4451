"""The report of a zero-shot job: the sentence, its numbers, the tables, and what was asked of which rows."""

from collections.abc import Mapping, Sequence
from typing import Any

from xfm.core.metric import words_of
from xfm.core.report import Report
from xfm.models.clip.prompts import Prompts
from xfm.studies.zero_shot.classifier import FILE, TextClassifier
from xfm.studies.zero_shot.headline import cautions, headline
from xfm.studies.zero_shot.rows import ZERO_SHOT
from xfm.studies.zero_shot.scores import Question, Results
from xfm.studies.zero_shot.tables import tables

MOST_LISTED = 2000  # prompts on the page; more stand in their file alone
NUMBERS = ("accuracy", "acc5", "balanced_accuracy", "ece")


def zero_shot_report(
    run: Mapping[str, Any],
    question: Question,
    results: Results,
    classifier: TextClassifier,
    *,
    scale: float,
    rows: str,
    group: str | None,
    notes: Sequence[str],
    warnings: Sequence[str],
    refused: Mapping[str, int],
    seconds: float,
) -> Report:
    """What a `zero_shot` found.

    Args:
        rows: which rows were scored, in words.
        notes: of the user, e.g. published numbers of other weights.
        warnings: what the job has to say, e.g. which baseline is not at hand.
        seconds: that this start spent on scoring.
    """
    noun, recipe, prompts = question.judged.noun, run["recipe"], question.prompts
    numbers: dict[str, Any] = {f"{noun} scored": len(question.test()), "classes": question.n_classes}
    numbers["prompts"] = sum(map(len, prompts.texts))
    for metric in NUMBERS:
        found = results.estimate(ZERO_SHOT, metric)
        if found is not None:
            numbers[words_of(metric)] = found
    numbers["learned scale of cosines"] = scale
    if seconds:
        numbers["seconds"] = round(seconds, 1)
    cut = [f"Prompts longer than the text tower reads were cut: {classifier.cut:,}."] if classifier.cut else []
    return Report(
        title=f"Zero-shot classification of {question.label}",
        job="zero_shot",
        headline=headline(question, results),
        numbers=numbers,
        tables=list(tables(question, results)),
        warnings=[*notes, *warnings, *cut, *cautions(question, results, group)],
        provenance={
            "rows": {
                "scored": rows,
                "read": len(question.judged.rows),
                "sha256 of rows and labels": recipe["cells"],
                "sha256 of split and resamples": recipe["split"],
            },
            "classifier": {"file": FILE, "sha256": recipe["classifier"], "read by": dict(classifier.made_by)},
            "classes": dict(zip(prompts.values, prompts.names, strict=True)),
            "prompts": _asked(prompts),
            "weights": recipe["weights"],
            "checkpoint": run.get("checkpoint", {}),
            "data": recipe["data"],
            "versions": run["versions"],
        },
        refused=dict(refused),
    )


def _asked(prompts: Prompts) -> dict[str, Any]:
    """Every prompt, or where there are too many to read, where they stand."""
    if sum(map(len, prompts.texts)) > MOST_LISTED:
        return {"file": "prompts.json, and the header of classifier.safetensors"}
    return {value: list(texts) for value, texts in zip(prompts.values, prompts.texts, strict=True)}
