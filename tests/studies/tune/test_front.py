"""The trials that none beats in both scores."""

import itertools

import numpy as np
import pytest

from xfm.core.errors import Refused
from xfm.studies.tune.report import draw, tune_report
from xfm.studies.tune.trials import Aim, Trial, front_of, trials_table

BOTH = Aim.of("validation_f1", "validation_leakage_auroc~0.5")
RUN = {"recipe": {"weights": {}, "data": {}}, "versions": {}}


def record(f1, leakage, step=1):
    return {
        "step": step,
        "epoch": float(step),
        "seconds": 1.0,
        "validation_f1": f1,
        "validation_leakage_auroc": leakage,
    }


def trial(number, *scores, status="finished"):
    history = [record(*pair, step=step) for step, pair in enumerate(scores, start=1)]
    return Trial(number, {"lr": 0.1 * number} if number else {}, status, history)


TRIALS = [
    trial(0, (0.7, 0.9)),
    trial(1, (0.6, 0.45)),  # .05 from chance, on the other side of it
    trial(2, (0.8, 0.95)),
    trial(3, (0.6, 0.60)),  # as good as trial 1, and leaks more
    trial(4, (0.9, 0.5), status="pruned"),
    trial(5, status="failed"),
    trial(6, (0.5, 0.52)),
]


@pytest.mark.parametrize("also", ["b", "-b", "b~0.5"])
@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_its_definition_says(also, seed):
    rng = np.random.default_rng(seed)
    aim = Aim.of("-a", also)
    points = rng.integers(0, 8, (40, 2)) / 8  # ties and equal points among them
    trials = [
        Trial(number, {}, "finished", [{"step": 1, "epoch": 1.0, "seconds": 1.0, "a": a, "b": b}])
        for number, (a, b) in enumerate(points.tolist())
    ]
    losses = [(a, {"b": -b, "-b": b, "b~0.5": abs(b - 0.5)}[also]) for a, b in points.tolist()]
    expected = set(range(40))
    for one, other in itertools.permutations(range(40), 2):
        (a, b), (c, d) = losses[one], losses[other]
        if a <= c and b <= d and (a < c or b < d):
            expected.discard(other)
    found = front_of(trials, aim)
    assert {each.number for each in found} == expected
    firsts = [losses[each.number][0] for each in found]
    assert firsts == sorted(firsts)


def test_a_trial_stands_for_the_weights_that_it_keeps():
    # The second validation leaks less, and its weights are not kept.
    twice = trial(1, (0.8, 0.9), (0.7, 0.5))
    assert BOTH.values(twice.history) == (0.8, 0.9)
    assert BOTH.merits(twice.history) == pytest.approx((0.8, -0.4))
    assert BOTH.values(trial(1, (0.8, 0.9), (0.8, 0.5)).history) == (0.8, 0.9)  # the first of equals, as in training


def test_pruned_and_failed_trials_are_on_no_front():
    assert [each.number for each in front_of(TRIALS, BOTH)] == [2, 0, 1, 6]


def test_the_table_of_trials_says_who_is_on_the_front():
    table = trials_table(TRIALS, ["lr"], {"lr": 1.0}, BOTH)
    assert table.column_names[:5] == ["trial", "status", "validation_f1", "validation_leakage_auroc", "on_front"]
    assert table["on_front"].to_pylist() == [True, True, True, False, False, False, True]
    assert table["validation_leakage_auroc"].to_pylist() == [0.9, 0.45, 0.95, 0.6, 0.5, None, 0.52]


def test_the_report_shows_the_front_and_says_which_way_is_better(tmp_path):
    report = tune_report(TRIALS, BOTH, {"lr": True}, {"lr": 1.0}, RUN, (80, 20), {}, title="faking", script="fake")
    assert report.title == "Search of settings for faking"
    assert "run jobs/fake.py with best.yaml" in report.warnings[0]
    assert "4 trials are on the front" in report.headline
    assert "from 0.8 and 0.95 (trial 2) to 0.5 and 0.52 (trial 6)" in report.headline
    front = next(table for table in report.tables if table.name == "front_summary")
    assert front.columns[1:3] == [
        "validation_f1 (higher is better)", "validation_leakage_auroc (nearer 0.5 is better)",
    ]  # fmt: skip
    assert [row[0] for row in front.rows] == [2, 0, 1, 6]
    figures = draw(TRIALS, BOTH, {"lr": True}, {"lr": 1.0}, tmp_path)
    assert [figure.name for figure in figures] == ["front", "objective", "fields"]


@pytest.mark.parametrize("words", [("validation_f1", None), ("-validation_loss", "-validation_x"), ("a", "b~0.25")])
def test_two_aims_are_written_as_they_were_read(words):
    aim = Aim.of(*words)
    assert tuple(each.watch for each in aim.each) == tuple(word for word in words if word)


@pytest.mark.parametrize("word", ["", "-", "~0.5", "a~", "a~nan", "-a~0.5", "a~b"])
def test_words_that_name_no_score_are_refused(word):
    with pytest.raises(Refused, match="BAD_METRIC"):
        Aim.of(word)
