"""Class lists that do not fit the rows, before anything is trained."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.picture_examples import fresh, pictures
from xfm.core.errors import Refused
from xfm.core.ledger import part_name
from xfm.core.schema import PART
from xfm.engine.learn import Prepared, recipe_of, task_of
from xfm.engine.learn_config import FinetuneConfig
from xfm.judging.labelled import SplitWithContent, labelled_rows
from xfm.models.clip.prompts import ClassPrompts
from xfm.models.clip.writing import write_checkpoint
from xfm.tasks.class_prompts.task import other_images, strangers
from xfm.training.tokens import TokenParts, TokenStore, token_parts


@pytest.fixture
def parts(tmp_path) -> TokenParts:
    """12 pictures, 8 to train on, and a class by number, 0 to 3."""
    table = pictures(range(12), [0] * 12).drop_columns([PART])
    table = table.append_column("number", pa.array([i % 4 for i in range(12)], pa.int32()))
    table = table.append_column("split", pa.array(["train"] * 8 + ["validation"] * 2 + ["test"] * 2))
    path = tmp_path / part_name("a")
    path.parent.mkdir(parents=True)
    pq.write_table(SplitWithContent(0, 0.0, split="split")(table), path)
    return token_parts(str(tmp_path), ["a"])


def prepared(config: FinetuneConfig, parts: TokenParts) -> Prepared:
    labelled = labelled_rows(TokenStore(parts), "colour", None, seed=0, resamples=10, noun="images")
    plan = SimpleNamespace(weights={}, run={"recipe": {"config": config.recipe()}})
    return Prepared(plan, parts, labelled, {}, None)  # type: ignore[arg-type]


def config(folder: Path, job: dict[str, Any] | None = None, **task) -> FinetuneConfig:
    write_checkpoint(folder, fresh().build("cpu"), fresh())
    return FinetuneConfig.model_validate({
        "source": {"kind": "digits"}, "backbone": {"kind": "clip", "checkpoint": str(folder)}, "output": "out",
        "task": {"kind": "class_prompts", "label": "colour", "shots": 4, **task}, **(job or {}),
    })  # fmt: skip


@pytest.mark.parametrize(("classes", "part"), [(["cat", "dog"], "training"), (["green", "red"], "test")])
def test_listed_classes_that_no_row_has_are_refused_before_training(parts, tmp_path, classes, part):
    asked = config(tmp_path / "clip", classes=classes)
    with pytest.raises(Refused, match=f"NO_ROWS: no {part} images are of the classes {', '.join(classes)}"):
        recipe_of(asked, prepared(asked, parts))


def test_a_batch_is_no_larger_than_the_shots(parts, tmp_path):
    asked = config(tmp_path / "clip", shots=1)
    recipe, settings = recipe_of(asked, prepared(asked, parts))
    assert settings.batch_size == 4
    assert (settings.steps, settings.checkpoint_every, settings.watch) == (500, 50, "")
    assert len(recipe.shots()[0]) == task_of(asked).epoch_rows(parts, prepared(asked, parts).rows) == 4


def test_the_whole_run_counts_unless_something_is_watched(tmp_path):
    for number, (asked, watched) in enumerate([({}, None), ({"watch": "loss"}, "loss"), ({"patience": 2}, "f1")]):
        assert config(tmp_path / f"clip-{number}", asked).watch == watched


def test_a_network_without_sentences_is_refused(tmp_path):
    other = config(tmp_path / "clip", {"backbone": {"kind": "hf_text", "checkpoint": "x"}})
    with pytest.raises(Refused, match=r"NO_TEXT_TOWER: --backbone\.kind hf_text"):
        task_of(other)


def test_the_very_rows_that_are_trained_on_are_none_to_forget(tmp_path):
    same = config(tmp_path / "clip", {"forgetting": {"kind": "digits"}})
    with pytest.raises(Refused, match="SAME_DATA: --forgetting names the very rows"):
        task_of(same).extra_sources()


def test_the_class_0_is_a_class_to_forget(parts):
    assert other_images(parts, ClassPrompts(label="number")).prompts.values == ("0", "1", "2", "3")


def test_other_images_of_none_of_the_listed_classes_are_refused(parts):
    with pytest.raises(Refused, match="NO_ROWS: --forgetting: no image is of the classes seven, eight"):
        other_images(parts, ClassPrompts(label="number", classes=("seven", "eight")))


def test_other_images_without_a_class_are_counted():
    assert strangers(SimpleNamespace(outcome={"forgetting_codes": np.array([0, -1, 2])})) == [  # type: ignore[arg-type]
        "1 of 3 images for forgetting have none of the classes: left out."
    ]
    assert strangers(SimpleNamespace(outcome={})) == []  # type: ignore[arg-type]
