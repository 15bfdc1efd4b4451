"""The report of a search: what it gained over the job as it was given, on the rows it was allowed to look at.

A search for two scores also shows the front: the trials that no other is as good as in both and better than in one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xfm.core.report import Figure, Report, Table
from xfm.plots.search import Dot, FrontScore, Pair, SearchedField, draw_fields, draw_front, draw_objective
from xfm.studies.tune.trials import DEFAULT, Aim, Trial, best_of, front_of

SHOWN = 200  # trials in the table


def tune_report(
    trials: Sequence[Trial],
    aim: Aim,
    fields: Mapping[str, bool],
    defaults: Mapping[str, Any],
    run: Mapping[str, Any],
    rows: tuple[int, int],
    refused: Mapping[str, int],
    *,
    title: str = "fine-tuning",
    script: str = "finetune",
) -> Report:
    """What a search left behind.

    Args:
        trials: all, in order; one of them has finished at least.
        fields: that were searched; whether on a logarithmic scale.
        title, script: what the searched job does, and its file below jobs/.
    """
    best = best_of(trials, aim)
    assert best is not None
    counts = {status: sum(trial.status == status for trial in trials) for status in ("finished", "pruned", "failed")}
    value, given = aim.best(best.history), _default(trials, aim)
    numbers: dict[str, Any] = {
        "trials": len(trials),
        **{status: count for status, count in counts.items() if count},
        f"best {aim.metric}": value,
        **({f"{aim.metric} of the default settings": given} if given is not None else {}),
        **({"trials on the front": len(front_of(trials, aim))} if aim.also is not None else {}),
        "training rows": rows[0],
        "validation rows": rows[1],
        "training seconds": round(sum(trial.seconds for trial in trials), 1),
    }
    recipe = run["recipe"]
    return Report(
        title=f"Search of settings for {title}",
        job="tune",
        headline=_headline(trials, best, aim),
        numbers=numbers,
        tables=[
            _best_table(best, defaults, fields),
            *([_front_table(trials, aim, list(fields), defaults)] if aim.also is not None else []),
            _table(trials, aim, list(fields), defaults, best),
        ],
        warnings=_warnings(trials, aim, counts, len(fields), script),
        provenance={"weights": recipe["weights"], "data": recipe["data"], "versions": run["versions"]},
        refused=dict(refused),
    )


def _headline(trials: Sequence[Trial], best: Trial, aim: Aim) -> str:
    gained = _gain(trials, best, aim)
    if aim.also is None:
        return gained
    front = front_of(trials, aim)
    first, last = (aim.values(trial.history) for trial in (front[0], front[-1]))
    assert first is not None
    assert last is not None
    names, one = f"{aim.metric} and {aim.also.metric}", front[0].number
    if len(front) == 1:
        return f"{gained} No trial is better in {names} than trial {one}: {first[0]:.4g} and {first[1]:.4g}."
    return (
        f"{gained} {len(front)} trials are on the front of {names}, from {first[0]:.4g} and {first[1]:.4g} (trial "
        f"{one}) to {last[0]:.4g} and {last[1]:.4g} (trial {front[-1].number})."
    )


def _gain(trials: Sequence[Trial], best: Trial, aim: Aim) -> str:
    value, given = aim.best(best.history), _default(trials, aim)
    assert value is not None
    if given is None:
        return (
            f"Of {len(trials)} trials, trial {best.number} reached the best {aim.metric}, {value:.4g}; the default "
            "settings failed, so there is nothing to compare it with."
        )
    if best.number == DEFAULT:
        return f"None of {len(trials) - 1} trials was better than the default settings, {aim.metric} {given:.4g}."
    return (
        f"The best of {len(trials)} trials reached a {aim.metric} of {value:.4g}, the default settings {given:.4g}: "
        f"{abs(value - given):.2g} {'lower' if aim.is_lower_better else 'higher'}, on the rows it was chosen by."
    )


def _warnings(trials: Sequence[Trial], aim: Aim, counts: Mapping[str, int], fields: int, script: str) -> list[str]:
    said = [
        f"{aim.metric} of the best of {len(trials)} trials is a maximum, and so too good: the settings were chosen by "
        f"it. What they are worth, the test rows say, which this search has not read: run jobs/{script}.py with "
        "best.yaml, and once more with the default settings."
    ]
    if aim.also is not None:
        said.append("A front of trials is made of maxima, too: train its presets with several seeds before preferring "
                    "one to another.")  # fmt: skip
    if counts["failed"]:
        first = next(trial for trial in trials if trial.status == "failed")
        said.append(f"{counts['failed']} of {len(trials)} trials failed, the first (trial {first.number}) because: "
                    f"{first.reason}")  # fmt: skip
    if _default(trials, aim) is None:
        said.append("The default settings failed: nobody knows what the search gained.")
    if len(trials) - 1 < 5 * fields:
        said.append(f"{len(trials) - 1} trials look at {fields} fields: that is few, another seed may find others.")
    return said


def _best_table(best: Trial, defaults: Mapping[str, Any], fields: Mapping[str, bool]) -> Table:
    found = {field: (best.value_of(field, defaults), defaults.get(field)) for field in fields}
    return Table(
        name="best_summary",
        caption=f"The best settings (trial {best.number}), written to best.yaml",
        columns=["field", "best", "default"],
        rows=[[field, *(str(_cell(value)) for value in values)] for field, values in found.items()],
    )


def _front_table(trials: Sequence[Trial], aim: Aim, fields: Sequence[str], defaults: Mapping[str, Any]) -> Table:
    front = front_of(trials, aim)
    return Table(
        name="front_summary",
        caption="The front: no other trial is as good in both scores and better in one; presets in front/",
        columns=["trial", *(f"{each.metric} ({each.direction})" for each in aim.each), *fields],
        rows=[[trial.number, *_scores(trial, aim), *_drawn(trial, fields, defaults)] for trial in front],
        note=f"Both are of the weights that are kept: those of the best {aim.metric}.",
    )


def _drawn(trial: Trial, fields: Sequence[str], defaults: Mapping[str, Any]) -> list[Any]:
    return [_cell(trial.value_of(field, defaults)) for field in fields]


def _table(trials: Sequence[Trial], aim: Aim, fields: Sequence[str], defaults: Mapping[str, Any], best: Trial) -> Table:
    def order(trial: Trial) -> tuple[int, float, int]:
        value = aim.best(trial.history)
        rank = ("finished", "pruned", "failed", "running").index(trial.status)
        return rank, -aim.merit(value) if value is not None else 0.0, trial.number

    ranked = sorted(trials, key=order)[:SHOWN]
    rows = [
        [trial.number, trial.status, *_scores(trial, aim), trial.epochs, trial.seconds,
         *_drawn(trial, fields, defaults)]
        for trial in ranked
    ]  # fmt: skip
    return Table(
        name="trials",
        caption=f"All trials by their best {aim.metric} on validation rows",
        columns=["trial", "status", *(each.metric for each in aim.each), "epochs", "seconds", *fields],
        rows=rows,
        note="Trial 0 is the job as it was given. Pruned trials were behind others at the same epoch and were given "
        "up: their value is how far they had come."
        + (f" The first {SHOWN} of {len(trials)}; all are in trials.parquet." if len(trials) > SHOWN else ""),
        best=ranked.index(best),
    )


def _scores(trial: Trial, aim: Aim) -> list[float | None]:
    return list(aim.values(trial.history) or [None] * len(aim.each))


def _default(trials: Sequence[Trial], aim: Aim) -> float | None:
    """What the job as it was given reached; None where it did not run to its end."""
    found = [trial for trial in trials if trial.number == DEFAULT and trial.status == "finished"]
    return aim.best(found[0].history) if found else None


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def draw(
    trials: Sequence[Trial], aim: Aim, fields: Mapping[str, bool], defaults: Mapping[str, Any], folder: Path
) -> list[Figure]:
    """The objective by trial, and against each field; of two scores first the front."""
    dots = [Dot(trial.number, aim.best(trial.history), trial.status) for trial in trials]
    objective = draw_objective(
        folder, "objective", dots, metric=aim.metric, is_lower_better=aim.is_lower_better,
        title="Search",
        caption="Each trial's best value on validation rows: filled dots ran to their end, hollow ones were pruned, "
        "crosses failed before they measured anything. The diamond is the job as it was given.",
    )  # fmt: skip
    searched = [
        SearchedField(name, [trial.value_of(name, defaults) for trial in trials], is_log)
        for name, is_log in fields.items()
    ]
    against = draw_fields(
        folder, "fields", dots, searched, metric=aim.metric,
        caption="The same values against each field that was searched, one by one: what two of them do together is not "
        "seen here.",
    )  # fmt: skip
    return [objective, against] if aim.also is None else [_front(trials, aim, aim.also, folder), objective, against]


def _front(trials: Sequence[Trial], aim: Aim, also: Aim, folder: Path) -> Figure:
    front = {trial.number for trial in front_of(trials, aim)}
    pairs = []
    for trial in trials:
        up, across = aim.values(trial.history) or (None, None)
        pairs.append(Pair(trial.number, across, up, trial.status, trial.number in front))
    scores = [FrontScore(each.metric, each.is_lower_better, each.near) for each in (also, aim)]
    return draw_front(
        folder, "front", pairs, across=scores[0], up=scores[1], title="Front",
        caption=f"{aim.metric} against {also.metric} of each trial, both of the weights that are kept. Blue, with "
        "their numbers: the front, which no other trial beats in both; the line is what was attained. Grey: beaten. "
        "The diamond is the job as it was given.",
    )  # fmt: skip
