"""Every metric: its name in stored scores, its words for people, which way is better, and where it is the headline.

A metric is a function that computes it, and a record here. Scores under another name, of a later version or of another
project, are stored, shown and compared, but nothing is ranked by them: which way is better is not guessed.
"""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric."""

    name: str  # as tables of scores and records of training store it
    words: str  # for people: a heading, a label of an axis, a number in a report
    family: str  # what kind of question it answers
    # higher, lower, or the value that the nearest is best to; None for what only describes
    better: Literal["higher", "lower"] | float | None
    headline: tuple[str, ...] = ()  # tasks whose boards show it where no other is asked for
    # the only tasks it is meant for; empty for all but those that have records of their own
    tasks: tuple[str, ...] = ()

    def cost(self, value: float) -> float:
        """The lower the better.

        Raises:
            ValueError: neither way is better.
        """
        if self.better is None:
            raise ValueError(f"{self.name}: neither more nor less of it is better")
        if isinstance(self.better, float):
            return abs(value - self.better)
        return value if self.better == "lower" else -value


# What a fresh classifier reads of what should not be told, and, after training, of the label and of the data set.
LEAKAGE, FRESH = "leakage", "fresh_probe"
METRICS = (
    Metric("f1", "macro F1", "classification", "higher", headline=("probe", "svm", "knn", "finetune")),
    Metric("accuracy", "accuracy", "classification", "higher", headline=("zero_shot",)),
    Metric("balanced_accuracy", "balanced accuracy", "classification", "higher"),
    Metric("weighted_f1", "weighted F1", "classification", "higher"),
    Metric("precision", "macro precision", "classification", "higher"),
    Metric("recall", "macro recall", "classification", "higher"),  # of tables: stored as balanced_accuracy
    Metric("within_accuracy", "accuracy within the data set", "classification", "higher"),
    Metric("acc5", "top-5 accuracy", "classification", "higher"),
    Metric("log_loss", "log loss", "calibration", "lower"),
    Metric("ece", "calibration error (15 bins)", "calibration", "lower"),
    Metric("normalized_mutual_info", "NMI", "clustering", "higher", headline=("clustering",)),
    Metric("adjusted_rand_index", "ARI", "clustering", "higher"),
    Metric("silhouette_score", "silhouette", "clustering", "higher"),
    Metric("asw_label", "ASW of labels", "clustering", "higher"),
    Metric("graph_connectivity", "graph connectivity", "clustering", "higher"),
    Metric("asw_batch", "ASW of batches", "integration", "higher", headline=("integration",)),
    Metric("pcr", "PCR", "integration", "lower"),
    Metric("pcr_comparison", "PCR comparison", "integration", "higher"),
    Metric("ilisi", "iLISI", "integration", "higher"),
    Metric("clisi", "cLISI", "integration", "higher"),
    Metric("kbet", "kBET", "integration", "higher"),
    Metric("entropy_per_cell", "entropy of batches", "integration", "higher"),
    Metric("spearman", "Spearman", "trajectory", "higher", headline=("trajectory",)),
    Metric("spearman_exact", "Spearman, exact", "trajectory", "higher"),
    Metric("partial_spearman", "Spearman given depth", "trajectory", "higher"),
    Metric("kendall", "Kendall's tau", "trajectory", "higher"),
    Metric("unreachable", "unreachable", "trajectory", "lower"),
    Metric("auroc", "AUROC", "leakage", 0.5, headline=(LEAKAGE,), tasks=(LEAKAGE,)),
    Metric("balanced_accuracy", "balanced accuracy", "leakage", "lower", tasks=(LEAKAGE,)),
    Metric("auroc", "AUROC", "leakage", 0.5, tasks=(FRESH,)),
    Metric("accuracy", "accuracy", "classification", "higher", tasks=(FRESH,)),
    # Of the label more is better, of the data set less: the name does not say which was read.
    Metric("balanced_accuracy", "balanced accuracy", "classification", None, tasks=(FRESH,)),
    Metric("leakage_auroc", "leakage AUROC", "leakage", 0.5),
    Metric("r2", "R²", "regression", "higher", headline=("ridge",)),
    Metric("mse", "MSE", "regression", "lower"),
    Metric("mae", "MAE", "regression", "lower"),
    Metric("pearson", "Pearson", "regression", "higher"),
    Metric("skill", "skill", "regression", "higher"),
    Metric("retrieval", "R@1", "retrieval", "higher"),
    Metric("retrieval_macro", "R@1, mean over types", "retrieval", "higher"),
    Metric("margin_accuracy", "margin accuracy", "retrieval", "higher"),
    Metric("fused_margin_accuracy", "margin accuracy of fused pairs", "retrieval", "higher"),
    Metric("alignment", "alignment, mean d²", "retrieval", "lower"),
    Metric("uniformity", "uniformity, log mean exp(-2 d²)", "retrieval", "lower"),
    Metric("modality_gap", "modality gap", "retrieval", None),
    Metric("loss", "loss", "training", "lower"),
    Metric("seconds", "seconds", "training", "lower"),
)
# The number that stands for a task where no other is asked for.
PRIMARY = {task: metric.name for metric in METRICS for task in metric.headline}
# Tasks in words, where their names are none.
TASK_WORDS = {"svm": "SVM", "knn": "kNN", "finetune": "fine-tuned", "zero_shot": "zero-shot"}


def find_metric(name: str, task: str = "") -> Metric | None:
    """The record of a score; None for one that this version does not know."""
    own = [metric for metric in METRICS if task in metric.tasks]
    return next((metric for metric in own or METRICS if metric.name == name and (own or not metric.tasks)), None)


def words_of(name: str, task: str = "") -> str:
    """A metric as a heading; an unknown one by its name."""
    known = find_metric(name, task)
    return name if known is None else known.words


def find_reported(number: str) -> Metric | None:
    """The metric of a number that a report states, e.g. `test macro F1, mean` or `validation_loss`.

    What a comma follows ends with the metric's words or name. A spread (`, sd`) is no metric's number.
    """
    said, _, of = number.partition(",")
    if of.strip() == "sd":
        return None
    said = f" {said}".replace("_", " ").lower()
    ends = {end.replace("_", " ").lower(): metric for metric in METRICS if not metric.tasks
            for end in (metric.name, metric.words.partition(",")[0])}  # fmt: skip
    found = [end for end in ends if said.endswith(f" {end}")]
    return ends[max(found, key=len)] if found else None
