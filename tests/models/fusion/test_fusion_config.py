"""The recipe of a fusion: from scratch, from a checkpoint, and what is refused before anything is trained."""

import json
import pickle
import shutil

import pyarrow as pa
import pytest
import torch

from tests.fusion_examples import GENE_DIM, TYPES, tiny_fusion, write_tiny_fusion
from tests.text_examples import write_encoder
from xfm.core.errors import Refused
from xfm.core.hub import fetch_folder
from xfm.core.schema import EMBEDDING
from xfm.engine.settings import UsageError, parse
from xfm.models.fusion.checkpoint import WEIGHTS
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.network import Concatenation
from xfm.models.fusion.text import BertText, HashedText
from xfm.studies.embed.config import EmbedJob


@pytest.fixture
def folder(tmp_path):
    return write_tiny_fusion(tmp_path / "aligned")


def code_of(call):
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.code


def bert_fusion(folder, checkpoint, **more):
    config = tiny_fusion(text={"kind": "bert", "checkpoint": str(checkpoint)} | more)
    return Fusion(checkpoint=str(write_tiny_fusion(folder, config)))


def test_from_scratch_it_describes_itself_and_is_told_apart():
    config = tiny_fusion()
    assert config.identity() == json.loads(json.dumps(config.identity())) == tiny_fusion().identity()
    others = [tiny_fusion(latents=5), tiny_fusion(weights_seed=1), tiny_fusion(text={"kind": "hashed", "dim": 25}),
              tiny_fusion(text={"kind": "hashed", "dim": 24, "template": "a {}"})]  # fmt: skip
    assert len({json.dumps(other.identity()) for other in (config, *others)}) == 5
    described = config.describe()
    assert described == json.loads(json.dumps(described))
    assert (described["architecture"]["latents"], described["text"]["kind"]) == (4, "hashed")
    assert (config.reads, config.columns) == ((EMBEDDING,), ("cell_type",))
    assert config.tokenizer(0).labels == ()
    assert type(config).model_validate(json.loads(config.model_dump_json())) == config


def test_from_scratch_there_is_nothing_to_read_layers_of():
    config = tiny_fusion()
    assert {code_of(lambda: config.build("cpu")), code_of(config.n_layers), code_of(config.dim)} == {"NO_CHECKPOINT"}


def test_the_network_at_step_0_is_drawn_from_the_seed_or_is_the_checkpoints(folder):
    config, read = tiny_fusion(), Fusion(checkpoint=str(folder))
    bank = config.bank_of(TYPES, None)

    def latents(config, seed):
        network = config.start(GENE_DIM, bank, seed)
        assert network.training
        return network.resample_gene.latents

    assert torch.equal(latents(config, 1), latents(config, 1))
    assert not torch.equal(latents(config, 1), latents(config, 2))
    assert torch.equal(latents(tiny_fusion(weights_seed=1), 2), latents(config, 1))
    assert torch.equal(latents(read, 5), latents(config, 0))  # written with weights of seed 0
    assert torch.equal(latents(read.randomised(1), 5), latents(config, 1))


def test_embeddings_and_texts_of_another_width_are_refused(folder):
    read, bank = Fusion(checkpoint=str(folder)), tiny_fusion().bank_of(TYPES, None)
    wide = tiny_fusion(text={"kind": "hashed", "dim": 25}).bank_of(TYPES, None)
    assert code_of(lambda: read.start(GENE_DIM + 1, bank, 0)) == "OTHER_WIDTH"
    assert code_of(lambda: read.start(GENE_DIM, wide, 0)) == "OTHER_WIDTH"
    assert code_of(lambda: tiny_fusion(gene_chunks=5).start(GENE_DIM, bank, 0)) == "OTHER_WIDTH"


def test_a_checkpoints_sizes_and_text_encoder_count(folder):
    read = Fusion(checkpoint=str(folder))
    assert read.settled().sizes == tiny_fusion().sizes
    assert read.settled().text == HashedText(dim=24)
    assert (read.n_layers(), read.dim(), read.tokenizer(0).labels) == (2, 16, tuple(sorted(TYPES)))
    assert read.describe()["architecture"]["hidden"] == 16
    assert Fusion(checkpoint=str(folder), hidden=16, latents=4).settled().sizes == tiny_fusion().sizes
    for fields, word in (({"hidden": 32}, r"hidden 32 \(the checkpoint's: 16\)"),
                         ({"hidden": 256}, r"hidden 256 \(the checkpoint's: 16\)"),  # the default, and asked for
                         ({"text": "hashed"}, "text .*768.*24"),
                         ({"pool": "attended"}, "pool attended"),
                         ({"text": {"kind": "hashed", "dim": 25}}, "text .*25.*24")):  # fmt: skip
        other = Fusion(checkpoint=str(folder), **fields)
        for call in (other.identity, other.describe, other.dim, lambda other=other: other.build("cpu")):
            with pytest.raises(Refused, match=word) as refused:
                call()
            assert refused.value.code == "OTHER_SIZES"


def test_dropout_is_no_size_of_weights(tmp_path):
    folder = write_tiny_fusion(tmp_path / "aligned", tiny_fusion(dropout=0.3, resampler_dropout=0.2))
    read = Fusion(checkpoint=str(folder))
    assert (read.settled().dropout, read.settled().resampler_dropout) == (0.3, 0.2)
    other = Fusion(checkpoint=str(folder), dropout=0.1, resampler_dropout=0.5)
    assert (other.settled().dropout, other.settled().resampler_dropout) == (0.1, 0.5)
    bank = other.bank_of((), None)
    for config, rates in ((read, {0.3, 0.2}), (other, {0.1, 0.5}), (other.randomised(1), {0.1, 0.5})):
        network = config.start(GENE_DIM, bank, 0)
        found = {module.p for module in network.modules() if isinstance(module, torch.nn.Dropout)}
        assert found <= rates
        assert network.dropout.p == config.settled().dropout
    kept = read.start(GENE_DIM, bank, 0).state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in other.start(GENE_DIM, bank, 0).state_dict().items())


def test_sizes_that_members_share_go_with_the_checkpoint_of_one(folder):
    """As base.finetune.backbone of a comparison, whose members start from scratch or from the aligned one."""
    words = ["--source.kind", "grammar", "--output", "x", "--backbone.kind", "fusion", "--backbone.checkpoint",
             str(folder), "--backbone.hidden"]  # fmt: skip
    assert parse(EmbedJob, [*words, "16"], {}, "embed").backbone.settled().sizes == tiny_fusion().sizes
    with pytest.raises(Refused, match="OTHER_SIZES"):
        parse(EmbedJob, [*words, "256"], {}, "embed").backbone.settled()
    assert Fusion(checkpoint=str(folder)).settled().settled().sizes == tiny_fusion().sizes


def test_a_recipe_that_went_through_json_still_takes_the_checkpoints_sizes(folder):
    for plain in (Fusion(checkpoint=str(folder)), Fusion(checkpoint=str(folder), hidden=16, dropout=0.4)):
        again = Fusion.model_validate(json.loads(plain.model_dump_json()))
        assert again.settled().sizes == tiny_fusion(dropout=plain.dropout).sizes
    strange = Fusion(checkpoint=str(folder), hidden=32)
    with pytest.raises(Refused, match="OTHER_SIZES"):
        Fusion.model_validate(strange.model_dump()).settled()
    assert pickle.loads(pickle.dumps(again)) == again  # noqa: S301 - our own bytes


def test_a_checkpoints_bank_is_extended_by_its_own_encoder(tmp_path):
    encoder = write_encoder(tmp_path / "bert", "bert")
    read = bert_fusion(tmp_path / "aligned", encoder, pooling="mean")
    bank = read.bank_of(["love", TYPES[0]], None)
    assert bank.labels == tuple(sorted(["love", *TYPES]))
    own = BertText(checkpoint=str(encoder), pooling="mean").encode(["love"])[0].vectors[0]
    torch.testing.assert_close(torch.from_numpy(bank.vectors[bank.codes(["love"])[0]]), torch.from_numpy(own))
    read.start(GENE_DIM, bank, 0)


def test_known_labels_need_no_encoder_and_new_ones_the_right_one(tmp_path):
    encoder = write_encoder(tmp_path / "bert", "bert")
    read = bert_fusion(tmp_path / "aligned", encoder)
    fetch_folder.cache_clear()  # a process that comes later
    moved = shutil.move(encoder, tmp_path / "elsewhere")
    assert read.bank_of(TYPES, None).labels == tuple(sorted(TYPES))
    assert code_of(lambda: read.bank_of(["love"], None)) == "NO_CHECKPOINT"
    found = read.model_copy(update={"text": BertText(checkpoint=str(moved))})
    assert "love" in found.bank_of(["love"], None).labels
    other = write_encoder(tmp_path / "other", "distilbert")
    wrong = read.model_copy(update={"text": BertText(checkpoint=str(other))})
    assert code_of(lambda: wrong.bank_of(["love"], None)) == "OTHER_ENCODER"


def test_a_checkpoint_that_is_none_is_refused(tmp_path, folder):
    assert code_of(Fusion(checkpoint=str(tmp_path / "nowhere")).identity) == "NO_CHECKPOINT"
    assert code_of(Fusion(checkpoint=str(tmp_path)).describe) == "NO_SETTINGS"
    (folder / WEIGHTS).unlink()
    assert code_of(Fusion(checkpoint=str(folder)).identity) == "NO_WEIGHTS"


def test_a_concatenation_starts_but_has_no_layers(tmp_path):
    config = tiny_fusion(design="concat", inputs="gene")
    bank = config.bank_of(TYPES, None)
    assert isinstance(config.start(GENE_DIM, bank, 0), Concatenation)
    assert config.describe()["architecture"]["inputs"] == "gene"
    assert code_of(config.n_layers) == code_of(config.dim) == "NO_BLOCKS"
    read = Fusion(checkpoint=str(write_tiny_fusion(tmp_path / "plain", config)))
    assert code_of(lambda: read.build("cpu")) == "NO_BLOCKS"


def test_genes_and_decoders_are_refused():
    assert code_of(lambda: tiny_fusion().check_genes(pa.table({"symbol": ["A"]}))) == "OTHER_INPUT"
    assert code_of(tiny_fusion().check_decoder) == "NO_DECODER"


def test_a_path_means_the_same_in_every_process(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    assert Fusion(checkpoint="aligned").checkpoint == str(folder)
    assert Fusion(checkpoint="hf://someone/aligned").checkpoint == "hf://someone/aligned"
    assert Fusion(checkpoint=str(folder)).recipe() == Fusion(checkpoint="elsewhere").recipe()
    assert BertText(checkpoint="bert").checkpoint == str(tmp_path / "bert")


@pytest.mark.parametrize(("word", "text"), [
    ("hashed", HashedText()), ("hf://someone/bert", BertText(checkpoint="hf://someone/bert")),
    ('{"kind": "bert", "pooling": "mean"}', BertText(pooling="mean")),
])  # fmt: skip
def test_a_flag_can_name_a_text_encoder(word, text):
    words = ["--source.kind", "grammar", "--output", "x", "--backbone.kind", "fusion", "--backbone.text", word]
    config = parse(EmbedJob, words, {}, "embed").backbone
    assert isinstance(config, Fusion)
    assert config.text == text


def test_a_text_encoder_that_is_none_is_a_usage_error():
    words = ["--source.kind", "grammar", "--output", "x", "--backbone.kind", "fusion", "--backbone.text"]
    for word in ('{"kind": "bert"', '{"kind": "tea"}', '{"template": "x", "kind": "hashed"}'):
        with pytest.raises(UsageError, match=r"--backbone\.text"):
            parse(EmbedJob, [*words, word], {}, "embed")
