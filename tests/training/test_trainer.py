"""The training loop on a line: resume, patience, budgets, workers."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.rounding import assert_same_but_rounding
from tests.training.line_cases import SETTINGS, LineLearner
from xfm.core.errors import Refused
from xfm.training.group import Group
from xfm.training.in_process import train_here
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

WATCHING = replace(SETTINGS, steps=30, watch="validation_f1", patience=3)


class LineRecipe:
    """What `train_here` builds from."""

    def __init__(self, *args) -> None:
        self.args = args

    def build(self, group: Group, device: str) -> LineLearner:
        return LineLearner(group, *self.args)


def trainer(settings: Settings = SETTINGS, *args) -> Trainer:
    return Trainer(LineLearner(Group(), *args), settings)


def test_a_line_is_learned_and_its_weights_are_handed_over():
    trained = trainer(replace(SETTINGS, steps=600)).run(lambda: None)
    assert trained.outcome["weight"] == pytest.approx(2, abs=0.02)
    assert trained.outcome["bias"] == pytest.approx(1, abs=0.02)
    assert trained.weights["1.weight"].item() == trained.outcome["weight"]
    assert trained.best_step == trained.steps == 600


def test_the_first_loss_is_the_mean_over_the_batch():
    run = trainer(replace(SETTINGS, log_every=1, steps=1))
    points = run.learner.examples(0)
    trained = run.run(lambda: None)
    assert trained.history[0]["loss"] == pytest.approx(((2 * points + 1) ** 2).mean().item(), rel=1e-6)


def test_the_best_weights_are_kept_and_patience_ends_training():
    """Best at the second validation (step 6); three worse ones follow, the last at step 15."""
    snapshots = {}
    run = trainer(WATCHING, [0.2, 0.9, 0.8, 0.9, 0.5, 1.0])
    trained = run.run(lambda: snapshots.update({run.progress.step: run.learner.network[1].weight.item()}))
    assert run.learner.asked == [3, 6, 9, 12, 15], "equal is not better, and a sixth validation is not had"
    assert trained.is_stopped
    assert (trained.steps, trained.best_step, trained.outcome["step"]) == (15, 6, 6)
    assert trained.outcome["weight"] == snapshots[6] != snapshots[15]


def test_the_lowest_is_best_where_a_minus_stands_in_front():
    trained = trainer(replace(WATCHING, watch="-validation_f1"), [0.2, 0.9, 0.1, 0.9, 0.5, 0.4]).run(lambda: None)
    assert (trained.steps, trained.best_step) == (18, 9)


@pytest.mark.parametrize("scores", [None, [float("nan")]])
def test_watching_what_is_not_measured_is_refused(scores):
    with pytest.raises(Refused, match="NO_VALIDATION"):
        trainer(WATCHING, scores).run(lambda: None)


@pytest.mark.parametrize("stop", [3, 6, 9])
def test_an_interrupted_run_ends_with_the_same_bits_and_curve(tmp_path: Path, stop: int):
    scores, settings = [0.2, 0.9, 0.8, 0.7, 0.6, 0.5], WATCHING
    whole = train_here(LineRecipe(scores, 0.5), settings, tmp_path / "whole")

    class Interrupted(Exception):
        pass

    def interrupt(record, _folder):
        if record["step"] == stop:
            raise Interrupted

    with pytest.raises(Interrupted):
        train_here(LineRecipe(scores, 0.5), settings, tmp_path / "cut", on_checkpoint=interrupt)
    rest = train_here(LineRecipe(scores[stop // 3 :], 0.5), settings, tmp_path / "cut")
    assert rest.outcome == whole.outcome
    assert (rest.steps, rest.best_step, rest.is_stopped) == (whole.steps, whole.best_step, True)
    for name, tensor in whole.weights.items():
        assert torch.equal(rest.weights[name], tensor), name

    def curve(history):
        return [{key: value for key, value in record.items() if key != "seconds"} for record in history]

    assert curve(rest.history) == curve(whole.history)
    assert [folder.name for folder in (tmp_path / "cut").iterdir()] == ["checkpoint-000000015"]


def test_a_finished_run_is_not_trained_again(tmp_path: Path):
    first = train_here(LineRecipe(), SETTINGS, tmp_path)
    records: list = []
    again = train_here(LineRecipe(), SETTINGS, tmp_path, on_record=records.append)
    assert records == []
    assert again.outcome == first.outcome


def test_a_state_of_another_network_is_refused(tmp_path: Path):
    train_here(LineRecipe(), SETTINGS, tmp_path)

    class Wider(LineRecipe):
        def build(self, group, device):
            learner = LineLearner(group)
            learner.network.append(torch.nn.Linear(1, 1))
            return learner

    with pytest.raises(Refused, match="other tensors"):
        train_here(Wider(), SETTINGS, tmp_path)


def test_frozen_parameters_stay_and_are_not_saved(tmp_path: Path):
    class Frozen(LineRecipe):
        def build(self, group, device):
            learner = LineLearner(group)
            learner.network[1].bias.requires_grad_(False)
            return learner

    trained = train_here(Frozen(), SETTINGS, tmp_path)
    assert set(trained.weights) == {"1.weight"}
    assert trained.outcome["bias"] == 0.0
    assert trained.outcome["weight"] != 0.0


def test_weight_decay_leaves_biases_alone():
    """With a learning signal of nothing, only decay moves a weight."""
    run = trainer(replace(SETTINGS, weight_decay=0.5, lr=0.1))
    decays = {tuple(p.shape): group["weight_decay"] for group in run.optimizer.param_groups for p in group["params"]}
    assert decays == {(1, 1): 0.5, (1,): 0.0}


def test_two_workers_take_the_steps_of_one():
    """Both see the sum of their gradients: done here by hand, one after the other."""
    alone = LineLearner(Group())
    counts = torch.tensor([4.0], dtype=torch.float64)
    loss = alone.backward(alone.examples(0), counts, 0)
    parts = []
    for rank in range(2):
        group = Group()
        group.rank, group.world = rank, 2
        worker = LineLearner(group)
        parts.append((worker.backward(worker.examples(0), counts, 0), worker.network[1].weight.grad))
    assert_same_but_rounding(parts[0][0] + parts[1][0], loss, 16)
    torch.testing.assert_close(parts[0][1] + parts[1][1], alone.network[1].weight.grad)


def test_a_loss_that_overflows_is_refused():
    with pytest.raises(Refused, match="NOT_FINITE"):
        trainer(replace(SETTINGS, lr=1e38, steps=40, clip=1e30)).run(lambda: None)


def test_a_time_budget_ends_the_run_with_a_checkpoint():
    run = trainer(replace(SETTINGS, steps=1_000_000, max_seconds=0.2, checkpoint_every=1_000_000))
    saved = []
    run.run(lambda: saved.append(run.progress.step))
    assert run.is_out_of_time
    assert saved == [run.progress.step]
    assert 0 < run.progress.step < 1_000_000


def test_the_learning_rate_grows_then_falls_by_the_schedule():
    cosine = replace(SETTINGS, steps=110, warmup=10, lr=1.0, schedule="cosine")
    assert [cosine.lr_at(step, 0.0) for step in (0, 9, 10, 60, 110)] == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0])
    assert replace(cosine, max_seconds=10.0).lr_at(10, 5.0) == pytest.approx(0.5), "half of the time is half of the way"
    linear = replace(cosine, schedule="linear")
    assert [linear.lr_at(step, 0.0) for step in (9, 10, 60, 85, 110)] == pytest.approx([1.0, 1.0, 0.5, 0.25, 0.0])
    decay = replace(cosine, schedule="decay", warmup=0)
    assert decay.lr_at(100, 0.0) == pytest.approx(0.99)


def test_each_step_drops_out_anew_and_each_seed_its_own():
    def drawn(seed):
        run, found = trainer(replace(SETTINGS, steps=4, seed=seed)), []
        backward = run.learner.backward

        def noted(*given):
            found.append(torch.rand(1).item())  # what dropout draws from
            return backward(*given)

        run.learner.backward = noted
        run.run(lambda: None)
        return found

    once = drawn(3)
    assert len(set(once)) == 4
    assert drawn(3) == once
    assert not set(drawn(4)) & set(once)


@pytest.mark.parametrize(("clip", "most"), [(0.5, 0.5), (1e9, None)])
def test_no_step_takes_a_gradient_longer_than_allowed(clip, most):
    run, lengths = trainer(replace(SETTINGS, steps=5, clip=clip)), []
    step = run.optimizer.step

    def noted():
        lengths.append(torch.cat([each.grad.flatten() for each in run.parameters]).norm().item())
        return step()

    run.optimizer.step = noted
    run.run(lambda: None)
    assert len(lengths) == 5
    if most is None:
        assert max(lengths) > 1, "else nothing is clipped below"
    else:
        assert max(lengths) == pytest.approx(most, rel=1e-4)
