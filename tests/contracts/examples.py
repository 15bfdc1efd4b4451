"""One tiny example of every entry of the registry. A new entry adds its line here; the tests beside need no change."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse

from tests.clip_examples import Pictures, write_clip
from tests.fusion_examples import Vectors, write_tiny_fusion
from tests.image_examples import write_pictures
from tests.text_examples import write_encoder, write_sentences
from xfm.core.backbone import BackboneConfig
from xfm.core.source import Source
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

TINY_SCGPT = Path(__file__).parents[1] / "fixtures" / "scgpt_tiny"


@dataclass(frozen=True)
class BackboneExample:
    """A recipe, and a source whose rows it understands."""

    config: BackboneConfig
    source: Source


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


def example(table: dict[str, Callable[[Path], Any]], name: str, folder: Path) -> Any:
    """The example of one entry."""
    assert name in table, f"no example of {name!r}: give it a line in {Path(__file__).name}"
    return table[name](folder)
