"""Sentences of a small grammar through a tiny DistilBERT: frozen at every layer, fine-tuned, and both side by side.

A label has to be composed (negation, contrast, concession), so that counting words is not enough. The network starts
from random weights: what its layers tell before training is what tokens and attention give away by themselves.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import compare
import evaluate
import finetune
from demo_steps import Step

from xfm.models.hf_text.config import HFText
from xfm.models.hf_text.fresh import FreshDistilBERT
from xfm.sources.synthetic.grammar import Grammar, sentences
from xfm.tasks.classification.settings import Classification

NOTE = (
    "A demonstration: made-up sentences of six structures with known labels, and a DistilBERT of 4 layers, 64 wide, "
    "trained on them from random weights. It shows frozen layers, fine-tuning and their comparison at work, and that "
    "labels which must be composed need training; it says nothing of real sentences or of the released DistilBERT."
)
ROWS = 4000


def steps(folder: Path, seed: int, _train_seconds: float) -> Iterator[Step]:
    """Every step is a job of its own, with its own OUTPUT and report."""
    source = Grammar(n=ROWS, seed=seed)
    start = folder / "distilbert"
    if not (start / "model.safetensors").exists():
        texts = [sentence.text for sentence in sentences(ROWS, seed)]
        FreshDistilBERT(seed=seed).write(start, texts)
    workers = min(2, os.cpu_count() or 1)

    def judge(checkpoint: Path, output: str) -> int:
        return evaluate.run(evaluate.EvaluateJob(
            source=source, backbone=HFText(checkpoint=str(checkpoint)), labels=("label", "structure"), split="split",
            tasks=("svm", "probe"), choose_by="svm", baselines=("majority", "chance"), combinations=(),
            output=str(folder / output), seed=seed, notes=(NOTE,),
        ))  # fmt: skip

    yield Step(
        "Judge every layer of the untrained network: linear SVM and logistic regression", lambda: judge(start, "frozen")
    )
    yield Step(
        "Fine-tune all of it, epoch by epoch, the best one on validation sentences is kept",
        lambda: finetune.run(finetune.FinetuneJob(
            source=source, backbone=HFText(checkpoint=str(start)), split="split", output=str(folder / "finetune"),
            task=Classification(network_dropout=0.0, pool="mean"), lr=1e-3, epochs=20, batch_size=64, workers=workers,
            seed=seed, notes=(NOTE,),
        )),
        page=folder / "finetune",
    )  # fmt: skip
    yield Step(
        "Judge every layer of the fine-tuned network",
        lambda: judge(folder / "finetune" / "checkpoint", "tuned"),
        page=folder / "tuned",
    )
    runs = tuple(str(folder / name) for name in ("frozen", "tuned", "finetune"))
    yield Step(
        "Compare: frozen, fine-tuned and its own layers on the same test sentences",
        lambda: compare.run(compare.CompareJob(runs=runs, output=str(folder / "compare"))),
        page=folder / "compare",
    )
