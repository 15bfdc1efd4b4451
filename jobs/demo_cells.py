"""The main job on 700 real blood cells, from counts to a table.

Writes the cells as a small store of Census layout, pretrains a small scGPT on some of them, then extracts every layer
of cells that it has not seen and asks each layer what it knows of expression and of cell types.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import embed
import evaluate
import layerwise
import pretrain
from demo_steps import Step, shown

from xfm.core.random import in_fraction
from xfm.engine.job import say
from xfm.models.scgpt.config import ScGPT
from xfm.sources.census.source import Census

NOTE = (
    "A demonstration: a small model (4 layers, 64 wide) trained for about a minute on some 400 of 700 blood cells and "
    "765 genes. It shows that the machinery works, not what scGPT knows."
)


def steps(folder: Path, seed: int, train_seconds: float) -> Iterator[Step]:
    """Every step is a job of its own, with its own OUTPUT and report."""
    store = folder / "pbmc.soma"
    if not store.exists():
        write_cells(store, seed)
    trained = Census(uri=str(store), value_filter="split == 'train'", shard_rows=256)
    unseen = Census(uri=str(store), value_filter="split == 'held-out'", obs=("bulk_labels",), shard_rows=64)
    backbone = ScGPT(checkpoint=str(folder / "pretrain" / "checkpoint"))
    task = {"kind": "masked_expression", "layers": 4, "dim": 64, "heads": 2, "ffn": 64, "dropout": 0.0,
            "max_length": 512, "cell_prompt_after": 200}  # fmt: skip
    yield Step(
        f"Pretrain a small scGPT for about {train_seconds:.0f} s on the cells of split 'train'",
        lambda: pretrain.run(pretrain.PretrainJob(
            source=trained, output=str(folder / "pretrain"), seed=seed, task=task, max_seconds=train_seconds,
            steps=1500, batch_size=8, lr=3e-3, warmup=0.4, checkpoint_every=5, workers=min(2, os.cpu_count() or 1),
        )),
    )  # fmt: skip
    yield Step(
        "Embed the cells of split 'held-out': every layer, two poolings",
        lambda: embed.run(embed.EmbedJob(source=unseen, backbone=backbone, output=str(folder / "embed"), seed=seed)),
    )
    yield Step(
        "Layerwise: what each layer knows of the expression of cells the model has not seen",
        lambda: layerwise.run(layerwise.LayerwiseJob(
            source=unseen, backbone=backbone, output=str(folder / "layerwise"), seed=seed, notes=(NOTE,)
        )),
        page=folder / "layerwise",
    )  # fmt: skip
    yield Step(
        "Evaluate: which layer tells cell types, beside variable genes, their PCA and random weights",
        lambda: evaluate.run(evaluate.EvaluateJob(
            embeddings=str(folder / "embed"), labels=("bulk_labels",), output=str(folder / "evaluate"), seed=seed,
            validation=0.2, test=0.4, notes=(NOTE,),
        )),
        page=folder / "evaluate",
    )  # fmt: skip


def write_cells(store: Path, seed: int) -> None:
    """The 700 cells as a Census-layout store, 60 % of them for training, by a keyed draw."""
    from xfm.sources.census.store import write_census_store
    from xfm.sources.pbmc import pbmc_counts

    cells = pbmc_counts()
    is_train = in_fraction(seed, [f"demo\x1f{name}" for name in cells.obs_names], 0.6)
    cells.obs["split"] = ["train" if train else "held-out" for train in is_train]
    store.parent.mkdir(parents=True, exist_ok=True)
    write_census_store(cells, store)
    say(f"700 PBMC as a Census-layout store: {shown(store)} ({is_train.sum()} train, {(~is_train).sum()} held-out)")
