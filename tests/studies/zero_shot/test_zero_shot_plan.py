"""What a zero-shot job refuses and says before it starts a worker."""

import pytest

from tests.clip_examples import write_clip
from tests.text_examples import write_encoder
from tests.zero_shot_examples import write_colours
from xfm.core.errors import Refused
from xfm.engine.settings import UsageError, parse
from xfm.studies.zero_shot.config import ZeroShotJob
from xfm.studies.zero_shot.run import describe, plan_zero_shot


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """Flags that every start has."""
    folder = tmp_path_factory.mktemp("plan")
    return ["--source.kind", "hub_images", "--source.path", str(write_colours(folder / "data")),
            "--source.shard_rows", "16", "--backbone.kind", "clip",
            "--backbone.checkpoint", str(write_clip(folder / "clip")), "--output", str(folder / "out")]  # fmt: skip


def planned(words, *more):
    return plan_zero_shot(parse(ZeroShotJob, [*words, *more], {}, "jobs/zero_shot.py"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--classes", "red,blue,red"], "DUPLICATE_CLASSES: the value 'red' stands twice"),
        (["--classes", "red=crane,blue=Crane"], "DUPLICATE_CLASSES: classes 'red' and 'blue'"),
        (["--label", "species"], "species"),
        (["--label", "image"], "image"),
        (["--group", "photographer"], "photographer"),
        (["--split", "=test"], "BAD_SPLIT"),
        (["--layers", "3"], "NO_LAYER"),
        (["--classifier", "nowhere"], "NO_CLASSIFIER"),
    ],
)
def test_misuse_is_refused_on_the_driver(words, more, message):
    with pytest.raises(Refused) as problem:
        planned(words, *more)
    assert message in str(problem.value)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--templates", "a photo"], "--templates: 'a photo' needs exactly one {}"),
        (["--templates", "a photo of a {}, a pet"], "'a pet' needs exactly one {}"),
        (["--classifier", "x", "--classes", "a,b"], "brings its own classes and prompts; leave out --classes"),
        (["--baselines", "pca"], "--baselines"),
    ],
)
def test_settings_that_do_not_fit_are_usage_errors(words, more, message):
    with pytest.raises(UsageError) as problem:
        planned(words, *more)
    assert message in str(problem.value)


def test_a_network_without_a_text_tower_is_refused(words, tmp_path):
    bert = ["--backbone.kind", "hf_text", "--backbone.checkpoint", str(write_encoder(tmp_path / "bert", "bert"))]
    with pytest.raises(Refused, match="NO_TEXT_TOWER"):
        planned(words, *bert)


def test_a_plan_says_what_is_asked_of_which_rows(words):
    plan = planned(words, "--classes", "black,white", "--split", "split=test", "--layers", "0")
    said = describe(plan)
    assert "2, 2 prompts, e.g. 'a photo of a black.'" in said
    assert "rows          42" in said
    assert "the images whose split is test" in said
    assert plan.layers == (0, 2)
    assert "the values of label that are found, 1 templates" in describe(planned(words))


def test_words_and_places_change_no_recipe_and_prompts_do(words):
    recipe = planned(words).shards.run["recipe"]
    assert planned(words, "--notes", "published: 98.46").shards.run["recipe"] == recipe
    assert planned(words, "--templates", "the {}").shards.run["recipe"] != recipe


def test_a_mapping_of_classes_comes_from_yaml(words, tmp_path):
    path = tmp_path / "preset.yaml"
    path.write_text("classes: {black: coal, white: snow}\ntemplates: ['a photo of {}, of course.']\n"
                    "class_templates: {white: ['it is white']}\n")  # fmt: skip
    prompts = planned(words, "--config", str(path)).prompts
    assert prompts.texts == (("a photo of coal, of course.",), ("it is white",))
