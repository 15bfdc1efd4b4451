"""Which way is better is checked against the functions that compute metrics: what is right ranks above what is not."""

import numpy as np
import pytest
from sklearn.metrics import log_loss, r2_score

from xfm.core.metric import FRESH, LEAKAGE, METRICS, PRIMARY, find_metric, find_reported, words_of
from xfm.metrics import clustering, integration
from xfm.metrics.calibration import reliability
from xfm.metrics.classification import confusion_matrix, per_class, scores, seen_classes, within_predictions
from xfm.metrics.leakage import fresh_predictions, leakage, leakage_scores
from xfm.metrics.neighbours import neighbours
from xfm.metrics.regression import cell_sums, regression_scores
from xfm.metrics.resampling import GroupDraws
from xfm.metrics.trajectory import trajectory_scores
from xfm.metrics.zero_shot import is_hit
from xfm.tasks.alignment.outcome import space_scores

N, K = 240, 6
RNG = np.random.default_rng(0)
TRUTH = np.arange(N) % K
NOISE = RNG.integers(0, K, N)
DRAWS = GroupDraws(np.arange(N), 0, 2)


def classified(predicted):
    confusion = confusion_matrix(TRUTH, predicted, K)
    sets = TRUTH // 3
    inside = within_predictions(np.eye(K)[predicted], sets, seen_classes(sets, TRUTH, 2, K))
    ranked = np.stack([(predicted + shift) % K for shift in range(5)], axis=1)
    return scores(confusion) | {
        "recall": per_class(confusion)["recall"].mean(),
        "within_accuracy": (inside == TRUTH).mean(),
        "acc5": is_hit(TRUTH, ranked, 5).mean(),
    }


def calibrated(predicted, confidence):
    shares = np.full((N, K), (1 - confidence) / (K - 1))
    shares[np.arange(N), predicted] = confidence
    table = reliability(np.full(N, confidence), predicted == TRUTH)
    gaps = np.abs(np.nan_to_num(table.accuracy - table.confidence))
    return {"log_loss": log_loss(TRUTH, shares), "ece": (table.rows * gaps).sum() / table.rows.sum()}


def clustered(labels):
    vectors = (20 * np.eye(K)[TRUTH] + np.random.default_rng(1).normal(size=(N, K))).astype(np.float32)
    found = clustering.clustering_scores(vectors, neighbours(vectors, 15), labels, DRAWS)
    return {name: each.value for name, each in found.items()}


def integrated(shift, labels):
    """Two batches of cells with labels, apart by `shift`."""
    rng, batch = np.random.default_rng(2), np.random.default_rng(5).integers(0, 2, N)
    vectors = 20 * np.eye(K)[TRUTH] + rng.normal(size=(N, K))
    split = np.eye(K)[batch]
    before, after = (vectors + size * split for size in (100.0, shift))
    found = integration.integration_scores(
        after, neighbours(after, 200), batch, labels, DRAWS, before=before.astype(np.float32)
    )
    return {name: each.value for name, each in found.items()}


def ordered(pseudotime):
    times = np.arange(N) // 40
    found = {
        name: float(each.value)
        for name, each in trajectory_scores(pseudotime, times.astype(float), RNG.normal(size=N), DRAWS).items()
    }
    return found | {"spearman_exact": found["spearman"]}


def leaked(told):
    """Of an attribute of 24 groups, where features hold `told` of it."""
    groups = np.arange(N) // 10
    codes = groups % 2
    features = told * codes[:, None] + np.random.default_rng(3).normal(size=(N, 3))
    found = leakage_scores(leakage(features, codes, groups, 0), codes, GroupDraws(groups, 0, 2))
    return {name: float(each.value) for name, each in found.items()}


def read_anew(told):
    features = told * np.eye(K)[TRUTH] + np.random.default_rng(4).normal(size=(N, K))
    return {"accuracy": (fresh_predictions(features, TRUTH, 0) == TRUTH).mean(), "auroc": leaked(10 - told)["auroc"]}


def regressed(predicted):
    target = np.sin(np.arange(N))
    sums = cell_sums(predicted, target)[None]
    skill = {"skill": r2_score(target, predicted), "r2": regression_scores(target, predicted)["r2"]}
    n, squared, absolute = sums[:, :3].sum(axis=0)
    return {"mse": squared / n, "mae": absolute / n, "pearson": sums[0, 3]} | skill


def aligned(genes):
    texts = np.eye(K, dtype=np.float32)
    found = space_scores(genes, texts, TRUTH, (TRUTH + 1) % K, 0)
    return found | {"fused_margin_accuracy": found["margin_accuracy"]}


# (task, of what is right, of what is not)
LAWS = [
    ("probe", lambda: classified(TRUTH), lambda: classified(NOISE)),
    ("probe", lambda: calibrated(TRUTH, 0.999), lambda: calibrated(NOISE, 0.9)),
    ("clustering", lambda: clustered(TRUTH), lambda: clustered(NOISE)),
    ("integration", lambda: integrated(0.0, TRUTH), lambda: integrated(100.0, NOISE)),
    ("trajectory", lambda: ordered(np.arange(N) / N), lambda: ordered(np.where(NOISE, RNG.random(N), np.inf))),
    (LEAKAGE, lambda: leaked(0.0), lambda: leaked(10.0)),
    (FRESH, lambda: read_anew(10.0), lambda: read_anew(0.0)),
    ("", lambda: {"leakage_auroc": leaked(0.0)["auroc"]}, lambda: {"leakage_auroc": leaked(10.0)["auroc"]}),
    ("layerwise", lambda: regressed(np.sin(np.arange(N))), lambda: regressed(RNG.normal(size=N))),
    ("pretrain", lambda: aligned(np.eye(K, dtype=np.float32)[TRUTH]),
     lambda: aligned(np.repeat(np.eye(K, dtype=np.float32)[:1], N, axis=0))),
]  # fmt: skip
DESCRIBE = {("", "modality_gap"), (FRESH, "balanced_accuracy")}
BY_DEFINITION = {("", "loss"), ("", "seconds")}


@pytest.mark.parametrize(("task", "right", "wrong"), LAWS)
def test_what_is_right_ranks_above_what_is_not(task, right, wrong):
    good, bad = right(), wrong()
    for name, value in good.items():
        metric = find_metric(name, task)
        if metric.better is not None:
            assert metric.cost(float(value)) < metric.cost(float(bad[name])), name


def test_no_metric_is_without_its_law():
    known = {("" if not metric.tasks else metric.tasks[0], metric.name) for metric in METRICS}
    lawful = {(task if task in (LEAKAGE, FRESH) else "", name) for task, right, _ in LAWS for name in right()}
    assert known - lawful == BY_DEFINITION | {(FRESH, "balanced_accuracy")}
    assert {pair for pair in known if find_metric(pair[1], pair[0]).better is None} == DESCRIBE


def test_a_metric_has_one_record_a_task_and_a_task_one_headline():
    assert len({(metric.name, metric.tasks) for metric in METRICS}) == len(METRICS)
    assert len(PRIMARY) == sum(len(metric.headline) for metric in METRICS)
    assert all(find_metric(name, task).name == name for task, name in PRIMARY.items())


def test_nothing_is_guessed_of_a_metric_that_is_not_known():
    assert find_metric("batch_error_loss", "integration") is None
    assert find_metric("f1", LEAKAGE) is None  # what leaks has records of its own
    assert words_of("batch_error_loss") == "batch_error_loss"
    with pytest.raises(ValueError, match="neither more nor less"):
        find_metric("modality_gap").cost(0.1)


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("test macro F1", "f1"),
        ("cell_type macro F1, chosen layer", "f1"),
        ("validation weighted F1, mean", "weighted_f1"),
        ("test donor_id leakage AUROC", "leakage_auroc"),
        ("test calibration error (15 bins)", "ece"),
        ("R@1, random weights", "retrieval_macro"),
        ("validation_loss", "loss"),
        ("masked_mse", "mse"),
        ("training seconds", "seconds"),
        ("test macro F1, sd", None),
        ("cells per second", None),
        ("validation cells", None),
        ("chance, most frequent type", None),
        ("lossless", None),
    ],
)
def test_a_number_of_a_report_ends_with_its_metric(number, name):
    found = find_reported(number)
    assert (found and found.name) == name
