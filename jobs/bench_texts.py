"""What every layer of a text encoder costs, as a ratio to its last one, side by side in one run.

    python jobs/bench_texts.py --checkpoint DIR --path DATA

Both sides read the same texts with the same weights on one thread. xfm keeps every state in two poolings, its batches
sorted by length; the reference is transformers' own forward in batches of 32 in the order of the file, its last [CLS]
kept. Rounds alternate; the ratio is of CPU seconds, the median over rounds.
"""

import time
from statistics import median
from typing import Any

import numpy as np
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.engine.job import main, say

BATCH = 32  # texts of a batch of the reference


class Bench(Config):
    """Measures CPU seconds, xfm (all layers) against transformers (last layer)."""

    checkpoint: str
    """Folder of an encoder: BERT, MiniLM, DistilBERT."""

    path: str
    """Folder of texts, as `--source.kind hub_text` reads it; its first shard is taken."""

    rounds: PositiveInt = 3
    """Alternating rounds."""


def run(bench: Bench) -> int:
    """Prints both sides and their ratio."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    from xfm.compute.embed import Embedder
    from xfm.compute.read import read_tokens
    from xfm.core.schema import TEXT, layer_column
    from xfm.models.hf_text.config import HFText
    from xfm.models.reductions import Pool
    from xfm.sources.files.text import HubText

    disable_progress_bar()
    torch.set_num_threads(1)  # as a worker computes
    source, backbone = HubText(path=bench.path), HFText(checkpoint=bench.checkpoint)
    shard = source.shards()[0]
    model = AutoModel.from_pretrained(bench.checkpoint, use_safetensors=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(bench.checkpoint)
    last: int = model.config.num_hidden_layers
    embedder = Embedder(
        backbone, (Pool("cls"), Pool("mean")), tuple(range(last + 1)), device="cpu", batch_tokens=8192, seed=0
    )
    texts = [text for batch in source.read(shard) for text in batch.column(TEXT).to_pylist()]
    ratios = []
    for number in range(bench.rounds):
        started = time.process_time()
        ours = embedder(read_tokens(source, backbone.tokenizer(0), shard).tokens)
        middle = time.process_time()
        theirs = last_states(model, tokenizer, texts)
        ended = time.process_time()
        np.testing.assert_allclose(np.stack(ours[layer_column("cls", last)].to_numpy()), theirs, atol=1e-4)
        ratios.append((middle - started) / (ended - middle))
        say(
            f"round {number + 1}: xfm {middle - started:.1f} CPU seconds ({last + 1} layers, cls and mean), "
            f"transformers {ended - middle:.1f} (last layer, cls): {ratios[-1]:.2f} times"
        )
    say(f"{len(texts):,} texts: every layer costs {median(ratios):.2f} times what transformers takes for its last")
    return 0


def last_states(model: Any, tokenizer: Any, texts: list[str]) -> np.ndarray:
    """(texts, width) last state at [CLS]."""
    import torch

    out = []
    with torch.inference_mode():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
            out.append(model(**batch).last_hidden_state[:, 0].numpy())
    return np.concatenate(out)


if __name__ == "__main__":
    main(Bench, run, "bench_texts")
