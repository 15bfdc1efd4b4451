"""The two stages of a pretraining job: cells to tokens, and tokens to a trained checkpoint."""

import hashlib
import logging
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused
from xfm.core.source import Shard, Source
from xfm.core.storage import below
from xfm.core.tracker import Tracker
from xfm.engine.output import Output
from xfm.engine.session import OpenJob, local_folder
from xfm.engine.stage import StageResult, run_stage
from xfm.engine.training_config import TrainingConfig
from xfm.loops.training.settings import VALIDATION, Settings
from xfm.loops.training.tokens import TRAIN, SplitRows, TokenParts, token_parts
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.files import read_vocab
from xfm.models.scgpt.fresh import FreshScGPT, ordered, vocabulary_of
from xfm.models.scgpt.settings import Architecture
from xfm.tasks.masked_expression import OBJECTIVES

logger = logging.getLogger(__name__)

Start = ScGPT | FreshScGPT
WEIGHTS = "model.safetensors"
SMALL = 8  # so few shards need no second process to hand their tokens on


def scratch(source: Source, sizes: Mapping[str, Any], vocab: str | None, ties: Any, seed: int) -> FreshScGPT:
    """A network from scratch.

    Args:
        source: whose genes become the vocabulary where there is no other.
        sizes: fields of Architecture.
        vocab: path of a vocab.json.
        ties: as in `FreshScGPT`.
        seed: of the initial weights.

    Raises:
        Refused: NO_GENES, BAD_VOCABULARY or BAD_SETTINGS.
    """
    if sizes["dim"] % sizes["n_heads"]:
        raise Refused("BAD_SETTINGS", f"--dim {sizes['dim']} does not divide into --heads {sizes['n_heads']}")
    if vocab is not None:
        path = Path(vocab).expanduser()
        if not path.is_file():
            raise Refused("NO_VOCABULARY", f"--vocab {vocab}: no such file")
        tokens = ordered(read_vocab(path), vocab)
    else:
        genes = source.genes()
        if genes is None:
            raise Refused("NO_GENES", "the source's files are compressed or remote: its genes are known only after "
                          "reading. Give a vocabulary with --vocab FILE")  # fmt: skip
        tokens = vocabulary_of(genes)
    architecture = Architecture(n_tokens=len(tokens), mvc="inner product", **sizes)
    return FreshScGPT(tokens=tokens, architecture=architecture, ties=ties, seed=seed)


def further(checkpoint: str, vocab: str | None, max_length: int, ties: Any) -> ScGPT:
    """A network from a checkpoint, and its vocabulary where it brings none."""
    return ScGPT(checkpoint=checkpoint, vocab=vocab, max_length=max_length, ties=ties)


def tokenise(
    source: Source, start: Start, shards: Sequence[Shard], config: TrainingConfig, run: Mapping[str, Any], job: OpenJob
) -> tuple[TokenParts, StageResult]:
    """Stage one: OUTPUT/tokens, resumable on its own.

    Raises:
        Refused: NO_TRAINING_CELLS.
    """

    def build(_device: str) -> Callable[[], SplitRows]:
        return partial(SplitRows, config.seed, config.validation_fraction, group=config.group)

    workers = 1 if len(shards) <= SMALL else config.workers
    with Output(below(job.output.uri, "tokens"), {**run, "job": "pretrain tokens"}, joint=True) as output:
        result = run_stage(
            source, start, config.seed, shards, build, output, stage="tokens", workers=workers, gpus=0,
            attempt=job.attempt,
        )  # fmt: skip
        parts = token_parts(output.uri, [shard.key for shard in shards if shard.key in output.committed])
    if not sum(parts.count(TRAIN)):
        raise Refused("NO_TRAINING_CELLS", "no cell is left to train on: see tokens/quarantine.jsonl, and "
                      "--validation_fraction")  # fmt: skip
    return parts, result


def settings_of(config: TrainingConfig, cells: int) -> Settings:
    """How to train on so many cells."""
    steps = config.total_steps(cells)
    same = (
        "batch_size",
        "lr",
        "schedule",
        "weight_decay",
        "clip",
        "log_every",
        "checkpoint_every",
        "max_seconds",
        "seed",
    )
    return Settings(
        steps=steps, warmup=min(config.warmup, steps // 10), **{name: getattr(config, name) for name in same}
    )


def write_weights(job: OpenJob, start: Start, weights: Mapping[str, Any], recipe: Mapping[str, Any], seed: int) -> None:
    """OUTPUT/checkpoint: model.safetensors, args.json, vocab.json, which `ScGPT` reads; registered with the tracker."""
    from xfm.loops.pretraining.network import network_to_train
    from xfm.models.scgpt.checkpoint import write_checkpoint

    network = network_to_train(start, "cpu", seed)
    network.load_state_dict(dict(weights))
    tokenizer = start.tokenizer(seed)
    special = {"<cls>": tokenizer.cls_id, network.architecture.pad_token: tokenizer.pad_id}
    vocabulary = dict(tokenizer.vocabulary) | special
    training = {"xfm_pretrain": dict(recipe)}
    size = network.architecture
    about = (
        f"scGPT, {size.n_layers} blocks of width {size.dim}, {len(vocabulary):,} tokens, as {WEIGHTS}, args.json and "
        "vocab.json. To use it: --backbone.kind scgpt --backbone.checkpoint DIR"
    )
    folder = local_folder(job.output.uri)
    if folder is not None:
        write_checkpoint(folder / "checkpoint", network, vocabulary, training=training, replace=True)
        job.register("scgpt", folder / "checkpoint", _sha256(folder / "checkpoint" / WEIGHTS), about)
        return
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "checkpoint"
        write_checkpoint(written, network, vocabulary, training=training)
        for file in sorted(written.iterdir(), reverse=True):
            job.output.write_bytes(f"checkpoint/{file.name}", file.read_bytes())
        job.register("scgpt", below(job.output.place, "checkpoint"), _sha256(written / WEIGHTS), about)


def track_step(tracker: Tracker, record: Mapping[str, float]) -> None:
    """One record of the training loop, as curves of two groups: train and validation.

    Args:
        tracker: of the job.
        record: see `loops.training.settings`; errors are mean squared, in bins².
    """
    curves = {}
    for name, value in record.items():
        objective = name.removeprefix(VALIDATION)
        if objective in OBJECTIVES:
            curves[f"{'train' if objective == name else 'validation'}/{objective}_mse"] = value
        elif name != "step":
            curves[f"train/{name}"] = value
    tracker.metrics(curves, step=int(record["step"]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
