"""Throughput of every layer against the reference's last one, side by side in one run.

    python jobs/bench.py

Both sides have the same random weights of released size (12 layers, 512 wide), the same cells (lengths drawn evenly
from 300 to 1200 genes), the same number of threads and fp32. xfm extracts all 13 states in two poolings, as its jobs
do: one worker a thread, each with its share of the cells, batches sorted by length. The reference runs
torch.nn.TransformerEncoder as the package `scgpt` does: cells in their order, padded to the longest of a batch of 16,
the last layer's <cls> only. Rounds alternate; the ratio is the median over rounds.
"""

import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.schema import INPUT_IDS, ROW_ID, VALUES
from xfm.engine.job import main, say


class Bench(Config):
    """Measures cells per second, xfm (all layers) against the reference (last layer)."""

    cells: PositiveInt = 64
    """Cells of a round."""

    rounds: PositiveInt = 2
    """Alternating rounds."""

    threads: PositiveInt = 2
    """Threads of both sides."""

    shortest: PositiveInt = 300
    """Least tokens of a cell."""

    longest: PositiveInt = 1200
    """Most tokens of a cell."""

    batch_tokens: PositiveInt = 8192
    """Token budget of an xfm batch."""

    seed: int = 0
    """Draws weights and cells."""


def run(bench: Bench) -> int:
    """Prints both sides and their ratio."""
    import torch

    warnings.filterwarnings("ignore", "The PyTorch API of nested tensors")  # the reference's fast path uses them

    from xfm.compute.embed import Embedder
    from xfm.models.reductions import Pool
    from xfm.models.scgpt.network import ScGPTBackbone
    from xfm.models.scgpt.settings import Architecture
    from xfm.tokenizers.binned import BinnedTokenizer

    torch.set_num_threads(bench.threads)
    torch.manual_seed(bench.seed)
    size = Architecture(n_tokens=60_697, n_layers=12, n_heads=8, dim=512, ffn=512)
    network = ScGPTBackbone(size).eval()
    tokenizer = BinnedTokenizer({f"g{i}": i for i in range(60_694)}, cls_id=60_695, pad_id=60_694)

    class Recipe:
        def build(self, _device: str) -> ScGPTBackbone:
            return network

        def tokenizer(self, _seed: int) -> BinnedTokenizer:
            return tokenizer

    pools = (Pool("cls"), Pool("mean"))
    recipe: Any = Recipe()
    embedder = Embedder(recipe, pools, range(13), batch_tokens=bench.batch_tokens, device="cpu", seed=0)
    reference = reference_encoder(network)
    cells = draw_cells(bench)
    say(f"{bench.cells} cells of {bench.shortest}-{bench.longest} tokens, {bench.threads} threads, fp32")
    shares = [cells.take(np.arange(start, bench.cells, bench.threads)) for start in range(bench.threads)]
    workers = ThreadPoolExecutor(bench.threads, initializer=lambda: torch.set_num_threads(1))
    list(workers.map(embedder.embed, [share.slice(0, 1) for share in shares]))
    run_reference(network, reference, tokenizer, cells.slice(0, 2))
    ratios = []
    for number in range(bench.rounds):
        started = time.perf_counter()
        ours = list(workers.map(embedder.embed, shares))
        middle = time.perf_counter()
        theirs = run_reference(network, reference, tokenizer, cells)
        ended = time.perf_counter()
        for start, share in enumerate(ours):
            np.testing.assert_allclose(share["cls_l12"], theirs[start :: bench.threads], atol=1e-4)
        fast, slow = bench.cells / (middle - started), bench.cells / (ended - middle)
        ratios.append(fast / slow)
        say(
            f"round {number + 1}: xfm {fast:.2f} cells/s (13 layers, cls and mean), "
            f"reference {slow:.2f} cells/s (last layer, cls): {ratios[-1]:.2f} times"
        )
    say(f"xfm extracts every layer {median(ratios):.2f} times as fast as the reference extracts its last; same <cls>")
    return 0


def draw_cells(bench: Bench) -> pa.Table:
    """Random tokens; what they are does not change the time."""
    rng = np.random.default_rng(bench.seed)
    lengths = rng.integers(bench.shortest, bench.longest + 1, bench.cells)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    ids = rng.integers(0, 60_694, offsets[-1]).astype(np.uint16)
    values = rng.integers(1, 51, offsets[-1]).astype(np.int16)
    ids[offsets[:-1]], values[offsets[:-1]] = 60_695, -2
    return pa.table(
        {
            ROW_ID: [str(i) for i in range(bench.cells)],
            INPUT_IDS: pa.LargeListArray.from_arrays(offsets, pa.array(ids)),
            VALUES: pa.LargeListArray.from_arrays(offsets, pa.array(values)),
        }
    )


def reference_encoder(network: Any) -> Any:
    """torch.nn.TransformerEncoder with the network's weights, in evaluation mode."""
    from torch import nn

    a = network.architecture
    layer = nn.TransformerEncoderLayer(a.dim, a.n_heads, a.ffn, a.dropout, batch_first=True)
    encoder = nn.TransformerEncoder(layer, a.n_layers)
    prefix = "transformer_encoder."
    state = network.state_dict()
    encoder.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    return encoder.eval()


def run_reference(network: Any, encoder: Any, tokenizer: Any, cells: pa.Table) -> np.ndarray:
    """(cells, 512) states at <cls> of the last layer."""
    import torch

    out = []
    with torch.inference_mode():
        for start in range(0, cells.num_rows, 16):
            tokens = tokenizer.collate(cells.slice(start, 16))
            x = network.encoder(tokens.ids) + network.value_encoder(tokens.values)
            out.append(encoder(x, src_key_padding_mask=~tokens.is_token)[:, 0].numpy())
    return np.concatenate(out)


if __name__ == "__main__":
    main(Bench, run, "bench")
