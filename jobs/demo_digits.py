"""Coloured digits through a small CLIP: pretrained from scratch, zero-shot on new pairs, adapted to a shifted domain.

Training never shows 10 of the 50 pairs of colour and digit. Naming them is zero-shot: both words are known, together
they are new. The shifted domain (dark on light, turned, noisy) is never seen before the low-rank update is trained on
16 images a digit; what that costs on the plain digits is measured beside it.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import finetune
import pretrain
import zero_shot
from demo_steps import Step

from xfm.models.clip.config import CLIP
from xfm.sources.synthetic.digits import Digits
from xfm.tasks.class_prompts.settings import ClassPromptTuning

NOTE = (
    "A demonstration: a CLIP trained from scratch on made-up colourings of 8 x 8 digits. It shows the way (zero-shot "
    "on new pairs, low-rank updates of one tower, forgetting, shares of the update, a curve over layers); it says "
    "nothing of OpenAI's CLIP."
)
TEMPLATES = ("a photo of a {}", "a picture of a {}")


def steps(folder: Path, seed: int, _train_seconds: float) -> Iterator[Step]:
    """Every step is a job of its own, with its own OUTPUT and report."""
    workers = min(2, os.cpu_count() or 1)
    backbone = CLIP(checkpoint=str(folder / "pretrain" / "checkpoint"))
    yield Step(
        "Pretrain a small CLIP on pictures and captions of plain digits",
        lambda: pretrain.run(pretrain.PretrainJob(
            source=Digits(seed=seed, renderings=2), split="split", task={"kind": "contrastive", "match": "pair"},
            output=str(folder / "pretrain"), seed=seed, steps=700, batch_size=128, lr=1.5e-3,
            warmup=5.4, weight_decay=0.01, checkpoint_every=5.4, workers=workers,
        )),
    )  # fmt: skip
    yield Step(
        "Zero-shot on pairs of colour and digit that training never showed",
        lambda: zero_shot.run(zero_shot.ZeroShotJob(
            source=Digits(seed=seed, split="test", pairs="held_out"), backbone=backbone, label="pair",
            classes=tuple(pair for pair in every_pair()), templates=TEMPLATES, output=str(folder / "zero_shot"),
            seed=seed, notes=(NOTE,),
        )),
        page=folder / "zero_shot",
    )  # fmt: skip
    yield Step(
        "Adapt the image tower to the shifted domain by 16 images a digit, and measure what is forgotten",
        lambda: finetune.run(finetune.FinetuneJob(
            source=Digits(seed=seed, domain="shifted"), backbone=backbone, split="split",
            task=ClassPromptTuning(label="digit", tower="image", shots=16, rank=4, alpha=8.0, dropout=0.0,
                                   templates=TEMPLATES, flip=False, least_area=0.6),
            forgetting=Digits(seed=seed, split="test"), lr=6e-3, steps=600, batch_size=32, workers=1,
            output=str(folder / "adapt"), seed=seed, notes=(NOTE,),
        )),
        page=folder / "adapt",
    )  # fmt: skip


def every_pair() -> list[str]:
    """The 50 classes, of which training shows 40."""
    from xfm.sources.synthetic.digits import COLOURS, DIGITS

    return [f"{colour} {digit}" for colour in COLOURS for digit in DIGITS]
