"""Classification on every backbone of the registry: texts, cells and pictures take the same path."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.contracts.examples import BACKBONES, example
from tests.tasks.classification.sentiment import NAMES, Memory
from xfm.compute.read import read_tokens
from xfm.core import registry
from xfm.core.parts import TEST
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.judging.labelled import SplitWithContent
from xfm.models.headed import put_head
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.classification.learner import ClassificationLearner, ClassificationRecipe
from xfm.tasks.classification.settings import Classification
from xfm.training.group import Group
from xfm.training.settings import Settings
from xfm.training.trainer import Trainer

SETTINGS = Settings(
    steps=3, batch_size=8, lr=1e-3, warmup=0, schedule="linear", weight_decay=0.1, clip=1.0, log_every=1,
    checkpoint_every=3, max_seconds=None, seed=0, watch="validation_f1", patience=3,
)  # fmt: skip


@pytest.mark.parametrize("kind", sorted(registry.BACKBONES))
@pytest.mark.parametrize("mode", ["full", "last_n", "head"])
def test_a_few_steps_change_the_head_and_what_the_mode_says(kind, mode, tmp_path):
    given = example(BACKBONES, kind, tmp_path)
    tokenizer = given.config.tokenizer(0).for_training()
    tokens = read_tokens(given.source, tokenizer, given.source.shards()[0]).tokens
    labels = [NAMES[i % 2] for i in range(tokens.num_rows)]
    splits = [("train", "train", "validation", "test")[i % 4] for i in range(tokens.num_rows)]
    tokens = tokens.drop_columns([name for name in ("label", "split") if name in tokens.column_names])
    tokens = tokens.append_column("label", pa.array(labels)).append_column("split", pa.array(splits))
    store = Memory([SplitWithContent(0, 0.2, split="split")(tokens)])
    parts = store.parts()
    task = Classification(mode=mode, last_n=1, pool="mean")
    recipe = ClassificationRecipe(given.config, task, parts, 8, 2000, 0, 0, {}, NAMES)
    learner = ClassificationLearner(recipe, store, Group(), "cpu")
    network = learner.network
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    trained = Trainer(learner, SETTINGS).run(lambda: None)
    assert all(np.isfinite(trained.outcome[part]).all() for part in ("validation", "test"))
    assert len(trained.outcome["test"]) == sum(parts.count(TEST)) > 0
    moved = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert "head.classifier.weight" in moved
    assert any(name.startswith("backbone") for name in moved) == (mode != "head")
    still = [name for name, p in network.named_parameters() if not p.requires_grad]
    assert not moved & set(still), "what is not trained stays, weight decay or not"


def test_running_statistics_of_a_checkpoint_stay_as_they_are():
    sizes = {"n_layers": 1, "n_heads": 2, "dim": 8, "ffn": 8, "n_bins": 5, "max_length": 16}
    tokens = (*(f"G{i}" for i in range(5)), "<pad>", "<cls>", "<eoc>")
    start = FreshScGPT(tokens=tokens, architecture=Architecture(n_tokens=8, mvc="none", input_norm="bn", **sizes))
    network = put_head(start.build("cpu"), Classification(pool="mean"), 2, 0).train()
    before = {name: buffer.clone() for name, buffer in network.named_buffers()}
    cells = {INPUT_IDS: pa.array([[6, 0, 1], [6, 2, 3]], pa.large_list(pa.uint16())),
             VALUES: pa.array([[-2, 1, 4], [-2, 3, 2]], pa.large_list(pa.int16()))}  # fmt: skip
    network(start.tokenizer(0).collate(pa.table(cells)))
    assert any("running_mean" in name for name in before)
    assert all(torch.equal(buffer, before[name]) for name, buffer in network.named_buffers())
