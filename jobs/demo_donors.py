"""Donors from cells and words on a made atlas: alignment, donors with an adversary, and what each of them does.

The atlas has planted effects of type, donor, data set and sex, so that what a model should find is known.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compare
import finetune
import pretrain
from demo_steps import Step

from xfm.engine.settings import read_yaml
from xfm.models.fusion.config import Fusion
from xfm.sources.synthetic.atlas import Atlas
from xfm.tasks.adversarial.settings import AdversarialClassification
from xfm.tasks.alignment.settings import Alignment

NOTE = (
    "A demonstration: a made (synthetic) atlas of cells with planted effects, and networks of 64 wide that are trained "
    "for seconds. It shows alignment, the adversary, its sign and the ablation table at work; it says nothing of real "
    "donors, and so few seeds and epochs rank nothing."
)
PRESET = Path(__file__).parent / "presets" / "fusion_ablation.yaml"
CELLS, DONORS, DATASETS = 2000, 20, 4
EPOCHS, SEEDS = 4, 2
SMALL: dict[str, int] = {"hidden": 64, "latents": 8, "heads": 4}


def steps(folder: Path, seed: int, _train_seconds: float) -> Iterator[Step]:
    """Every step is a job of its own, with its own OUTPUT and report."""
    source = Atlas(n_cells=CELLS, n_donors=DONORS, n_datasets=DATASETS, donor_effect=0.5, seed=seed)
    aligned = folder / "aligned"
    yield Step(
        "Align cells with the words for their types",
        lambda: pretrain.run(pretrain.PretrainJob(
            source=source, split="split", task=Alignment(**SMALL), lr=1e-3, epochs=6, checkpoint_every=2, workers=1,
            output=str(aligned), seed=seed,
        )),
        page=aligned,
    )  # fmt: skip
    yield Step(
        "Tell donors apart, starting from there, while an adversary unlearns their sex",
        lambda: finetune.run(finetune.FinetuneJob(
            source=source, split="split", backbone=Fusion(checkpoint=str(aligned / "checkpoint")),
            task=AdversarialClassification(lambda_adv=1.0, adversary_lr=3.0), lr=1e-3, epochs=EPOCHS, batch_size=32,
            workers=1, output=str(folder / "donors"), seed=seed, notes=(NOTE,),
        )),
        page=folder / "donors",
    )  # fmt: skip
    yield Step(
        f"The ablation: every row of the table from {SEEDS} seeds, and the rows that keep it honest",
        lambda: compare.run(compare.CompareJob(**_ablation(source, folder / "ablation", seed))),
        page=folder / "ablation",
    )


def _ablation(source: Atlas, output: Path, seed: int) -> dict[str, Any]:
    """The preset's members, smaller."""
    settings = read_yaml(str(PRESET))
    base = settings["base"] | {"source": source.model_dump(mode="json")}
    base |= {name: base[name] | {"epochs": EPOCHS} for name in ("pretrain", "finetune")}
    return settings | {
        "base": base,
        "seed": seed,
        "seeds": SEEDS,
        "notes": (NOTE, *settings["notes"]),
        "output": str(output),
    }
