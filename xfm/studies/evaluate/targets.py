"""What an evaluation says of numbers: the layer that validation rows choose by R², every score, and the layer curve."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.metric import PRIMARY, words_of
from xfm.core.report import Estimate, Figure, Table
from xfm.judging.eval_set import EvalSet, Targets
from xfm.judging.representations import MEAN, RANDOM, Representation
from xfm.judging.ridge import RIDGE
from xfm.metrics.regression import SCORES
from xfm.plots.layer_curve import Baseline, Mark, Series, draw_layer_curve
from xfm.studies.evaluate.headline import file_name, name_of
from xfm.studies.evaluate.verdict import Scores

BY = PRIMARY[RIDGE]
ORDER = {"baseline": 0, "layer": 1, "combination": 2}
NAMES = {MEAN: "mean of training rows"}


def chosen_layer(scores: Scores, target: str, kind: str = "layer", place: str = "") -> Representation | None:
    """The layer with the best R² on validation rows, the earlier of two equal ones; None where none was scored."""
    found: tuple[float, Representation] | None = None
    for each in scores.representations:
        row = scores.get(each.name, RIDGE, target, BY, "validation")
        is_meant = each.kind == kind and place in ("", each.place)
        if is_meant and row is not None and row.value is not None and (found is None or row.value > found[0]):
            found = row.value, each
    return None if found is None else found[1]


def target_choice(scores: Scores, judged: EvalSet) -> dict[str, dict[str, str]]:
    """{column: what was chosen, on what, by what}, as a report's provenance keeps it."""
    chosen = {target.name: chosen_layer(scores, target.name) for target in judged.targets}
    return {
        name: {"representation": each.name, "chosen_on": "validation", "by": f"{RIDGE} {words_of(BY, RIDGE)}"}
        for name, each in chosen.items()
        if each is not None
    }


def target_numbers(scores: Scores, judged: EvalSet) -> dict[str, Estimate | float]:
    """Test scores of the chosen layer of each target."""
    found: dict[str, Estimate | float] = {}
    for target in judged.targets:
        chosen = chosen_layer(scores, target.name)
        for metric in ("r2", "mae") if chosen is not None else ():
            assert chosen is not None
            row = scores.get(chosen.name, RIDGE, target.name, metric, "test")
            if row is not None and row.estimate is not None:
                found[f"{target.name} {words_of(metric)}, chosen layer"] = row.estimate
    return found


def target_tables(scores: Scores, judged: EvalSet) -> Iterator[Table]:
    """A table for each target: every representation on test rows, the chosen layer in bold."""
    for target in judged.targets:
        chosen = chosen_layer(scores, target.name)
        random = chosen_layer(scores, target.name, "baseline", RANDOM)
        shown = [
            each for each in sorted(scores.representations, key=lambda each: (ORDER[each.kind], each.place == RANDOM))
            if scores.get(each.name, RIDGE, target.name, BY, "validation") and (each.place != RANDOM or each is random)
        ]  # fmt: skip
        rows: list[list[Any]] = []
        for each in shown:
            validation = scores.get(each.name, RIDGE, target.name, BY, "validation")
            test = [scores.get(each.name, RIDGE, target.name, metric, "test") for metric in SCORES]
            assert validation is not None
            values = [row.estimate if row is not None else None for row in test]
            rows.append([NAMES.get(each.name, name_of(each)), validation.value, *values, each.kind, validation.note])
        if not rows:
            continue
        yield Table(
            name=f"{file_name(target.name)}_ridge_summary",
            caption=f"{target.name}: predicted by ridge regression, test {judged.noun}, 95 % intervals over groups",
            columns=["representation", f"{words_of(BY)} on validation", *map(words_of, SCORES), "kind", "note"],
            rows=rows,
            note=f"{words_of('mae')} is in the unit of {target.name}. {words_of(BY)} on validation {judged.noun} chose "
            f"the bold layer; test {judged.noun} were scored once.",
            best=shown.index(chosen) if chosen is not None else None,
        )


def target_cautions(judged: EvalSet) -> Iterator[str]:
    """What a reader must know of the targets."""
    for target in judged.targets:
        if target.missing:
            yield f"{target.name}: {target.missing:,} {judged.noun} have no value and are not scored."
        if target.odd:
            yield (f"{target.name}: {target.odd:,} {judged.noun} have a value that is no finite number (e.g. "
                   f"{target.example!r}) and are not scored.")  # fmt: skip


def draw_targets(scores: Scores, judged: EvalSet, folder: Path) -> list[Figure]:
    """A layer curve for each target whose layers have numbers."""
    figures = []
    for target in judged.targets:
        layers = [each for each in scores.representations if each.kind == "layer" and each.layer is not None]
        series = [_series(scores, [each for each in layers if each.pool == pool], target, pool)
                  for pool in dict.fromkeys(str(each.pool) for each in layers)]  # fmt: skip
        if not any(np.isfinite(each.values).any() for each in series):
            continue
        baselines = []
        for each in scores.representations:
            row = scores.get(each.name, RIDGE, target.name, BY, "test")
            if each.kind == "baseline" and each.place != RANDOM and row is not None and row.value is not None:
                words = NAMES.get(each.name, name_of(each))
                baselines.append(Baseline(words, row.value, row.low, row.high))
        chosen = chosen_layer(scores, target.name)
        marks = []
        if chosen is not None and chosen.layer is not None:
            marks = [Mark(str(chosen.pool), chosen.layer, f"chosen on validation: layer {chosen.layer}")]
        figures.append(
            draw_layer_curve(
                folder, f"{file_name(target.name)}_{BY}", series, baselines, marks=marks,
                metric=f"{words_of(BY)} of ridge regression", higher_is_better=True,
                title=f"How well each layer predicts {target.name}",
                caption=f"{words_of(BY)} of ridge regression for {target.name} at every layer, with 95 % intervals "
                f"over groups of {judged.noun}; grey: baselines. Only the order on validation {judged.noun} chose the "
                "layer.",
            )
        )  # fmt: skip
    return figures


def _series(scores: Scores, layers: Sequence[Representation], target: Targets, pool: str) -> Series:
    rows = [scores.get(each.name, RIDGE, target.name, BY, "test") for each in layers]
    ends = [(row.value, row.low, row.high) if row is not None else (None,) * 3 for row in rows]
    value, low, high = ([np.nan if end is None else float(end) for end in column] for column in zip(*ends, strict=True))
    return Series(pool, [each.layer or 0 for each in layers], value, low, high)
