"""What may be searched, and what every drawn value must be."""

import itertools
import math
from typing import Literal

import numpy as np
import pytest
from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.engine.settings import build
from xfm.studies.tune.space import check_space, fields_of, parse_space
from xfm.studies.tune.target import base_settings, searched_job, with_values


class Task(Config):
    """A section."""

    kind: Literal["classification"] = "classification"
    label: str = "label"
    dropout: float = Field(0.1, ge=0, lt=1)
    mode: Literal["full", "lora"] = "full"


class Source(Config):
    """Another."""

    path: str = "data"


class Job(Config):
    """Like a fine-tuning job, with fewer fields."""

    source: Source = Source()
    task: Task = Task()
    output: str
    lr: PositiveFloat = 1e-4
    batch_size: PositiveInt = 64
    schedule: Literal["linear", "cosine"] = "linear"
    clip: float | None = 1.0
    seed: int = 0
    workers: int | None = None

    @model_validator(mode="after")
    def _lora_takes_small_batches(self) -> "Job":
        if self.task.mode == "lora" and self.batch_size > 1000:
            raise ValueError("lora takes small batches")
        return self


def make(values):
    return build(Job, with_values({"lr": 1e-4, "output": "out"}, values), "finetune")


FINETUNING = {"source": {"kind": "hub_text", "path": "reviews"}, "task": {"kind": "classification"},
              "backbone": {"kind": "hf_text", "checkpoint": "encoder"}}  # fmt: skip


def check(space):
    target = searched_job({"finetune": FINETUNING, "pretrain": None}, "out", None, None, {})
    check_space(parse_space(space), Job, make, 0, target.why_not)


def refusal(space):
    with pytest.raises(Refused) as caught:
        check(space)
    assert caught.value.code == "BAD_SPACE"
    return caught.value.message


def test_every_way_to_draw_gives_values_that_the_job_takes_and_they_are_the_same_each_time():
    space = parse_space({
        "lr": {"loguniform": [1e-5, "1e-3"]},
        "task.dropout": {"uniform": [0.0, 0.5]},
        "task.mode": {"choice": ["full", "lora"]},
        "batch_size": {"qloguniform": [8, 128, 8]},
        "clip": {"choice": [None, 0.5]},
    })  # fmt: skip
    check_space(space, Job, make, 0)
    drawn = [space.random(7, number) for number in range(400)]
    assert drawn == [space.random(7, number) for number in range(400)]
    assert drawn != [space.random(8, number) for number in range(400)]
    assert all(1e-5 <= values["lr"] <= 1e-3 for values in drawn)
    # Half of a log-uniform draw lies below the geometric mean of its bounds: 1e-4 here; 400 draws, four deviations.
    assert abs(sum(values["lr"] < 1e-4 for values in drawn) - 200) < 40
    assert {values["batch_size"] for values in drawn} <= {8 * k for k in range(1, 17)}
    assert all(isinstance(values["batch_size"], int) for values in drawn)
    assert {values["task.mode"] for values in drawn} == {"full", "lora"}
    assert {values["clip"] for values in drawn} == {None, 0.5}
    config = make(drawn[0])
    assert (config.lr, config.task.dropout) == (drawn[0]["lr"], drawn[0]["task.dropout"])


def test_a_step_gives_multiples_of_it_between_the_bounds():
    (draw,) = parse_space({"task.dropout": {"quniform": [0.05, 0.5, 0.1]}}).draws
    values = {draw.draw(np.random.default_rng(i)) for i in range(300)}
    assert values == {0.1, 0.2, 0.3, 0.4, 0.5}
    (draw,) = parse_space({"batch_size": {"randint": [3, 5]}}).draws
    assert {draw.draw(np.random.default_rng(i)) for i in range(50)} == {3, 4}


def test_a_grid_is_gone_through_and_other_fields_are_drawn_beside_it():
    space = parse_space({
        "batch_size": {"grid": [8, 16]}, "task.mode": {"grid": ["full", "lora"]}, "lr": {"uniform": [1e-4, 1e-3]},
    })  # fmt: skip
    tried = [tuple(space.fixed(number).values()) for number in range(1, 5)]
    assert tried == list(itertools.product([8, 16], ["full", "lora"]))
    assert space.fixed(5) == space.fixed(1)
    assert [draw.field for draw in space.free] == ["lr"]
    check_space(space, Job, make, 0)


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"lrr": {"uniform": [0, 1]}}, "lrr: is no setting of this job. Did you mean lr?"),
        ({"dropout": {"uniform": [0, 1]}}, "Did you mean task.dropout?"),
        ({"lr": {"unifrom": [0, 1]}}, "'unifrom' is no way to draw a value. Did you mean uniform?"),
        ({"lr": {"uniform": [1e-3]}}, "uniform takes [low, high]"),
        ({"lr": {"quniform": [1e-4, 1e-3]}}, "quniform takes [low, high, step]"),
        ({"lr": {"loguniform": [0, 1]}}, "a logarithmic scale begins above 0"),
        ({"lr": {"uniform": [1, 0.1]}}, "the first number must be below the second"),
        ({"lr": {"uniform": ["small", 1]}}, "expected a number, found 'small'"),
        ({"lr": {"uniform": [0, math.inf]}}, "expected a finite number"),
        ({"batch_size": {"randint": [1.5, 3]}}, "randint takes whole numbers"),
        ({"lr": {"quniform": [0.31, 0.39, 0.1]}}, "no multiple of the step lies between the bounds"),
        ({"lr": {"choice": []}}, "choice takes a list, found []"),
        ({"lr": {"choice": [0.1, 0.1]}}, "lists a value twice"),
        ({"lr": [0, 1]}, "expected one of uniform"),
        ({}, "names no field"),
        ({"task.dropout": {"uniform": [0, 1]}}, "uniform [0, 1] may give 1.0, which the job does not take: "
                                                "--task.dropout: Input should be less than 1"),
        ({"batch_size": {"uniform": [8, 64]}}, "valid integer"),
        ({"schedule": {"choice": ["linear", "sinus"]}}, "may give 'sinus', which the job does not take: --schedule"),
        ({"lr": {"uniform": [-1, 1]}}, "may give -1.0"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_refused_before_anything_starts(space, said):
    assert said in refusal(space)


def test_draws_that_fit_no_job_are_fine_while_others_do():
    check({"batch_size": {"choice": [8, 2000]}, "task.mode": {"choice": ["full", "lora"]}})


def test_values_that_hardly_ever_go_together_are_found_before_anything_starts():
    # Alone each of them is a job: the mode with the batches of 64 that are given, the batches with all weights.
    said = refusal({"batch_size": {"choice": [8, *range(2000, 2060)]}, "task.mode": {"choice": ["lora"]}})
    assert said.startswith("space: drawn together, {'batch_size': 20")
    assert "lora takes small batches" in said
    assert "of 16 draws fit" in said


def test_the_values_of_a_grid_must_all_go_together():
    said = refusal({"batch_size": {"grid": [8, 2000]}, "task.mode": {"grid": ["full", "lora"]}})
    assert said.startswith("space: drawn together, {'batch_size': 2000, 'task.mode': 'lora'}")
    assert "lora takes small batches" in said
    assert "never drawn again" in said


def test_a_value_that_fits_with_others_alone_may_be_drawn():
    check({"task.mode": {"choice": ["lora", "full"]}, "batch_size": {"choice": [8, 2000]}, "lr": {"uniform": [0.1, 1]}})


@pytest.mark.parametrize("field", ["source.path", "task.label", "task.kind"])
def test_all_trials_must_see_the_same_rows(field):
    assert "the same rows" in refusal({field: {"choice": ["a", "b"]}})


def test_places_and_seeds_are_no_settings_to_search():
    assert "nothing to search" in refusal({"workers": {"choice": [1, 2]}})
    assert "nothing to search" in refusal({"output": {"choice": ["a", "b"]}})
    assert "luck" in refusal({"seed": {"randint": [0, 9]}})


def test_the_fields_of_a_job_are_its_flags():
    known = fields_of(Job)
    assert {"lr", "task.dropout", "source.path", "task.kind"} <= set(known)
    assert "help" not in known


def test_a_preset_is_overridden_section_by_section(tmp_path):
    (tmp_path / "preset.yaml").write_text("lr: 1.0e-3\ntask: {kind: a, dropout: 0.2, mode: lora}\nbatch-size: 8\n")
    preset = str(tmp_path / "preset.yaml")
    assert base_settings(Job, preset, "finetune")["task"] == {"kind": "a", "dropout": 0.2, "mode": "lora"}
    base = base_settings(Job, {"preset": preset, "task": {"dropout": 0.3}, "lr": 1}, "finetune")
    assert base == {"lr": 1, "task": {"kind": "a", "dropout": 0.3, "mode": "lora"}, "batch_size": 8}
    assert base_settings(Job, {"preset": preset, "task": {"kind": "b"}}, "finetune")["task"] == {"kind": "b"}
    with pytest.raises(Refused, match=r"BAD_SETTINGS: finetune: .*absent\.yaml: No such file"):
        base_settings(Job, str(tmp_path / "absent.yaml"), "finetune")


def test_drawn_values_leave_the_settings_they_are_put_into_alone():
    base = {"task": {"dropout": 0.1}}
    assert with_values(base, {"task.dropout": 0.4, "source.path": "x"}) == {
        "task": {"dropout": 0.4},
        "source": {"path": "x"},
    }
    assert base == {"task": {"dropout": 0.1}}
