"""What every task promises, over all entries of the registry."""

import json
import pickle
import subprocess
import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from examples import TASKS, TaskExample, example
from in_process import Published, prepare_here, run_here

from tests.picture_examples import BUILDING, workers
from xfm.core import registry
from xfm.core.schema import ROW_ID
from xfm.core.task import TaskSettings
from xfm.engine.learn import Prepared, recipe_of, task_of
from xfm.judging.classifier_scores import PREDICTIONS
from xfm.plots.page import render_page
from xfm.training.group import Group
from xfm.training.in_process import train_here
from xfm.training.learner import Learner, Recipe
from xfm.training.settings import Settings, Trained
from xfm.training.task import Task
from xfm.training.tokens import TEST, TokenParts, TokenStore

NAMES = sorted(registry.TASKS)
NOTE = "Published: 98.46, different weights."


@dataclass
class Given:
    """An example whose rows are stored; every test makes recipe and learner anew."""

    example: TaskExample
    prepared: Prepared

    @property
    def config(self) -> Any:
        return self.example.config

    @property
    def task(self) -> Task:
        return task_of(self.config)

    def folder(self, name: str) -> Path:
        """Below OUTPUT."""
        return Path(self.config.output) / name

    def recipe(self, **settings: Any) -> tuple[Recipe, Settings]:
        recipe, found = recipe_of(self.config, self.prepared)
        return recipe, replace(found, **settings)

    def learner(self, group: Group | None = None) -> Learner:
        with BUILDING:
            learner = self.recipe()[0].build(group or Group(), "cpu")
        learner.network.train()
        return learner


class Changed:
    """A recipe whose learners are changed by `change` as they are built."""

    def __init__(self, recipe: Recipe, change: Any) -> None:
        self.recipe, self.change = recipe, change

    def build(self, group: Group, device: str) -> Any:
        return self.change(self.recipe.build(group, device))


class Instead:
    """A learner, with something else in the place of some of its methods."""

    def __init__(self, learner: Learner, **methods: Any) -> None:
        self._learner = learner
        self.__dict__ |= methods

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)


@pytest.fixture(scope="module", params=NAMES)
def given(request, tmp_path_factory):
    found = example(TASKS, request.param, tmp_path_factory.mktemp(request.param))
    return Given(found, prepare_here(found.config))


@pytest.fixture(scope="module")
def done(given) -> tuple[Published, Trained]:
    """The whole job, with a note of its user."""
    return run_here(given.config.model_copy(update={"notes": (NOTE,)}), given.prepared)


# Settings


@pytest.mark.parametrize("name", NAMES)
def test_settings_name_a_task_and_its_own_fields(name):
    settings: type[TaskSettings] = registry.load(registry.TASKS, name, "task")
    module, _, attribute = settings.task.partition(":")
    task = getattr(import_module(module), attribute)
    assert issubclass(task, Task)
    assert settings.model_fields["kind"].default == name
    assert "kind" in task.fixed
    assert task.fixed | task.afterwards <= set(settings.model_fields)
    assert not task.fixed & task.afterwards
    assert settings.__doc__
    assert all(field.description for name, field in settings.model_fields.items() if name != "kind")


def test_settings_are_light():
    """`--help` reads all of them."""
    modules = [place.partition(":")[0] for place in registry.TASKS.values()]
    said = (
        "import sys; heavy = {'torch', 'ray', 'transformers', 'scanpy', 'sklearn'} & sys.modules.keys(); print(*heavy)"
    )
    code = f"import {', '.join(modules)}\n{said}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_task_trains_its_own_way_by_fields_of_the_job(given):
    own = type(given.config.task).training_defaults({}, {})
    assert own.keys() <= set(type(given.config).model_fields)


# Training


def test_the_loss_falls_when_one_batch_is_repeated(given):
    recipe, settings = given.recipe(steps=40, checkpoint_every=40, log_every=1, watch="", patience=None, warmup=0)

    def repeated(learner):
        batch = learner.examples(0)
        return Instead(learner, examples=lambda _step: batch, validate=lambda _step: {}, outcome=lambda _step: {})

    history = train_here(Changed(recipe, repeated), settings, given.folder("repeated")).history
    name = recipe.build(Group(), "cpu").names[0]
    first, last = history[0][name], np.mean([record[name] for record in history[-5:]])
    assert last < 0.95 * first


def gradients(learner: Learner, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a step: this worker's part of the gradient, and of the losses."""
    examples = learner.examples(step)
    counts = learner.group.sum(torch.tensor(learner.counts(examples, step), dtype=torch.float64))
    losses = learner.backward(examples, counts, step)
    trained = [p for p in learner.network.parameters() if p.requires_grad]
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in trained]), losses


def test_two_workers_take_the_first_step_of_one(given):
    whole, loss = gradients(given.learner())
    found = workers(2, lambda group: gradients(given.learner(group)))
    assert whole.abs().max() > 0
    # float32: other batch shapes add up in another order.
    torch.testing.assert_close(sum(part for part, _ in found), whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum(part for _, part in found), loss, rtol=1e-5, atol=1e-5)


def test_two_workers_validate_as_one(given):
    alone = given.learner().validate(0)
    assert alone
    for found in workers(2, lambda group: given.learner(group).validate(0)):
        assert found == pytest.approx(alone, rel=1e-4, abs=1e-5)


def test_what_may_be_watched_is_measured_on_validation_rows(given):
    measured = given.learner().validate(0)
    assert all(name.startswith("validation_") for name in measured)
    assert set(type(given.config.task).watchable) <= {name.removeprefix("validation_") for name in measured}


def test_a_recipe_travels(given):
    recipe, _ = given.recipe()
    again = pickle.loads(pickle.dumps(recipe))  # noqa: S301 - our own bytes
    one, other = (each.build(Group(), "cpu").network.state_dict() for each in (recipe, again))
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


class Interrupted(Exception):
    """Raised after a checkpoint."""


@pytest.mark.parametrize("stop", [2, 4])
def test_a_resumed_run_ends_with_the_same_bits(given, stop):
    """With dropout, which is keyed by the step."""
    recipe, settings = given.recipe(steps=6, checkpoint_every=2, log_every=1, patience=None)

    def dropping(learner):
        for module in learner.network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.2
        return Instead(learner, outcome=lambda _step: {})

    def interrupt(record, _folder):
        if record["step"] == stop:
            raise Interrupted

    recipe = Changed(recipe, dropping)
    whole = train_here(recipe, settings, given.folder(f"whole {stop}"))
    with pytest.raises(Interrupted):
        train_here(recipe, settings, given.folder(f"cut {stop}"), on_checkpoint=interrupt)
    rest = train_here(recipe, settings, given.folder(f"cut {stop}"))
    assert (rest.steps, rest.best_step) == (whole.steps, whole.best_step)
    assert rest.weights.keys() == whole.weights.keys()
    assert all(torch.equal(rest.weights[name], tensor) for name, tensor in whole.weights.items())
    curves = [[{**record, "seconds": 0} for record in each.history] for each in (rest, whole)]
    assert curves[0] == curves[1]


def test_test_rows_are_read_by_the_outcome_alone(given, monkeypatch):
    parts, taken, take = given.prepared.parts, set(), TokenStore.take

    def watched(store, numbers, rows):
        taken.update(zip(numbers.tolist(), rows.tolist(), strict=True))
        return take(store, numbers, rows)

    monkeypatch.setattr(TokenStore, "take", watched)
    test = set(zip(*(each.tolist() for each in parts.everything(TEST)), strict=True))
    before = []

    def watching(learner):
        def outcome(step):
            before.append(set(taken))
            return learner.outcome(step)

        return Instead(learner, outcome=outcome)

    recipe, settings = given.recipe(steps=6, checkpoint_every=3, patience=None)
    train_here(Changed(recipe, watching), settings, given.folder("watched"))
    (read,) = before
    assert read
    assert not read & test
    assert taken & test in (set(), test), "the test rows are read together, or not at all"


# Results


def test_the_report_is_whole_and_has_its_baselines(given, done):
    job, _ = done
    report = job.report
    assert report is not None
    assert report.headline.endswith(".")
    assert report.warnings[0] == NOTE
    assert job.figures
    page = render_page(report, job.folder)
    assert report.title in page
    assert {"data", "versions"} <= report.provenance.keys()
    compared = [table for table in report.tables if table.columns[0] in ("prediction", "network")]
    assert any(len({row[0] for row in table.rows}) > 1 for table in compared), "no prediction stands beside a baseline"
    assert json.loads(report.to_json())["headline"] == report.headline


def test_a_backbone_of_its_kind_reads_the_checkpoint(given, done):
    job, _ = done
    assert job.said
    rows = first_rows(given.prepared.parts)
    config = read_back(job)
    tokens = config.tokenizer(0).for_training().collate(rows)
    backbone = config.build("cpu")
    with torch.inference_mode():
        *_, last = backbone.layers(tokens)
    assert last.isfinite().all()
    assert config.identity()


def test_the_predictions_are_those_of_the_checkpoint(given, done):
    job, _ = done
    written = job.tables.get(PREDICTIONS)
    assert (written is None) == (given.example.predicts is None), f"{PREDICTIONS} goes with `predicts` of the example"
    if written is None:
        pytest.skip(f"it writes no {PREDICTIONS}")
    written = written.filter(pc.equal(written["part"], "test"))
    rows = TokenStore(given.prepared.parts).take(*given.prepared.parts.everything(TEST))
    assert written[ROW_ID].to_pylist() == rows[ROW_ID].to_pylist()
    with torch.inference_mode():
        found = given.example.predicts(job.checkpoint, read_back(job).build("cpu"), rows)
    assert found
    for name, values in found.items():
        expected = np.array(written[name].to_pylist())
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


def test_training_goes_on_where_the_checkpoint_ends(given, done):
    """For tasks that start from their own settings: with `init`, the scores before the first step are the last ones."""
    job, trained = done
    settings = given.config.task
    if "init" not in type(settings).model_fields:
        pytest.skip("it starts from a backbone")
    own = {name: getattr(settings, name) for name in type(settings).model_fields if name in settings.model_fields_set}
    sized = own | {"init": str(job.checkpoint)}
    again = given.config.model_copy(update={"task": type(settings)(**sized), "output": f"{given.config.output}-again"})
    recipe, _ = recipe_of(again, prepare_here(again))
    scores = recipe.build(Group(), "cpu").validate(trained.steps)
    last = {name: value for name, value in trained.history[-1].items() if name.startswith("validation_")}
    assert scores == pytest.approx(last, rel=1e-4, abs=1e-5)


def read_back(job: Published) -> Any:
    assert job.kind is not None
    return registry.load(registry.BACKBONES, job.kind, "backbone")(checkpoint=str(job.checkpoint))


def first_rows(parts: TokenParts) -> pa.Table:
    numbers, rows = parts.everything(0)
    return TokenStore(parts).take(numbers[:3], rows[:3])
