"""One tiny example of every entry of the registry. A new entry adds its line here; the tests beside need no change."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import scipy.sparse

from tests.clip_examples import COLOURS, TEMPLATES, Pictures, fresh_clip, pictures, write_clip
from tests.fusion_examples import Vectors, write_tiny_fusion
from tests.image_examples import write_pictures
from tests.text_examples import write_encoder, write_sentences
from xfm.core.backbone import Backbone, BackboneConfig
from xfm.core.schema import INPUT_IDS
from xfm.core.source import Source
from xfm.engine.learn_config import FinetuneConfig, LearnConfig, PretrainConfig
from xfm.models.clip.config import CLIP
from xfm.models.fusion.config import Fusion
from xfm.models.hf_text.config import HFText
from xfm.models.scgpt.config import ScGPT
from xfm.sources.cell_split import CellSplit
from xfm.sources.census.source import Census
from xfm.sources.census.store import write_census_store
from xfm.sources.files.images import HubImages
from xfm.sources.files.text import HubText
from xfm.sources.h5ad.source import H5ad
from xfm.sources.stored.source import Embeddings
from xfm.sources.synthetic.atlas import Atlas
from xfm.sources.synthetic.digits import Digits
from xfm.sources.synthetic.grammar import Grammar
from xfm.tasks.adversarial.task import read_adversarial
from xfm.tasks.classification.task import read_classifier
from xfm.tasks.regression.task import read_regression

TINY_SCGPT = Path(__file__).parents[1] / "fixtures" / "scgpt_tiny"


@dataclass(frozen=True)
class BackboneExample:
    """A recipe, and a source whose rows it understands."""

    config: BackboneConfig
    source: Source


@dataclass(frozen=True)
class TaskExample:
    """A tiny job, and what the task's public reader makes of its checkpoint.

    Attributes:
        config: of a job that trains the task on a source made on the spot, without dropout; `batch_size` is at least 2,
            and the learning rate so high that a few dozen steps show.
        predicts: from the folder of a checkpoint, the backbone that was read from it, and stored rows, to columns of
            predictions.parquet for those rows. None where the task writes no such file.
    """

    config: LearnConfig
    predicts: Callable[[Path, Backbone, pa.Table], dict[str, np.ndarray]] | None = None


def cells(n: int = 50, n_genes: int = 24) -> anndata.AnnData:
    """Counts of a few cells; one is empty, as happens."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.8, (n, n_genes)).astype(np.float32)
    counts[3] = 0
    obs = pd.DataFrame({"cell_type": rng.choice(["B", "T"], n)}, index=[f"cell-{i}" for i in range(n)])
    var = pd.DataFrame(index=[f"GENE{i}" for i in range(n_genes)])
    return anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=obs, var=var)


def census(folder: Path) -> Source:
    write_census_store(cells(), folder / "store")
    return Census(uri=str(folder / "store"), obs=("cell_type",))


def h5ad(folder: Path) -> Source:
    for name in ("a", "b c"):
        cells().write_h5ad(folder / f"{name}.h5ad")
    return H5ad(path=str(folder), shard_rows=20, obs=("cell_type",))


def scgpt(folder: Path) -> BackboneExample:
    return BackboneExample(ScGPT(checkpoint=str(TINY_SCGPT / "checkpoint")), H5ad(path=str(TINY_SCGPT / "cells.h5ad")))


def embeddings(folder: Path) -> Source:
    stored = cells()
    stored.obsm["X_scgpt_cls_l07"] = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    stored.write_h5ad(folder / "cells.h5ad")
    split = CellSplit(by=("cell_type",))
    return Embeddings(path=str(folder / "cells.h5ad"), column="cls_l07", obs=("cell_type",), shard_rows=20, split=split)


def hub_images(folder: Path) -> Source:
    return HubImages(path=str(write_pictures(folder)), shard_rows=5, obs=("label", "split"))


def hub_text(folder: Path) -> Source:
    return HubText(path=str(write_sentences(folder)), shard_rows=9, obs=("label", "split"))


def hf_text(folder: Path) -> BackboneExample:
    checkpoint = write_encoder(folder / "distilbert", "distilbert")
    return BackboneExample(HFText(checkpoint=str(checkpoint)), HubText(path=str(write_sentences(folder / "data"))))


def clip(folder: Path) -> BackboneExample:
    return BackboneExample(CLIP(checkpoint=str(write_clip(folder / "clip"))), Pictures())


def fusion(folder: Path) -> BackboneExample:
    return BackboneExample(Fusion(checkpoint=str(write_tiny_fusion(folder / "fusion"))), Vectors())


FEW = {"batch_size": 8, "lr": 0.01, "schedule": "constant", "warmup": 0.0, "steps": 4, "bootstrap": 20}
WORDS = {"kind": "hashed", "dim": 24}
LATENTS = {"hidden": 16, "heads": 2, "latents": 3, "projection": 8, "dropout": 0.0, "text": WORDS}


def classification(folder: Path) -> TaskExample:
    encoder = write_encoder(folder / "encoder", "distilbert", dropout=0.0, attention_dropout=0.0)
    config = FinetuneConfig(
        source=HubText(path=str(write_sentences(folder / "data")), shard_rows=9),
        backbone=HFText(checkpoint=str(encoder)), task={"kind": "classification", "dropout": 0.0},
        output=str(folder / "out"), **FEW,
    )  # fmt: skip

    def predicts(checkpoint: Path, backbone: Backbone, rows: pa.Table) -> dict[str, np.ndarray]:
        classifier, _ = read_classifier(checkpoint, backbone)
        tokens = HFText(checkpoint=str(checkpoint)).tokenizer(0).collate(rows)
        return {"probabilities": classifier(tokens).softmax(dim=1).numpy()}

    return TaskExample(config, predicts)


def regression(folder: Path) -> TaskExample:
    encoder = write_encoder(folder / "encoder", "distilbert", dropout=0.0, attention_dropout=0.0)
    config = FinetuneConfig(
        source=HubText(path=str(write_sentences(folder / "data", with_names=False)), shard_rows=9),
        backbone=HFText(checkpoint=str(encoder)), task={"kind": "regression", "dropout": 0.0},
        output=str(folder / "out"), **FEW,
    )  # fmt: skip

    def predicts(checkpoint: Path, backbone: Backbone, rows: pa.Table) -> dict[str, np.ndarray]:
        network, scale = read_regression(checkpoint, backbone)
        tokens = HFText(checkpoint=str(checkpoint)).tokenizer(0).collate(rows)
        return {"predicted": scale.mean + scale.deviation * network(tokens)[:, 0].double().numpy()}

    return TaskExample(config, predicts)


def adversarial(folder: Path) -> TaskExample:
    config = FinetuneConfig(
        source=Atlas(n_cells=60, n_types=3, n_donors=6, dim=8, shard_rows=30, seed=4), split="split",
        backbone=Fusion(**LATENTS), task={"kind": "adversarial", "head_dropout": 0.0}, output=str(folder / "out"),
        **FEW,
    )  # fmt: skip

    def predicts(checkpoint: Path, backbone: Backbone, rows: pa.Table) -> dict[str, np.ndarray]:
        classifier, bank, columns = read_adversarial(checkpoint)
        logits, _ = classifier(columns.cells(rows, bank))
        return {"probabilities": logits.softmax(dim=1).numpy()}

    return TaskExample(config, predicts)


def coloured(folder: Path, n: int = 48) -> Source:
    """Squares of four colours, in a folder of each."""
    for i, (data, label) in enumerate(zip(*pictures(n), strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        (folder / label / f"{i}.{('png', 'jpg')[i % 2]}").write_bytes(data)
    return HubImages(path=str(folder), shard_rows=20)


def class_prompts(folder: Path) -> TaskExample:
    checkpoint = str(write_clip(folder / "clip"))
    settings = {"templates": TEMPLATES[:1], "shots": 4, "rank": 4, "alpha": 8.0, "dropout": 0.0, "augment": False}
    config = FinetuneConfig(
        source=coloured(folder / "data"), backbone=CLIP(checkpoint=checkpoint),
        task={"kind": "class_prompts"} | settings, output=str(folder / "out"), **FEW,
    )  # fmt: skip

    def predicts(checkpoint: Path, backbone: Any, rows: pa.Table) -> dict[str, np.ndarray]:
        clip = CLIP(checkpoint=str(checkpoint))
        prompts = config.task.prompts(sorted(COLOURS))
        tokenizer = clip.prompt_tokenizer()
        ids = [tokenizer.subwords.encode(text).ids for (text,) in prompts.texts]
        words = tokenizer.collate(pa.table({INPUT_IDS: pa.array(ids, pa.large_list(pa.int32()))}))
        images = backbone.images(clip.tokenizer(0).for_training().collate(rows))
        texts = backbone.texts(words.ids, words.is_token)
        return {"probabilities": (backbone.scale * images @ texts.T).softmax(dim=1).numpy()}

    return TaskExample(config, predicts)


def contrastive(folder: Path) -> TaskExample:
    sizes = {name: getattr(fresh_clip().sizes, name) for name in type(fresh_clip().sizes).model_fields}
    task = {"kind": "contrastive", "caption": "label", "vocabulary_size": 560} | sizes
    source = coloured(folder / "data")
    return TaskExample(PretrainConfig(source=source, task=task, validation=0.2, output=str(folder / "out"), **FEW))


def alignment(folder: Path) -> TaskExample:
    source = Atlas(n_cells=60, n_types=3, n_donors=6, dim=8, shard_rows=30, seed=4)
    task = {"kind": "alignment"} | LATENTS
    return TaskExample(PretrainConfig(source=source, split="split", task=task, output=str(folder / "out"), **FEW))


def masked_expression(folder: Path) -> TaskExample:
    cells().write_h5ad(folder / "cells.h5ad")
    sizes = {"layers": 2, "dim": 16, "heads": 2, "ffn": 16, "n_bins": 11, "max_length": 32, "dropout": 0.0}
    task = {"kind": "masked_expression", "cell_prompt_after": 0} | sizes
    source = H5ad(path=str(folder / "cells.h5ad"), shard_rows=20)
    return TaskExample(PretrainConfig(source=source, task=task, validation=0.2, output=str(folder / "out"), **FEW))


SOURCES: dict[str, Callable[[Path], Source]] = {
    "atlas": lambda folder: Atlas(n_cells=90, n_types=4, n_donors=4, dim=5, shard_rows=40),
    "census": census,
    "digits": lambda folder: Digits(split="validation", pairs="held_out", shard_rows=60),
    "embeddings": embeddings,
    "grammar": lambda folder: Grammar(n=90, shard_rows=40),
    "h5ad": h5ad,
    "hub_images": hub_images,
    "hub_text": hub_text,
}
BACKBONES: dict[str, Callable[[Path], BackboneExample]] = {
    "clip": clip,
    "fusion": fusion,
    "hf_text": hf_text,
    "scgpt": scgpt,
}
TASKS: dict[str, Callable[[Path], TaskExample]] = {
    "adversarial": adversarial,
    "alignment": alignment,
    "class_prompts": class_prompts,
    "classification": classification,
    "contrastive": contrastive,
    "masked_expression": masked_expression,
    "regression": regression,
}


def example(table: dict[str, Callable[[Path], Any]], name: str, folder: Path) -> Any:
    """The example of one entry."""
    assert name in table, f"no example of {name!r}: give it a line in {Path(__file__).name}"
    return table[name](folder)
