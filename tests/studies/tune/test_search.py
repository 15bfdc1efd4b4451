"""What Ray Tune is given: which trial comes next, and which is given up."""

import dataclasses
import math
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from tests.memory_tracker import MemoryTracker
from tests.tasks.classification.sentiment import memory
from tests.text_examples import NAMES, write_encoder
from xfm.core.errors import Refused
from xfm.core.parts import TEST
from xfm.core.schema import PART
from xfm.engine.output import write_part
from xfm.engine.settings import UsageError
from xfm.models.hf_text.config import HFText
from xfm.studies.tune.search import Halving, TrialSource
from xfm.studies.tune.space import parse_space
from xfm.studies.tune.target import compared_on
from xfm.studies.tune.trial import OBJECTIVES, Drawn, WithoutOutcome
from xfm.studies.tune.trial_log import TrialLog
from xfm.studies.tune.trials import Aim, Trial, front_of
from xfm.tasks.classification.learner import ClassificationLearner, ClassificationRecipe
from xfm.tasks.classification.settings import Classification
from xfm.training.in_process import train_here
from xfm.training.settings import Settings
from xfm.training.tokens import TokenParts, TokenStore, token_parts

ray_tune = pytest.importorskip("ray.tune")
AIM = Aim("validation_f1")
SETTINGS = Settings(
    steps=9, batch_size=8, lr=1e-3, warmup=0, schedule="constant", weight_decay=0.0, clip=1.0, log_every=3,
    checkpoint_every=3, max_seconds=None, seed=0, watch="validation_f1",
)  # fmt: skip
SPACE = parse_space({"lr": {"loguniform": [1e-5, 1e-1]}, "task.mode": {"choice": ["full", None]}})


@dataclass(frozen=True)
class Anything:
    """A recipe that is never built."""

    values: tuple


def make(values):
    if values.get("lr", 1.0) < 1e-4:
        raise Refused("TOO_SMALL", "the lr is too small")
    return Anything(tuple(values.items())), SETTINGS


def book_of(folder, total=8):
    return TrialLog(str(folder), AIM, total, MemoryTracker())


def run_through(draws, book, merit):
    """What Tune does: asks, lets the trial end, says so."""
    numbers = []
    for i in range(1000):
        found = draws.suggest(f"tune{i}")
        if found == ray_tune.search.Searcher.FINISHED:
            return numbers
        drawn = found["drawn"]
        number = drawn.trial.number
        value = merit(drawn.trial.values)
        record = {"step": 3, "epoch": 1.0, "seconds": 1.0, "validation_f1": value}
        book.add(number, [record])
        book.end(number, "finished")
        draws.on_trial_complete(f"tune{i}", {"objective": value})
        numbers.append(number)
    raise AssertionError("it never ends")


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_trial_0_is_the_job_as_given_and_what_cannot_be_made_has_failed(tmp_path, searcher):
    book = book_of(tmp_path)
    run = run_through(TrialSource(SPACE, book, make, searcher, 0), book, lambda _: 0.5)
    assert book.get(0).values == {}
    assert [trial.number for trial in book.trials] == list(range(8))
    failed = [trial for trial in book.trials if trial.status == "failed"]
    assert sorted(run + [trial.number for trial in failed]) == list(range(8))
    assert all(trial.values["lr"] < 1e-4 and trial.reason == "TOO_SMALL: the lr is too small" for trial in failed)
    assert failed
    assert run


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_a_search_that_was_killed_goes_on_with_its_own_trials_and_draws_none_again(tmp_path, searcher):
    book = book_of(tmp_path)
    draws = TrialSource(SPACE, book, lambda values: (Anything(()), SETTINGS), searcher, 0)
    before = [draws.suggest(str(i))["drawn"].trial for i in range(4)]
    book.end(1, "finished")  # without ever having measured anything, and here the kill
    again = book_of(tmp_path)
    numbers = run_through(
        TrialSource(SPACE, again, lambda values: (Anything(()), SETTINGS), searcher, 0), again, lambda _: 0.5
    )
    assert numbers == [0, 2, 3, 4, 5, 6, 7]
    assert [again.get(trial.number).values for trial in before] == [trial.values for trial in before]
    assert len({trial.values["lr"] for trial in again.trials[1:]}) == 7


def test_tpe_does_not_begin_its_draws_again_with_each_start(tmp_path):
    for _ in range(3):  # each start draws two at random: nothing has been measured that it could learn from
        book = book_of(tmp_path)
        draws = TrialSource(SPACE, book, lambda values: (Anything(()), SETTINGS), "tpe", 0)
        for i in range(2):
            book.end(draws.suggest(str(i))["drawn"].trial.number, "failed", "unlucky")
    assert len({trial.values["lr"] for trial in book.trials[1:]}) == 5


def test_random_values_do_not_depend_on_how_often_the_driver_was_killed(tmp_path):
    values = []
    for name, kills in (("a", 0), ("b", 3)):
        for _ in range(kills):
            TrialSource(SPACE, book_of(tmp_path / name), lambda _: (Anything(()), SETTINGS), "random", 5).suggest("x")
        book = book_of(tmp_path / name)
        run_through(TrialSource(SPACE, book, lambda _: (Anything(()), SETTINGS), "random", 5), book, lambda _: 0.5)
        values.append([trial.values for trial in book.trials])
    assert values[0] == values[1]


def test_tpe_finds_where_it_is_better_than_chance_would(tmp_path):
    book = book_of(tmp_path, total=40)

    def merit(values):
        return -abs(math.log10(values.get("lr", 1e-5)) + 2)  # best at 1e-2, in the upper half of the decades

    draws = TrialSource(SPACE, book, lambda values: (Anything(()), SETTINGS), "tpe", 0)
    for i in range(20):
        trial = draws.suggest(str(i))["drawn"].trial
        book.add(trial.number, [{"step": 3, "epoch": 1.0, "seconds": 1.0, "validation_f1": merit(trial.values)}])
        book.end(trial.number, "finished")
        draws.on_trial_complete(str(i), {"objective": merit(trial.values)})
    again = book_of(tmp_path, total=40)  # what it learned is in the book
    run_through(TrialSource(SPACE, again, lambda values: (Anything(()), SETTINGS), "tpe", 0), again, merit)
    late = [abs(math.log10(trial.values["lr"]) + 2) for trial in again.trials[20:]]
    assert np.median(late) < 0.5  # a fourth of the decades lie so near: chance has its median at 1


@pytest.mark.parametrize("searcher", ["random", "tpe"])
def test_values_that_fit_no_job_are_drawn_again(tmp_path, searcher):
    unfit = []

    def heads_divide(values):
        if values and values["hidden"] % values["heads"]:
            unfit.append(values)
            raise UsageError("hidden is no multiple of heads")
        return Anything(()), SETTINGS

    space = parse_space({"hidden": {"randint": [8, 40]}, "heads": {"choice": [2, 3, 4]}})
    book = book_of(tmp_path, total=20)
    draws = TrialSource(space, book, heads_divide, searcher, 0)
    assert run_through(draws, book, lambda _: 0.5) == list(range(20))
    assert len(unfit) > 5
    assert all(each.values["hidden"] % each.values["heads"] == 0 for each in book.trials[1:])
    assert {each.status for each in book.trials} == {"finished"}


def test_a_space_where_nothing_fits_ends_with_failed_trials(tmp_path):
    def nothing(values):
        if values:
            raise UsageError("no")
        return Anything(()), SETTINGS

    book = book_of(tmp_path, total=3)
    assert run_through(TrialSource(SPACE, book, nothing, "tpe", 0), book, lambda _: 0.5) == [0]
    assert [(each.status, each.reason) for each in book.trials[1:]] == [("failed", "no")] * 2


BOTH = Aim.of("validation_f1", "validation_leakage_auroc~0.5")


def two_scores(values):
    """F1 rises with lr; so does the distance of the leakage from chance. Noise, drawn beside it, helps nothing."""
    share = (math.log10(values.get("lr", 1e-5)) + 5) / 4
    return 0.9 * share, 0.5 + 0.4 * share**2 + values.get("noise", 0.0)


def run_both(book, draws, most):
    """`most` trials, as Tune runs them."""
    for i in range(most):
        found = draws.suggest(f"{len(book.trials)} {i}")
        if found == ray_tune.search.Searcher.FINISHED:
            return
        number = found["drawn"].trial.number
        f1, leakage = two_scores(found["drawn"].trial.values)
        record = {"step": 3, "epoch": 1.0, "seconds": 1.0, "validation_f1": f1, "validation_leakage_auroc": leakage}
        book.add(number, [record])
        book.end(number, "finished")
        merits = dict(zip(OBJECTIVES, BOTH.merits([record]), strict=True))
        draws.on_trial_complete(f"{len(book.trials)} {i}", merits)


def test_a_search_for_two_scores_goes_on_after_a_kill_and_learns_what_helps_neither(tmp_path):
    space = parse_space({"lr": {"loguniform": [1e-5, 1e-1]}, "noise": {"uniform": [0.0, 0.5]}})

    def start():
        book = TrialLog(str(tmp_path), BOTH, 40, MemoryTracker())
        return book, TrialSource(space, book, lambda _: (Anything(()), SETTINGS), "tpe", 0)

    book, draws = start()
    run_both(book, draws, 15)
    caught = draws.suggest("caught")["drawn"].trial  # and here the kill
    book, draws = start()
    assert [each.number for each in book.unfinished] == [caught.number]
    run_both(book, draws, 40)
    assert book.get(caught.number).values == caught.values
    assert [each.number for each in book.trials] == list(range(40))
    assert {each.status for each in book.trials} == {"finished"}
    # Noise is uniform between 0 and .5, of median .25; the front wants none of it.
    assert np.median([each.values["noise"] for each in book.trials[21:]]) < 0.15
    assert len(front_of(book.trials, BOTH)) > 3


def test_which_trials_are_on_the_front_is_told_to_their_runs_once(tmp_path):
    tracker = MemoryTracker("job")
    book = TrialLog(str(tmp_path), BOTH, 3, tracker)
    for number in range(3):
        book.draw(number, {"lr": float(number)})
        book.start(number)
        book.end(number, "finished")
    for _ in range(2):
        book.mark_front({0, 2})
    book = TrialLog(str(tmp_path), BOTH, 3, tracker)
    book.mark_front({2})
    told = [
        (run, tags["xfm.on_front"]) for run, kind, tags in tracker.records if kind == "tags" and "xfm.on_front" in tags
    ]
    assert told == [("job/trial-000", "true"), ("job/trial-002", "true"), ("job/trial-000", "false")]
    assert [(each.on_front, each.status) for each in book.trials] == [
        (False, "finished"), (False, "finished"), (True, "finished"),
    ]  # fmt: skip


def trial(number, is_last=False):
    config = {"drawn": Drawn(Trial(number, {}), Anything(()), SETTINGS)}
    return SimpleNamespace(trial_id=f"tune{number}", config=config)


def verdicts(halving, values):
    """At epoch 1, in this order."""
    said = {}
    for number, value in values:
        halving.on_trial_add(None, trial(number))
        said[number] = halving.on_trial_result(None, trial(number), {"epoch": 1.0, "objective": value})
    return said


def test_of_three_at_a_rung_one_goes_on(tmp_path):
    # The cut is the 66.7th percentile of those before: none; .5; of (.5, .2) .4; of (.5, .2, .45) .4667.
    said = verdicts(Halving(book_of(tmp_path), 9, 1, 3), [(1, 0.5), (2, 0.2), (3, 0.45), (4, 0.46), (5, 0.6)])
    assert said == {1: "CONTINUE", 2: "STOP", 3: "CONTINUE", 4: "STOP", 5: "CONTINUE"}


def test_the_job_as_given_and_a_trial_at_its_end_are_never_given_up(tmp_path):
    halving = Halving(book_of(tmp_path), 9, 1, 3)
    assert verdicts(halving, [(1, 0.9), (0, 0.1)])[0] == "CONTINUE"
    halving.on_trial_add(None, trial(2))
    last = {"epoch": 9.0, "objective": 0.1, "is_last": True}
    assert halving.on_trial_result(None, trial(2), last) == "CONTINUE"
    assert halving.on_trial_result(None, trial(2), {"ended": "failed"}) == "CONTINUE"


def test_trials_of_an_earlier_start_count_once(tmp_path):
    book = book_of(tmp_path)
    for number, value in ((1, 0.5), (2, 0.2)):
        book.draw(number, {})
        book.start(number)
        book.add(number, [{"step": 3, "epoch": 1.0, "seconds": 1.0, "validation_f1": value}])
    said = verdicts(Halving(book_of(tmp_path), 9, 1, 3), [(1, 0.5), (3, 0.45), (4, 0.46)])
    assert said == {1: "CONTINUE", 3: "CONTINUE", 4: "STOP"}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Three parts on disk as a search stores them: two with rows of all other kinds, one that had test rows alone."""
    folder = tmp_path_factory.mktemp("stored")
    config = HFText(checkpoint=str(write_encoder(folder / "bert", "bert")))
    tables = memory(config).tables
    assert all((table[PART].to_numpy() == TEST).any() for table in tables)
    only_test = tables[0].filter(pa.compute.equal(tables[0][PART], TEST))
    for name, table in zip("abc", [*tables, only_test], strict=True):
        write_part(str(folder), name, table.filter(pa.compute.not_equal(table[PART], TEST)))
    return folder, config, token_parts(str(folder), list("abc"))


def test_a_trial_that_sees_parts_without_test_rows_asks_for_none(stored, monkeypatch, tmp_path):
    folder, config, parts = stored
    assert (sum(parts.count(TEST)), sum(parts.sizes[2])) == (0, 0)
    seen = compared_on(parts, "finetune")
    assert (seen.keys, seen.sizes) == (("a", "b"), parts.sizes[:2])
    # What is missing cannot be read; rows that are there are watched.
    (folder / "parts" / "c.parquet").unlink()
    taken: list[tuple[int, int]] = []
    take = TokenStore.take

    def spy(self: TokenStore, numbers, rows):
        taken.extend(zip(numbers.tolist(), rows.tolist(), strict=True))
        return take(self, numbers, rows)

    monkeypatch.setattr(TokenStore, "take", spy)
    recipe = ClassificationRecipe(config, Classification(), seen, 16, 400, 0, 0, config.identity(), NAMES)
    trained = train_here(recipe, dataclasses.replace(SETTINGS, steps=6), tmp_path)
    assert trained.outcome["test"].shape == (0, 2)
    assert len(taken) > 0
    assert all(row < sum(parts.sizes[number][:2]) for number, row in taken)


def test_a_trial_is_asked_for_nothing_after_its_last_step(stored, monkeypatch, tmp_path):
    _, config, parts = stored
    monkeypatch.setattr(ClassificationLearner, "outcome", lambda *_: pytest.fail("test rows were asked for"))
    recipe = ClassificationRecipe(
        config, Classification(), compared_on(parts, "finetune"), 16, 400, 0, 0, config.identity(), NAMES
    )
    settings = dataclasses.replace(SETTINGS, steps=3)
    trained = train_here(WithoutOutcome(recipe), settings, tmp_path)
    assert trained.outcome == {}
    assert "validation_f1" in trained.history[-1]


def test_a_search_without_validation_rows_is_refused():
    with pytest.raises(Refused, match=r"NO_VALIDATION_ROWS: .*; give pretrain\.validation a share, or pretrain\.split"):
        compared_on(TokenParts("somewhere", ("a",), ((9, 0, 0),)), "pretrain")
