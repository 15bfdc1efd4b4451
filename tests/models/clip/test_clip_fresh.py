"""An untrained CLIP, and the plain folder that transformers and kind clip read back with the same numbers."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.clip_examples import captions, fresh_clip, noise
from xfm.core.errors import Refused
from xfm.models.clip.config import CLIP
from xfm.models.clip.fresh import END, START, CLIPSizes, FreshCLIP, byte_pairs
from xfm.models.clip.writing import save_clip, write_checkpoint
from xfm.tokenizers.image import centre_crop

TEXTS = ["a photo of a red square", "un carré été", "RED  sQuare", "naïve ☃ 12"]


@pytest.fixture(scope="module")
def fresh():
    return fresh_clip()


@pytest.fixture(scope="module")
def folder(fresh, tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "deep" / "clip"
    write_checkpoint(folder, fresh.build("cpu"), fresh)
    return folder


def test_byte_pairs_give_every_text_back(fresh):
    tokenizer = fresh.hub_tokenizer()
    for text in [*captions(), "naïve ünïcode ☃ 漢字 12.5%", "être où ça"]:
        ids = tokenizer(text)["input_ids"]
        assert ids[0] == tokenizer.convert_tokens_to_ids(START)
        assert ids[-1] == tokenizer.convert_tokens_to_ids(END) == len(fresh.tokens) - 1
        assert ids.count(ids[-1]) == 1  # nothing is unknown
        assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "").lower()


def test_frequent_words_are_one_token(fresh):
    tokenizer = fresh.hub_tokenizer()
    assert tokenizer.tokenize("square") == ["square</w>"]
    assert tokenizer.tokenize("Été") == tokenizer.tokenize("été")
    assert len(tokenizer.tokenize("été")) == 1


def test_the_vocabulary_is_as_large_as_asked_and_holds_all_bytes():
    tokens, merges = byte_pairs(captions(), 530)
    assert len(tokens) == len(set(tokens)) == 530
    assert len(merges) == 530 - 514
    assert byte_pairs(captions(), 1) == byte_pairs([], 600)
    assert len(byte_pairs([], 600)[0]) == 514


def test_byte_pairs_do_not_depend_on_order_or_process(fresh):
    assert byte_pairs(reversed(captions()), 560) == (fresh.tokens, fresh.merges)
    code = "from tests.clip_examples import fresh_clip; print(fresh_clip().identity()['vocabulary'])"
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert done.stdout.strip() == fresh.identity()["vocabulary"]


def test_weights_follow_from_the_seed_alone(fresh):
    state = torch.get_rng_state()
    one, again = fresh.build("cpu").state_dict(), fresh.build("cpu").state_dict()
    other = fresh.randomised(1)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    name = "network.visual_projection.weight"
    assert not torch.equal(one[name], other.build("cpu").state_dict()[name])
    assert other.identity() != fresh.identity()
    assert pickle.loads(pickle.dumps(fresh)) == fresh  # noqa: S301 - our own bytes
    assert FreshCLIP.model_validate_json(fresh.model_dump_json()) == fresh


def test_it_states_the_sizes_that_it_builds(fresh):
    backbone = fresh.build("cpu")
    assert (backbone.n_layers, backbone.dim) == (fresh.n_layers(), fresh.dim()) == (2, 32)
    assert backbone.projection_dim == 20
    assert not any(module.training for module in backbone.modules())
    tower = backbone.network.vision_model.embeddings
    assert fresh.tokenizer(0).n_tokens == tower.num_positions == 10
    assert (
        fresh.prompt_tokenizer().max_length == backbone.network.text_model.embeddings.position_embedding.num_embeddings
    )


def texts_of(recipe, backbone):
    tokenizer = recipe.prompt_tokenizer()
    rows = [tokenizer.subwords.encode(text).ids for text in TEXTS]
    ids = torch.full((len(rows), max(map(len, rows))), tokenizer.pad_id)
    for row, found in zip(ids, rows, strict=True):
        row[: len(found)] = torch.tensor(found)
    lengths = torch.tensor([len(row) for row in rows])
    with torch.inference_mode():
        return backbone.texts(ids, torch.arange(ids.shape[1])[None] < lengths[:, None])


def images_of(recipe, backbone, pictures):
    tokenizer = recipe.tokenizer(0)
    tokens = tokenizer.tokens(np.stack([centre_crop(picture, tokenizer.size) for picture in pictures]))
    with torch.inference_mode():
        return backbone.images(tokens)


def test_what_is_written_gives_the_same_numbers_everywhere(fresh, folder):
    from transformers import CLIPModel, CLIPProcessor

    pictures = [noise(30, 24), noise(50, 61, seed=1)]
    recipe, before = CLIP(checkpoint=str(folder)), fresh.build("cpu")
    after = recipe.build("cpu")
    recipe.describe()
    assert recipe.tokenizer(0) == fresh.tokenizer(0)
    assert torch.equal(texts_of(recipe, after), texts_of(fresh, before))
    assert torch.equal(images_of(recipe, after, pictures), images_of(fresh, before, pictures))
    processor: CLIPProcessor = CLIPProcessor.from_pretrained(folder, backend="pil")
    inputs = processor(text=TEXTS, images=pictures, padding=True, return_tensors="pt")
    with torch.inference_mode():
        found = CLIPModel.from_pretrained(folder).eval()(**inputs)
    torch.testing.assert_close(found.text_embeds, texts_of(fresh, before), rtol=0, atol=1e-5)
    torch.testing.assert_close(found.image_embeds, images_of(fresh, before, pictures), rtol=0, atol=1e-5)


def test_an_existing_folder_is_replaced_whole_or_not_at_all(fresh, folder):
    backbone = fresh.randomised(5).build("cpu")
    with pytest.raises(Refused, match="OUTPUT_EXISTS"):
        write_checkpoint(folder, backbone, fresh)
    (folder / "stray").write_text("old")
    write_checkpoint(folder, backbone, fresh, replace=True)
    assert not (folder / "stray").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["clip"]
    name = "network.visual_projection.weight"
    assert torch.equal(CLIP(checkpoint=str(folder)).build("cpu").state_dict()[name], backbone.state_dict()[name])


def test_a_tuned_network_is_saved_with_the_tokenizer_and_preparation_it_came_with(fresh, folder, tmp_path):
    from transformers import CLIPModel, CLIPProcessor

    recipe = CLIP(checkpoint=str(folder))
    backbone = recipe.build("cpu")
    with torch.no_grad():
        backbone.network.visual_projection.weight.mul_(-1)
    save_clip(tmp_path / "tuned", backbone.network, recipe.folder)
    tuned = CLIP(checkpoint=str(tmp_path / "tuned"))
    pictures = [noise(30, 24)]
    assert torch.equal(images_of(tuned, tuned.build("cpu"), pictures), images_of(recipe, backbone, pictures))
    one, other = recipe.identity(), tuned.identity()
    assert {name for name in one if one[name] != other[name]} == {"model.safetensors"}
    CLIPModel.from_pretrained(tmp_path / "tuned")
    CLIPProcessor.from_pretrained(tmp_path / "tuned", backend="pil")
    with pytest.raises(Refused, match="OUTPUT_EXISTS"):
        save_clip(tmp_path / "tuned", backbone.network, recipe.folder)


def test_writing_that_fails_leaves_nothing(fresh, tmp_path):
    with pytest.raises(AttributeError):
        write_checkpoint(tmp_path / "clip", torch.nn.Linear(2, 2), fresh)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"image_width": 33}, "image_width 33 is no multiple of image_heads 4"),
        ({"text_heads": 5}, "text_width 64 is no multiple of text_heads 5"),
        ({"patch_size": 7}, "image_size 32 is no multiple of patch_size 7"),
        ({"text_length": 2}, "no room"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(sizes, said):
    with pytest.raises(ValidationError, match=said):
        CLIPSizes(**sizes)


def test_tokens_without_their_end_are_refused(fresh):
    with pytest.raises(ValidationError, match="the last two tokens must be"):
        FreshCLIP(tokens=fresh.tokens[:-1], merges=fresh.merges)
