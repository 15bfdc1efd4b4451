"""Every classifier on one board: frozen layers read by probe or SVM beside fine-tuned and zero-shot models.

A run is taken apart by classifier, and each part is a run of its own whose scores bear no classifier's name: all stand
in one column, are picked and ranked on validation rows, and are subtracted draw by draw where rows, split and resamples
are the same ones.
"""

from collections.abc import Sequence
from dataclasses import replace

from xfm.core.metric import PRIMARY
from xfm.studies.compare.finished_run import CLASSIFIERS, UNREAD, Metric, Run


def by_classifier(runs: Sequence[Run], label: str) -> list[Run]:
    """The runs' parts, a classifier each, in the order of runs; only what is said of the label."""
    return [part for run in runs for task in CLASSIFIERS if (part := _part(run, task, label)).scores]


def frozen(run: Run) -> Run:
    """The run without the scores of classifiers that read no representation."""
    scores = [score for score in run.scores if score.metric.task not in UNREAD]
    return run if len(scores) == len(run.scores) else replace(run, scores=scores)


def comparable(parts: Sequence[Run]) -> bool:
    """Whether a board of them says more than the board of representations."""
    tasks = {part.classifier for part in parts}
    return len(tasks) > 1 or bool(tasks & set(UNREAD))


def _part(run: Run, task: str, label: str) -> Run:
    scores = [
        replace(score, metric=Metric("", score.metric.name))
        for score in run.scores
        if score.metric.task == task and score.label == label
    ]
    return replace(
        run, scores=scores, family=f"{run.family} {task}", classifier=task, chooses=Metric("", PRIMARY[task]),
        # A layer that another classifier chose is not this one's choice.
        choice=run.choice if run.chooses.task == task else {},
    )  # fmt: skip
