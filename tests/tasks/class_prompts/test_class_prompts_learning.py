"""CLIP adapted to a few pictures by their classes' sentences, without Ray."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.picture_examples import BUILDING, COLOURS, fresh, pictures, workers
from tests.rounding import assert_same_but_rounding
from xfm.core.ledger import part_name
from xfm.core.parts import TEST, VALIDATION
from xfm.core.schema import IMAGE, PART, ROW_ID
from xfm.judging.labelled import SplitWithContent, labelled_rows
from xfm.models.clip.config import CLIP
from xfm.models.clip.prompts import ClassPrompts
from xfm.models.clip.writing import save_clip, write_checkpoint
from xfm.tasks.class_prompts.learner import ClassPromptsLearner
from xfm.tasks.class_prompts.recipe import ClassPromptsRecipe, Images, few_shots
from xfm.tasks.class_prompts.scores import ADAPTED, adapted_scores, arranged, score_table, with_all_classes
from xfm.tasks.class_prompts.settings import ClassPromptTuning
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.tokens import TokenParts, TokenStore, token_parts
from xfm.training.trainer import Trainer

SETTINGS = Settings(
    steps=30, batch_size=8, lr=2e-2, warmup=0, schedule="constant", weight_decay=0.0, clip=1.0, log_every=15,
    checkpoint_every=30, max_seconds=None, seed=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "checkpoint"
    write_checkpoint(folder, fresh().build("cpu"), fresh())
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> TokenParts:
    """56 pictures in two parts: 32 to train on, 8 for validation, 16 to test."""
    folder = tmp_path_factory.mktemp("tokens")
    splits = ["train"] * 16 + ["validation"] * 4 + ["test"] * 8
    for number in range(2):
        table = pictures(range(28 * number, 28 * number + 28), [0] * 28).drop_columns([PART])
        table = SplitWithContent(0, 0.0, split="split")(table.append_column("split", pa.array(splits)))
        path = folder / part_name(f"part-{number}")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return token_parts(str(folder), ["part-0", "part-1"])


def recipe(checkpoint: Path, parts: TokenParts, batch_tokens: int = 10_000, **task) -> ClassPromptsRecipe:
    settings = {"label": "colour", "shots": 4, "rank": 2, "alpha": 8.0, "dropout": 0.0, "augment": False}
    settings |= {"templates": ("a {} square",)} | task
    tuning, backbone = ClassPromptTuning(**settings), CLIP(checkpoint=str(checkpoint))
    prompts = arranged(tuning.prompts(list(COLOURS)), sorted(COLOURS))
    return ClassPromptsRecipe(
        backbone, tuning, Images(parts, "colour", prompts), None, 8, batch_tokens, 0, 0, backbone.identity()
    )


def learner(of: ClassPromptsRecipe, group: Group | None = None) -> ClassPromptsLearner:
    with BUILDING:
        return of.build(group or Group(), "cpu")


def gradient(of: ClassPromptsLearner, step: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    of.network.zero_grad()
    examples = of.examples(step)
    counts = of.group.sum(torch.tensor(of.counts(examples, step), dtype=torch.float64))
    losses = of.backward(examples, counts, step)
    return torch.cat([p.grad.flatten() for p in of.network.parameters() if p.requires_grad]), losses


def moved(of: ClassPromptsLearner) -> ClassPromptsLearner:
    """With updates that do something; B is 0 at first."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in of.network.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=generator)
    return of


def by_transformers(folder: Path, parts: TokenParts, part: int) -> tuple[torch.Tensor, list[str]]:
    """(N, 4) logits of a part, as the package `transformers` computes them from the folder alone."""
    from transformers import AutoTokenizer, CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    table = TokenStore(parts).take(*parts.everything(part))
    model, words = CLIPModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    texts = words([f"a {word} square" for word in sorted(COLOURS)], return_tensors="pt", padding=True,
                  truncation=True)  # fmt: skip
    seen = [Image.open(pa.BufferReader(data.as_py())).convert("RGB") for data in table[IMAGE]]
    pixels = CLIPImageProcessorPil.from_pretrained(folder)(seen, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return model(pixel_values=pixels, **texts).logits_per_image, table[ROW_ID].to_pylist()


@pytest.mark.parametrize("tower", ["image", "text", "both"])
def test_before_the_first_step_it_is_zero_shot(checkpoint, parts, tower):
    expected, _ = by_transformers(checkpoint, parts, TEST)
    of = learner(recipe(checkpoint, parts, tower=tower))
    logits, codes = of.logits(of.recipe.images, TEST)
    assert_same_but_rounding(logits, expected, 256)
    assert codes.shape == (16,)


@pytest.mark.parametrize("tower", ["image", "text", "both"])
def test_merged_and_read_as_a_plain_clip_it_says_the_same(checkpoint, parts, tower, tmp_path):
    of = recipe(checkpoint, parts, tower=tower, shares=(0.5, 1.0))
    trained = Trainer(learner(of), SETTINGS).run(lambda: None)
    for place, share in enumerate((0.0, 0.5, 1.0)):
        folder = tmp_path / f"{share:g}"
        save_clip(folder, of.merged(trained.weights, share).network, of.backbone.folder)
        expected, _ = by_transformers(folder, parts, TEST)
        # A cosine times a scale of 14.
        np.testing.assert_allclose(trained.outcome["test"][place], expected.numpy(), atol=1e-4)
    assert np.abs(trained.outcome["test"][2] - trained.outcome["test"][0]).max() > 0.1, "training changed something"


@pytest.mark.parametrize(("tower", "numbers"), [("image", (384, 0)), ("text", (0, 192)), ("both", (384, 192))])
def test_only_the_towers_that_were_asked_for_are_trained(checkpoint, parts, tower, numbers):
    """A projection 16 -> 16 has updates of 2 x 16 + 16 x 2 numbers; three of them a block, two and one blocks."""
    of = learner(recipe(checkpoint, parts, tower=tower))
    before = {name: tensor.clone() for name, tensor in of.network.state_dict().items()}
    outcome = Trainer(of, SETTINGS).run(lambda: None).outcome
    assert (outcome["trained"]["image"], outcome["trained"]["text"]) == numbers
    changed = {name for name, tensor in of.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all("lora_" in name for name in changed)
    assert {"vision" in name for name in changed} == {"image": {True}, "text": {False}, "both": {True, False}}[tower]


@pytest.mark.parametrize("tower", ["image", "text", "both"])
def test_gradients_of_two_workers_add_up_to_that_of_one(checkpoint, parts, tower):
    of = recipe(checkpoint, parts, tower=tower)
    whole, loss = gradient(moved(learner(of)), 1)
    found = workers(2, lambda group: gradient(moved(learner(of, group)), 1))
    assert_same_but_rounding(sum(part for part, _ in found), whole, 256)
    assert_same_but_rounding(sum(part for _, part in found), loss, 16)


def test_a_batch_that_takes_several_passes_has_the_same_gradient(checkpoint, parts):
    """Five tokens a picture: 16 a pass are three pictures."""
    of = moved(learner(recipe(checkpoint, parts, batch_tokens=16, tower="both")))
    assert [len(example.codes) for example in of.examples(0)] == [3, 3, 2]
    whole = moved(learner(recipe(checkpoint, parts, tower="both")))
    assert_same_but_rounding(gradient(of)[0], gradient(whole)[0], 256)


def test_the_loss_falls_and_is_the_cross_entropy_over_the_classes_sentences(checkpoint, parts):
    of = learner(recipe(checkpoint, parts, shots="all"))
    (example,) = of.examples(0)
    images = of.network.images(example.tokens).detach()
    texts = of.class_vectors(of._texts, of.recipe.images.prompts).detach()
    expected = torch.nn.functional.cross_entropy(of.network.scale.detach() * images @ texts.T, example.codes)
    assert gradient(of)[1].item() / 8 == pytest.approx(expected.item(), rel=1e-5)
    history = Trainer(of, SETTINGS).run(lambda: None).history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert history[-1]["validation_accuracy"] > 0.5


def test_validation_does_not_depend_on_the_number_of_workers(checkpoint, parts):
    of = recipe(checkpoint, parts)
    alone = moved(learner(of)).validate(0)
    for found in workers(3, lambda group: moved(learner(of, group)).validate(0)):
        assert found == pytest.approx(alone, rel=1e-5)


def test_training_and_validating_read_no_test_row(checkpoint, parts):
    of = learner(recipe(checkpoint, parts, shots="all"))
    seen, take = set(), of.store.take

    def watched(numbers, rows):
        table = take(numbers, rows)
        seen.update(table[ROW_ID].to_pylist())
        return table

    of.store.take = watched
    for step in range(8):
        of.examples(step)
    of.validate(0)
    test = set(by_ids(parts, TEST))
    assert len(seen) == 40
    assert not seen & test
    of.outcome(0)
    assert test < seen


def by_ids(parts: TokenParts, part: int) -> list[str]:
    return TokenStore(parts).take(*parts.everything(part))[ROW_ID].to_pylist()


def test_crops_are_new_in_each_epoch_and_the_same_for_any_number_of_workers(checkpoint, parts):
    of = recipe(checkpoint, parts, augment=True)
    alone = learner(of)
    (first,), (second,) = alone.examples(0), alone.examples(alone.steps_per_epoch)
    assert not torch.equal(first.tokens.pixels, second.tokens.pixels)
    shares = workers(2, lambda group: learner(of, group).examples(0))
    both = torch.cat([example.tokens.pixels for share in shares for example in share])
    assert sorted(map(bytes, both.numpy())) == sorted(map(bytes, first.tokens.pixels.numpy()))


def test_shots_are_nested_balanced_and_drawn_by_seed():
    ids, codes = [f"row{i}" for i in range(200)], np.arange(200) % 5
    codes[190:] = -1
    chosen = {shots: few_shots(ids, codes, shots, 0) for shots in (1, 2, 4, 16)}
    for shots, rows in chosen.items():
        assert np.bincount(codes[rows], minlength=5).tolist() == [shots] * 5
    assert set(chosen[1]) < set(chosen[2]) < set(chosen[4]) < set(chosen[16])
    assert set(few_shots(ids, codes, 4, 1)) != set(chosen[4])
    assert len(few_shots(ids, codes, "all", 0)) == 190
    assert np.bincount(codes[few_shots(ids, codes, 100, 0)]).tolist() == [38] * 5, "what there is"


def rows_of(parts: TokenParts):
    return labelled_rows(TokenStore(parts), "colour", None, seed=0, resamples=50)


def outcome_of(parts: TokenParts, right: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Logits of which so many rows are right at each share, the others wrong."""
    labelled = rows_of(parts)
    found = {}
    for name, part in (("validation", VALIDATION), ("test", TEST)):
        codes = labelled.label.codes[labelled.held(part)]
        guesses = [np.where(np.arange(len(codes)) < n, codes, (codes + 1) % 4) for n in right[name]]
        found[name] = np.stack([np.eye(4, dtype=np.float32)[guess] for guess in guesses])
    return found


def test_the_share_is_chosen_on_validation_and_of_equals_the_smallest(parts):
    outcome = outcome_of(parts, {"validation": [2, 6, 6], "test": [4, 8, 16]})
    adapted = adapted_scores(outcome, rows_of(parts), (0.0, 0.5, 1.0))
    assert adapted.share == 0.5
    assert [score.value for score in adapted.test.accuracy] == [0.25, 0.5, 1.0]
    gain = adapted.difference["accuracy"]
    assert gain.difference.value == pytest.approx(0.25)
    # McNemar, exact: four images are right at the chosen share alone, none before alone; 2 / 2^4.
    assert gain.p == pytest.approx(0.125)
    names = score_table(outcome, rows_of(parts), adapted)["representation"].unique().to_pylist()
    assert names == [ADAPTED, "zero_shot", f"{ADAPTED}_share_1", "majority", "chance"]


def test_classes_without_a_row_are_asked_for_and_rows_of_no_class_left_out(parts):
    prompts = arranged(ClassPrompts(label="colour", classes=("pink", "red", "blue")).prompts(), sorted(COLOURS))
    assert prompts.values == ("blue", "red", "pink")
    labelled = with_all_classes(rows_of(parts), prompts)
    assert labelled.label.classes == ("blue", "red", "pink")
    ids = dict(zip(labelled.judged.row_ids, labelled.label.codes.tolist(), strict=True))
    words = list(COLOURS)
    assert all(code == {"blue": 0, "red": 1}.get(words[int(row[3:]) % 4], -1) for row, code in ids.items())
    assert "28 rows are of none of the 3 classes (green, yellow)" in " ".join(labelled.warnings)


def test_a_network_without_a_text_tower_or_with_no_such_share_is_refused():
    with pytest.raises(ValueError, match="less than or equal to 1"):
        ClassPromptTuning(shares=(0.0, 1.5))
    assert ClassPromptTuning(shares=(1.0, 0.5)).shares == (0.0, 0.5, 1.0)
