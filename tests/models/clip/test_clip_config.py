"""The recipe: what it states about a checkpoint, and which checkpoints it refuses."""

import json
import shutil

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file

from tests.clip_examples import write_clip
from xfm.core.errors import Refused
from xfm.core.schema import IMAGE
from xfm.models.clip.config import CLIP
from xfm.models.clip.files import MEAN, STD, Preparation, read_preparation


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def checkpoint(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint")


def recipe(folder, **more):
    return CLIP(checkpoint=str(folder), **more)


def set_config(folder, name="config.json", **changes):
    """Changes, of which a section's are merged into it."""
    content = json.loads((folder / name).read_text())
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) and key in content else value
    (folder / name).write_text(json.dumps(content))


def test_it_says_what_the_checkpoint_is(checkpoint):
    config = recipe(checkpoint)
    described = config.describe()
    weights = load_file(checkpoint / "model.safetensors")
    assert described == {
        "architecture": {
            "family": "clip", "n_layers": 2, "dim": 32, "n_heads": 4, "patch_size": 8, "projection_dim": 20,
            "text": {"n_layers": 2, "dim": 24, "n_heads": 4, "read_at": "first end token",
                     "vocabulary": len(weights["text_model.embeddings.token_embedding.weight"])},
            "parameters": sum(tensor.numel() for tensor in weights.values()),
        },
        "unused": [], "image_size": 24, "shortest_edge": 24, "tokens": 10, "max_length": 16,
    }  # fmt: skip
    assert (config.n_layers(), config.dim(), config.reads) == (2, 32, (IMAGE,))
    assert set(config.identity()) == {
        "model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "processor_config.json",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "processor_config.json", "model.safetensors"])
def test_another_byte_of_a_file_is_another_identity(checkpoint, tmp_path, name):
    before = recipe(checkpoint).identity()
    other = shutil.copytree(checkpoint, tmp_path / "other")
    with (other / name).open("ab") as file:
        file.write(b" ")
    after = recipe(other).identity()
    assert {key for key in before if before[key] != after[key]} == {name}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"vision_config": {"num_hidden_layers": 3}}, "MISSING_TENSORS.*lack, e.g. vision_model"),
        ({"text_config": {"num_hidden_layers": 1}}, "MISSING_TENSORS.*has no block for 16 tensors"),
        ({"projection_dim": 21}, r"OTHER_SHAPES.*text_projection.weight is \(20, 24\) in the weights and \(21, 24\)"),
        ({"model_type": "siglip"}, "UNKNOWN_FAMILY.*'siglip'; --backbone.kind clip reads 'clip'"),
        ({"vision_config": {"image_size": 32}}, "BAD_PREPROCESSOR.*cropped to 24 pixels, the network sees 32"),
        ({"vision_config": {"image_size": [24, 32]}}, r"BAD_SETTINGS.*image_size \[24, 32\]"),
        ({"vision_config": {"num_channels": 1}}, "BAD_SETTINGS.*num_channels 1"),
        ({"vision_config": {"num_hidden_layers": "two"}}, "BAD_SETTINGS.*num_hidden_layers"),
        ({"vision_config": {"hidden_size": 33}}, "BAD_SETTINGS.*33"),
        ({"text_config": {"vocab_size": 100}}, "BAD_TOKENIZER|OTHER_SHAPES"),
    ],
)
def test_a_config_that_is_not_that_of_the_weights_is_refused(checkpoint, changes, said):
    set_config(checkpoint, **changes)
    with pytest.raises(Refused, match=said):
        recipe(checkpoint).describe()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", None, "NO_WEIGHTS.*AutoProcessor.*save_pretrained"),
        ("model.safetensors", b"no tensors", "BROKEN_WEIGHTS"),
        ("config.json", None, "NO_SETTINGS"),
        ("config.json", b"{", "BAD_SETTINGS.*no JSON"),
        ("tokenizer.json", None, "NO_TOKENIZER"),
        ("tokenizer.json", b"{}", "BAD_TOKENIZER"),
        ("processor_config.json", None, "NO_PREPROCESSOR.*processor_config.json, preprocessor_config.json"),
        ("processor_config.json", b"[]", "BAD_SETTINGS.*no JSON object"),
        ("processor_config.json", b"{}", "BAD_PREPROCESSOR.*says nothing of images"),
    ],
)
def test_a_missing_or_broken_file_is_refused(checkpoint, name, content, said):
    (checkpoint / name).unlink() if content is None else (checkpoint / name).write_bytes(content)
    config = recipe(checkpoint)
    with pytest.raises(Refused, match=said):
        config.identity() and config.describe()


def test_a_pickle_is_never_opened(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    for ask in (lambda config: config.identity(), lambda config: config.build("cpu")):
        with pytest.raises(Refused, match=r"UNSAFE_WEIGHTS.*pytorch_model\.bin.*run code.*save_pretrained"):
            ask(recipe(checkpoint))


def test_weights_in_several_files_are_read_and_each_counts(checkpoint, tmp_path):
    from transformers import CLIPModel

    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    (cut / "model.safetensors").unlink()
    CLIPModel.from_pretrained(checkpoint).save_pretrained(cut, max_shard_size="40KB")
    parts = {path.name for path in cut.glob("model-*.safetensors")}
    assert len(parts) > 1
    assert parts < set(recipe(cut).identity())
    mine, other = recipe(cut).build("cpu").state_dict(), recipe(checkpoint).build("cpu").state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def embeddings(folder, texts):
    """By transformers alone: what the user would get elsewhere."""
    from transformers import AutoTokenizer, CLIPModel

    inputs = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return CLIPModel.from_pretrained(folder).eval().get_text_features(**inputs).pooler_output


def test_an_end_token_that_never_occurs_is_refused(checkpoint):
    """transformers reads every text at its start then: one vector for all classes, and no error."""
    texts = ["a red square", "the blue one"]
    one, two = embeddings(checkpoint, texts)
    assert not torch.allclose(one, two)
    end = json.loads((checkpoint / "config.json").read_text())["text_config"]["eos_token_id"]
    set_config(checkpoint, text_config={"eos_token_id": 49407})
    one, two = embeddings(checkpoint, texts)
    assert torch.allclose(one, two)
    for ask in (lambda config: config.describe(), lambda config: config.prompt_tokenizer()):
        with pytest.raises(Refused, match=rf"BAD_EOS.*eos_token_id 49407 .*set it to {end}, the id of '<\|endoftext"):
            ask(recipe(checkpoint))


def test_the_older_rule_is_followed_where_it_is_right(checkpoint, written):
    """eos_token_id 2, as in OpenAI's own checkpoints: the largest id, which is the end token's."""
    set_config(checkpoint, text_config={"eos_token_id": 2})
    config, texts = recipe(checkpoint), ["a red square", "the blue one of all", "été"]
    assert config.describe()["architecture"]["text"]["read_at"] == "largest id"
    expected = embeddings(checkpoint, texts)
    torch.testing.assert_close(expected, embeddings(written, texts))
    tokenizer = config.prompt_tokenizer()
    rows = [tokenizer.subwords.encode(text).ids for text in texts]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [tokenizer.pad_id] * (longest - len(row)) for row in rows])
    is_token = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows]).bool()
    with torch.inference_mode():
        found = config.build("cpu").texts(ids, is_token)
    torch.testing.assert_close(found, torch.nn.functional.normalize(expected, dim=-1), rtol=0, atol=1e-5)


def test_the_older_rule_is_refused_where_another_token_has_the_largest_id(checkpoint, tmp_path):
    from transformers import CLIPTokenizer

    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.__getitem__)
    names[-1], names[300] = names[300], names[-1]
    CLIPTokenizer(vocab={name: i for i, name in enumerate(names)}, merges=[], model_max_length=16).save_pretrained(
        checkpoint
    )
    set_config(checkpoint, text_config={"eos_token_id": 2})
    with pytest.raises(Refused, match=r"BAD_EOS.*reach \d+ beyond the end token's; set it to 300"):
        recipe(checkpoint).describe()
    mended = shutil.copytree(checkpoint, tmp_path / "mended")
    set_config(mended, text_config={"eos_token_id": 300})
    assert recipe(mended).describe()["architecture"]["text"]["read_at"] == "first end token"


def flat(folder, **changes):
    """preprocessor_config.json alone, as on the Hub before transformers 5."""
    (folder / "processor_config.json").unlink(missing_ok=True)
    found = {"size": 24, "crop_size": 24, "resample": 3, "image_mean": list(MEAN), "image_std": list(STD),
             "do_resize": True, "do_center_crop": True, "do_normalize": True,
             "feature_extractor_type": "CLIPFeatureExtractor"}  # fmt: skip
    content = {name: value for name, value in (found | changes).items() if value != "absent"}
    (folder / "preprocessor_config.json").write_text(json.dumps(content))


def test_the_older_file_of_the_preparation_is_read(checkpoint):
    flat(checkpoint)
    assert read_preparation(checkpoint) == Preparation(24, 24, MEAN, STD)
    flat(checkpoint, size={"shortest_edge": 30}, crop_size={"height": 24, "width": 24}, image_mean=[0.5, 0.5, 0.5])
    assert read_preparation(checkpoint) == Preparation(30, 24, (0.5, 0.5, 0.5), STD)
    assert recipe(checkpoint).tokenizer(0).edge == 30
    assert recipe(checkpoint).build("cpu").mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert "preprocessor_config.json" in recipe(checkpoint).identity()


def test_of_both_files_the_newer_counts_as_in_transformers(checkpoint):
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    newer = (checkpoint / "processor_config.json").read_text()
    flat(checkpoint, image_mean=[0.1, 0.1, 0.1])
    (checkpoint / "processor_config.json").write_text(newer)
    assert read_preparation(checkpoint).mean == MEAN
    assert CLIPImageProcessorPil.from_pretrained(checkpoint).image_mean == MEAN


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"resample": 2}, "resample 2"),
        ({"do_center_crop": False}, "do_center_crop False"),
        ({"do_pad": True}, "do_pad True"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor 0.0078"),
        ({"size": {"height": 24, "width": 24}}, "size .*height.* a shortest edge"),
        ({"size": 20}, "a square that fits into it"),
        ({"crop_size": {"height": 24, "width": 20}}, "crop_size"),
        ({"crop_size": "24"}, "crop_size 24"),
        ({"crop_size": "absent"}, "crop_size 224"),
        ({"image_mean": [0.5]}, "image_mean is .*not three numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std .*above 0"),
    ],
)
def test_pictures_that_are_prepared_otherwise_are_refused(checkpoint, changes, said):
    flat(checkpoint, **changes)
    with pytest.raises(Refused, match=f"BAD_PREPROCESSOR.*{said}"):
        recipe(checkpoint).describe()


def test_random_weights_need_no_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    config = recipe(checkpoint).randomised(3)
    assert config.identity()["weights"] == "random"
    assert config.describe()["weights"] == "random, seed 3"
    state = torch.get_rng_state()
    one, two = config.build("cpu").state_dict(), recipe(checkpoint).randomised(4).build("cpu").state_dict()
    assert torch.equal(state, torch.get_rng_state())
    name = "network.vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(one[name], two[name])


def test_genes_and_expression_are_refused(checkpoint):
    with pytest.raises(Refused, match=r"OTHER_INPUT.*2 genes.*hub_images"):
        recipe(checkpoint).check_genes(pa.table({"feature_name": ["A", "B"]}))
    with pytest.raises(Refused, match=r"NO_DECODER.*embed and evaluate"):
        recipe(checkpoint).check_decoder()


def test_reading_prints_nothing(checkpoint, capfd):
    recipe(checkpoint).build("cpu")
    recipe(checkpoint).prompt_tokenizer()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
