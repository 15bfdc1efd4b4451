"""The classifier and the actor of a zero-shot job against transformers on the same pictures and prompts."""

from io import BytesIO

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from tests.clip_examples import Pictures, pictures, write_clip
from tests.rounding import assert_same_but_rounding
from xfm.compute.read import read_tokens
from xfm.core.errors import EnvironmentProblem, Refused
from xfm.models.clip.config import CLIP
from xfm.models.clip.prompts import ClassPrompts
from xfm.studies.zero_shot.classifier import PromptWork, assemble, encode, read_classifier
from xfm.studies.zero_shot.scorer import Head, LensScorer

CLASSES = ("red", "green", "blue", "été", "round", "pale_pink")
PROMPTS = ClassPrompts(classes=CLASSES, templates=("a photo of a {} square.", "the {} one")).prompts()
LONG = "very " * 30 + "{}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture(scope="module")
def reference(folder):
    """transformers' own model and processor, and the picture of every good row."""
    from transformers import CLIPModel, CLIPProcessor

    images, _ = pictures(12)
    return CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder), images


def classifier_of(folder, prompts):
    backbone = CLIP(checkpoint=str(folder))
    work = PromptWork({"trained": backbone}, {"trained": backbone.identity()}, {"p": prompts}, "cpu")
    return assemble([encode(work, key) for key in work.keys("trained", "p")], prompts, backbone.identity())


def text_features(reference, texts):
    model, processor, _ = reference
    inputs = processor(text=list(texts), padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return normalize(model.get_text_features(**inputs).pooler_output, dim=-1)


def scored(folder, heads, **more):
    backbone = CLIP(checkpoint=str(folder))
    settings = {"batch_tokens": 35, "device": "cpu", "seed": 0, "identity": backbone.identity()} | more
    scorer = LensScorer(backbone, heads, **settings)
    source = Pictures()
    return pa.concat_tables(
        [scorer(read_tokens(source, backbone.tokenizer(0), shard).tokens) for shard in source.shards()]
    )


def stacked(table, name):
    return np.stack(table[name].to_pylist())


def test_a_class_is_the_mean_of_its_prompts_by_transformers(folder, reference):
    made = classifier_of(folder, PROMPTS)
    by_class = [text_features(reference, own) for own in PROMPTS.texts]
    expected = normalize(torch.stack([own.mean(dim=0) for own in by_class]), dim=-1)
    np.testing.assert_allclose(made.weights, expected.numpy(), atol=1e-5)
    assert made.cut == 0


def test_prompts_that_are_too_long_are_cut_as_transformers_cuts_them_and_counted(folder, reference):
    prompts = ClassPrompts(classes=CLASSES, templates=("a {}",), class_templates={"red": (LONG, "a {}")}).prompts()
    made = classifier_of(folder, prompts)
    own = text_features(reference, prompts.texts[0])
    np.testing.assert_allclose(made.weights[0], normalize(own.mean(dim=0), dim=-1).numpy(), atol=1e-5)
    assert made.cut == 1


def test_blocks_of_classes_make_the_same_classifier(folder, monkeypatch):
    whole = classifier_of(folder, PROMPTS)
    monkeypatch.setattr("xfm.studies.zero_shot.classifier.BLOCK_TEXTS", 4)
    backbone = CLIP(checkpoint=str(folder))
    work = PromptWork({"trained": backbone}, {"trained": backbone.identity()}, {"p": PROMPTS}, "cpu")
    assert work.keys("trained", "p") == [f"trained-p-{start:06d}" for start in (0, 2, 4)]
    # Texts are padded to the longest of their batch, which another batch does not share.
    assert_same_but_rounding(classifier_of(folder, PROMPTS).weights, whole.weights, 64)


def test_guesses_are_the_logits_of_transformers_in_their_order(folder, reference):
    model, processor, images = reference
    one = PROMPTS.with_template("a photo of a {}.")
    head = Head("lens", classifier_of(folder, one).weights, (0, 1, 2))
    table = scored(folder, [head], keep_logits=True)
    good = [i for i in range(12) if i != 3]
    assert table["row_id"].to_pylist() == [f"picture-{i}" for i in good]
    opened = [Image.open(BytesIO(images[i])).convert("RGB") for i in good]
    inputs = processor(text=[own[0] for own in one.texts], images=opened, padding=True, return_tensors="pt")
    with torch.inference_mode():
        logits = model(**inputs).logits_per_image
    scale = float(model.logit_scale.detach().exp())
    np.testing.assert_allclose(stacked(table, "lens_l02_all"), logits.numpy(), atol=1e-4 * scale)
    np.testing.assert_array_equal(stacked(table, "lens_l02_classes")[:, 0], logits.argmax(dim=1).numpy())
    best = logits.topk(5, dim=1)
    np.testing.assert_allclose(stacked(table, "lens_l02_logits"), best.values.numpy(), atol=1e-4 * scale)
    confidence = logits.softmax(dim=1).amax(dim=1).numpy()
    np.testing.assert_allclose(table["lens_l02_confidence"].to_numpy(), confidence, atol=1e-4)
    assert table["learned_scale"][0].as_py() == pytest.approx(scale)
    assert "lens_l01_all" not in table.column_names


def test_a_middle_layer_is_read_by_the_last_normalisation_and_projection(folder, reference):
    model, processor, images = reference
    from io import BytesIO

    from PIL import Image

    made = classifier_of(folder, PROMPTS)
    table = scored(folder, [Head("lens", made.weights, (0, 1, 2))])
    good = [i for i in range(12) if i != 3]
    opened = [Image.open(BytesIO(images[i])).convert("RGB") for i in good]
    inputs = processor(images=opened, return_tensors="pt")
    with torch.inference_mode():
        states = model.vision_model(**inputs, output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            pooled = model.vision_model.post_layernorm(state[:, 0])
            vectors = normalize(model.visual_projection(pooled), dim=-1)
            logits = model.logit_scale.exp() * vectors @ torch.from_numpy(made.weights).T
            found = stacked(table, f"lens_l{layer:02d}_logits")
            np.testing.assert_allclose(found, logits.topk(5, dim=1).values.numpy(), atol=2e-3)


def test_a_second_head_reads_the_same_pass_at_its_own_layers(folder):
    weights = classifier_of(folder, PROMPTS).weights
    table = scored(folder, [Head("lens", weights, (0, 2)), Head("one_template", weights, (2,))])
    assert table["lens_l02_classes"] == table["one_template_l02_classes"]
    assert {name for name in table.column_names if name.endswith("classes")} == {
        "lens_l00_classes", "lens_l02_classes", "one_template_l02_classes",
    }  # fmt: skip


def test_no_row_gives_the_columns_of_any(folder):
    backbone = CLIP(checkpoint=str(folder))
    scorer = LensScorer(backbone, [Head("lens", classifier_of(folder, PROMPTS).weights, (1, 2))], batch_tokens=64,
                        device="cpu", seed=0)  # fmt: skip
    source = Pictures()
    tokens = read_tokens(source, backbone.tokenizer(0), source.shards()[0]).tokens
    assert scorer(tokens.slice(0, 0)).schema == scorer(tokens).schema


def test_a_classifier_of_another_space_or_other_weights_are_refused(folder, tmp_path):
    with pytest.raises(Refused, match="OTHER_WIDTH"):
        scored(folder, [Head("lens", np.ones((6, 3), np.float32), (2,))])
    with pytest.raises(EnvironmentProblem):
        scored(folder, [], identity={"model.safetensors": "another"})


def test_a_classifier_survives_its_file_and_no_other_file_is_taken_for_one(folder, tmp_path):
    made = classifier_of(folder, PROMPTS)
    (tmp_path / "classifier.safetensors").write_bytes(made.to_bytes())
    for place in (tmp_path, tmp_path / "classifier.safetensors"):
        read = read_classifier(str(place))
        assert (read.prompts, read.made_by, read.digest()) == (made.prompts, dict(made.made_by), made.digest())
        np.testing.assert_array_equal(read.weights, made.weights)
    with pytest.raises(Refused, match="NO_CLASSIFIER"):
        read_classifier(str(tmp_path / "nowhere"))
    with pytest.raises(Refused, match="BAD_CLASSIFIER"):
        read_classifier(str(folder / "model.safetensors"))
    (tmp_path / "torn.safetensors").write_bytes(made.to_bytes()[:100])
    with pytest.raises(Refused, match="BAD_CLASSIFIER"):
        read_classifier(str(tmp_path / "torn.safetensors"))
