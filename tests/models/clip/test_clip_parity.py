"""States, texts and logits are those of the plain transformers model, whatever the batch."""

import pyarrow as pa
import pytest
import torch
from PIL import Image

from tests.clip_examples import captions, noise, write_clip
from tests.rounding import assert_same_but_rounding
from xfm.core.schema import REFUSED, ROW_ID, SHARD, TEXT
from xfm.models.clip import network as network_module
from xfm.models.clip.config import CLIP
from xfm.models.clip.network import CLIPBackbone
from xfm.tokenizers.image import centre_crop


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def plain(checkpoint):
    from transformers import CLIPModel

    return CLIPModel.from_pretrained(checkpoint, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def backbone(checkpoint):
    return CLIP(checkpoint=str(checkpoint)).build("cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    return [noise(w, h, seed=i) for i, (w, h) in enumerate([(30, 24), (24, 24), (90, 31), (17, 60), (5, 5)])]


TEXTS = [
    *captions(),
    "red",
    "a photo of the biggest red square and of the smallest blue square of all " * 2,
    "naïve Ünïcode ☃",
]


def tokens_of(config, images):
    import numpy as np

    tokenizer = config.tokenizer(0)
    return tokenizer.tokens(np.stack([centre_crop(image, tokenizer.size) for image in images]))


def prompts_of(config, texts):
    n = len(texts)
    columns = {ROW_ID: [str(i) for i in range(n)], SHARD: ["s"] * n, REFUSED: [None] * n, TEXT: texts}
    tokenizer = config.prompt_tokenizer()
    batch = pa.RecordBatch.from_pydict({name: pa.array(column, pa.string()) for name, column in columns.items()})
    return tokenizer.collate(tokenizer(batch))


def inputs_of(checkpoint, texts, images):
    """As any user of transformers gets them."""
    from transformers import AutoTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    pixels = CLIPImageProcessorPil.from_pretrained(checkpoint)(images, return_tensors="pt")
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    return tokenizer(texts, padding=True, truncation=True, return_tensors="pt") | pixels


@pytest.mark.parametrize("group_tokens", [1, 25, 10**6])
def test_every_layer_is_the_hidden_state_of_transformers(
    checkpoint, plain, backbone, images, group_tokens, monkeypatch
):
    monkeypatch.setattr(network_module, "GROUP_TOKENS", group_tokens)
    inputs = inputs_of(checkpoint, ["a"], images)
    with torch.inference_mode():
        expected = plain.vision_model(inputs["pixel_values"], output_hidden_states=True).hidden_states
        states = list(backbone.layers(tokens_of(CLIP(checkpoint=str(checkpoint)), images)))
    assert len(states) == len(expected) == backbone.n_layers + 1 == 3
    for state, other in zip(states, expected, strict=True):
        assert_same_but_rounding(state, other, 64)


def test_embeddings_and_logits_are_those_of_transformers(checkpoint, plain, backbone, images):
    config = CLIP(checkpoint=str(checkpoint))
    tokens, prompts = tokens_of(config, images), prompts_of(config, TEXTS)
    inputs = inputs_of(checkpoint, TEXTS, images)
    assert torch.equal(prompts.ids, inputs["input_ids"])
    assert torch.equal(prompts.is_token, inputs["attention_mask"].bool())
    with torch.inference_mode():
        expected = plain(**inputs)
        *_, last = backbone.layers(tokens)
        found, texts = backbone.images(tokens), backbone.texts(prompts.ids, prompts.is_token)
        assert_same_but_rounding(backbone.lens(last), expected.image_embeds, 128)
        assert_same_but_rounding(found, expected.image_embeds, 128)
        assert_same_but_rounding(texts, expected.text_embeds, 128)
        assert_same_but_rounding(backbone.scale * found @ texts.T, expected.logits_per_image, 128)
    assert found.shape == (5, backbone.projection_dim)
    assert expected.text_embeds.std(0).max() > 0.01  # texts differ


def test_a_cut_text_keeps_its_end_token(checkpoint):
    config = CLIP(checkpoint=str(checkpoint))
    tokenizer = config.prompt_tokenizer()
    ids = tokenizer.subwords.encode("red " * 100).ids
    assert len(ids) == tokenizer.max_length == 16
    assert ids[-1] == tokenizer.subwords.token_to_id("<|endoftext|>")


def test_a_text_alone_is_the_text_in_its_batch(checkpoint, backbone):
    config = CLIP(checkpoint=str(checkpoint))
    together = prompts_of(config, TEXTS)
    with torch.inference_mode():
        expected = backbone.texts(together.ids, together.is_token)
        for text, row in zip(TEXTS, expected, strict=True):
            alone = prompts_of(config, [text])
            assert_same_but_rounding(backbone.texts(alone.ids, alone.is_token)[0], row, 128)


def test_who_stops_early_does_not_pay_for_deeper_blocks(checkpoint, images):
    config = CLIP(checkpoint=str(checkpoint))
    backbone, entered = config.build("cpu"), []
    for i, block in enumerate(backbone.blocks):
        block.register_forward_pre_hook(lambda module, inputs, i=i: entered.append(i))
    states = backbone.layers(tokens_of(config, images))
    next(states)
    assert entered == []
    next(states)
    assert entered == [0]


def test_gradients_are_those_of_transformers(checkpoint, plain, images):
    """In training mode the contrastive loss reaches every parameter of both towers, with the same gradient."""
    config = CLIP(checkpoint=str(checkpoint))
    backbone, texts = config.build("cpu").train(), TEXTS[: len(images)]
    tokens, prompts = tokens_of(config, images), prompts_of(config, texts)
    logits = backbone.scale * backbone.images(tokens) @ backbone.texts(prompts.ids, prompts.is_token).T
    torch.nn.functional.cross_entropy(logits, torch.arange(5)).backward()
    expected = plain(**inputs_of(checkpoint, texts, images)).logits_per_image
    plain.zero_grad()
    torch.nn.functional.cross_entropy(expected, torch.arange(5)).backward()
    for (name, mine), other in zip(backbone.network.named_parameters(), plain.parameters(), strict=True):
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(
            mine.grad, other.grad, rtol=0, atol=1e-4 * max(scale, 1e-2), msg=lambda m, n=name: f"{n}: {m}"
        )


@pytest.mark.parametrize(
    ("size", "patch", "width", "tokens"), [(224, 32, 768, 50), (224, 16, 768, 197), (224, 14, 1024, 257)]
)
def test_the_published_sizes_have_the_tokens_of_their_patches(tmp_path, size, patch, width, tokens):
    """ViT-B/32, B/16 and L/14 but for their depth: the image tower is built without weights."""
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings

    from xfm.models.clip.config import image_tokenizer
    from xfm.models.clip.files import Preparation

    heads = width // 64
    vision = CLIPVisionConfig(image_size=size, patch_size=patch, hidden_size=width, num_attention_heads=heads)
    with torch.device("meta"):
        assert CLIPVisionEmbeddings(vision).num_positions == tokens
    assert image_tokenizer(vision, Preparation(size, size)).n_tokens == tokens


def test_half_precision_on_disk_is_computed_in_float32(checkpoint, plain, tmp_path):
    import shutil

    from transformers import CLIPModel

    half = shutil.copytree(checkpoint, tmp_path / "half")
    CLIPModel.from_pretrained(checkpoint).half().save_pretrained(half)
    assert CLIPModel.from_pretrained(half).dtype == torch.float16  # what would happen otherwise
    backbone = CLIP(checkpoint=str(half)).build("cpu")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}


def test_other_means_and_deviations_are_applied(plain, images):
    import numpy as np
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, image_mean=mean, image_std=std
    )
    pixels = torch.from_numpy(np.stack([centre_crop(image, 24) for image in images]))
    found = CLIPBackbone(plain, mean, std).normalised(pixels)
    expected = processor(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found, expected, rtol=0, atol=2.4e-7 * 2)  # up to 5 standard deviations in float32
