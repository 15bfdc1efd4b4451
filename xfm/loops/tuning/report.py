"""The report of a search: what it gained over the job as it was given, on the rows it was allowed to look at."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xfm.core.report import Figure, Report, Table
from xfm.loops.tuning.trials import DEFAULT, Aim, Trial, best_of
from xfm.plots.search import Dot, Searched, draw_fields, draw_objective

SHOWN = 200  # trials in the table


def tune_report(
    trials: Sequence[Trial],
    aim: Aim,
    fields: Mapping[str, bool],
    defaults: Mapping[str, Any],
    run: Mapping[str, Any],
    rows: tuple[int, int],
    refused: Mapping[str, int],
) -> Report:
    """What a search left behind.

    Args:
        trials: all, in order; one of them has finished at least.
        aim: what was searched for.
        fields: that were searched; whether on a logarithmic scale.
        defaults: their values in trial 0.
        run: content of run.json.
        rows: trained on, and compared on.
        refused: quarantine lines by code.
    """
    best = best_of(trials, aim)
    assert best is not None
    counts = {status: sum(trial.status == status for trial in trials) for status in ("finished", "pruned", "failed")}
    value, given = aim.best(best.history), _value(trials, DEFAULT, aim)
    numbers: dict[str, Any] = {
        "trials": len(trials),
        **{status: count for status, count in counts.items() if count},
        f"best {aim.metric}": value,
        **({f"{aim.metric} of the default settings": given} if given is not None else {}),
        "training rows": rows[0],
        "validation rows": rows[1],
        "training seconds": round(sum(trial.seconds for trial in trials), 1),
    }
    recipe = run["recipe"]
    return Report(
        title="Search of settings for fine-tuning",
        job="tune",
        headline=_headline(trials, best, aim),
        numbers=numbers,
        tables=[_best_table(best, defaults, fields), _table(trials, aim, list(fields), defaults, best)],
        warnings=_warnings(trials, aim, counts, len(fields)),
        provenance={"weights": recipe["weights"], "data": recipe["data"], "versions": run["versions"]},
        refused=dict(refused),
    )


def _headline(trials: Sequence[Trial], best: Trial, aim: Aim) -> str:
    value, given = aim.best(best.history), _value(trials, DEFAULT, aim)
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


def _warnings(trials: Sequence[Trial], aim: Aim, counts: Mapping[str, int], fields: int) -> list[str]:
    said = [
        f"{aim.metric} of the best of {len(trials)} trials is a maximum, and so too good: the settings were chosen by "
        "it. What they are worth, the test rows say, which this search has not read: run jobs/finetune.py with "
        "best.yaml, and once more with the default settings."
    ]
    if counts["failed"]:
        first = next(trial for trial in trials if trial.status == "failed")
        said.append(f"{counts['failed']} of {len(trials)} trials failed, the first (trial {first.number}) because: "
                    f"{first.reason}")  # fmt: skip
    if _value(trials, DEFAULT, aim) is None:
        said.append("The default settings failed: nobody knows what the search gained.")
    if len(trials) - 1 < 5 * fields:
        said.append(f"{len(trials) - 1} trials look at {fields} fields: that is few, another seed may find others.")
    return said


def _best_table(best: Trial, defaults: Mapping[str, Any], fields: Mapping[str, bool]) -> Table:
    rows = [[field, _cell((dict(defaults) | best.values).get(field)), _cell(defaults.get(field))] for field in fields]
    return Table(
        name="best_summary",
        caption=f"The best settings (trial {best.number}), written to best.yaml",
        columns=["field", "best", "default"],
        rows=[[str(cell) if place else cell for place, cell in enumerate(row)] for row in rows],
    )


def _table(trials: Sequence[Trial], aim: Aim, fields: Sequence[str], defaults: Mapping[str, Any], best: Trial) -> Table:
    def order(trial: Trial) -> tuple[int, float, int]:
        value = aim.best(trial.history)
        rank = ("finished", "pruned", "failed", "running").index(trial.status)
        return rank, -aim.merit(value) if value is not None else 0.0, trial.number

    ranked = sorted(trials, key=order)[:SHOWN]
    rows = [
        [trial.number, trial.status, aim.best(trial.history), trial.epochs, trial.seconds,
         *(_cell((dict(defaults) | trial.values).get(field)) for field in fields)]
        for trial in ranked
    ]  # fmt: skip
    return Table(
        name="trials",
        caption=f"All trials by their best {aim.metric} on validation rows",
        columns=["trial", "status", aim.metric, "epochs", "seconds", *fields],
        rows=rows,
        note="Trial 0 is the job as it was given. Pruned trials were behind others at the same epoch and were given "
        "up: their value is how far they had come."
        + (f" The first {SHOWN} of {len(trials)}; all are in trials.parquet." if len(trials) > SHOWN else ""),
        best=ranked.index(best),
    )


def _value(trials: Sequence[Trial], number: int, aim: Aim) -> float | None:
    found = [trial for trial in trials if trial.number == number and trial.status == "finished"]
    return aim.best(found[0].history) if found else None


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def draw(
    trials: Sequence[Trial], aim: Aim, fields: Mapping[str, bool], defaults: Mapping[str, Any], folder: Path
) -> list[Figure]:
    """The objective by trial, and against each field."""
    dots = [Dot(trial.number, aim.best(trial.history), trial.status) for trial in trials]
    objective = draw_objective(
        folder, "objective", dots, metric=aim.metric, is_lower_better=aim.is_lower_better,
        title="Search",
        caption="Each trial's best value on validation rows: filled dots ran to their end, hollow ones were pruned, "
        "crosses failed before they measured anything. The diamond is the job as it was given.",
    )  # fmt: skip
    searched = [
        Searched(name, [(dict(defaults) | trial.values).get(name) for trial in trials], is_log)
        for name, is_log in fields.items()
    ]
    against = draw_fields(
        folder, "fields", dots, searched, metric=aim.metric,
        caption="The same values against each field that was searched, one by one: what two of them do together is not "
        "seen here.",
    )  # fmt: skip
    return [objective, against]


def drawer(
    trials: Sequence[Trial], aim: Aim, fields: Mapping[str, bool], defaults: Mapping[str, Any]
) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, trials, aim, fields, defaults)
