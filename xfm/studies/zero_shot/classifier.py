"""The text side of zero-shot classification: one vector a class, made from its prompts, kept in one file.

The file is `classifier.safetensors`: the tensor `weights` (K, P), and in its header the classes, every prompt and the
checkpoint that read them, so that a saved classifier says by itself what it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.compute.embed import check_identity
from xfm.core.errors import Refused
from xfm.core.schema import REFUSED, ROW_ID, SHARD, TEXT
from xfm.core.storage import open_storage
from xfm.models.clip.prompts import Prompts, ensembled

# Shapes: K classes, P width of the shared space.
FILE = "classifier.safetensors"
HEADER = "xfm.classifier"
TENSOR = "weights"
BLOCK_TEXTS = 2048  # of one piece of work
BATCH_TEXTS = 128

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TextClassifier:
    """Unit vectors that images are compared with."""

    weights: F32  # (K, P) float32
    prompts: Prompts  # what they were made from
    made_by: Mapping[str, Any]  # identity of the checkpoint whose text tower read them
    cut: int = 0  # prompts that were longer than the tower reads

    def to_bytes(self) -> bytes:
        """A safetensors file."""
        from safetensors.numpy import save

        said = {"prompts": self.prompts.to_json(), "made_by": dict(self.made_by), "cut": self.cut}
        return bytes(save({TENSOR: self.weights}, metadata={HEADER: json.dumps(said, sort_keys=True)}))

    def digest(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


def read_classifier(place: str) -> TextClassifier:
    """A classifier saved before.

    Args:
        place: classifier.safetensors, or the OUTPUT that holds it; a path or a URI.

    Raises:
        Refused: NO_CLASSIFIER or BAD_CLASSIFIER.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    folder, _, name = place.rpartition("/") if place.endswith(".safetensors") else (place, "", FILE)
    data = open_storage(folder or ".").read(name)
    if data is None:
        raise Refused("NO_CLASSIFIER", f"--classifier {place}: no such file; give the OUTPUT of an earlier zero_shot "
                      f"job, or the {FILE} in it")  # fmt: skip
    try:
        weights = load(data)[TENSOR]
        said = json.loads(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"][HEADER])
        prompts = Prompts.from_json(said["prompts"])
        if weights.ndim != 2 or weights.dtype != np.float32 or len(weights) != len(prompts.values):
            raise ValueError(f"{len(prompts.values)} classes and weights of shape {weights.shape}, {weights.dtype}")
        return TextClassifier(weights, prompts, said["made_by"], int(said["cut"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as problem:
        raise Refused("BAD_CLASSIFIER", f"--classifier {place} was not written by a zero_shot job: {problem}") from None


@dataclass(frozen=True, slots=True)
class PromptWork:
    """What all workers share that encode prompts."""

    networks: Mapping[str, Any]  # recipes by name
    identities: Mapping[str, Mapping[str, Any]]  # of their weights, as the job was planned
    prompts: Mapping[str, Prompts]  # by name
    device: str  # where to compute

    def keys(self, network: str, prompts: str) -> list[str]:
        """Pieces of work for one classifier, in the order of its classes."""
        return [f"{network}-{prompts}-{start:06d}" for start in _starts(self.prompts[prompts])]


def encode(work: PromptWork, key: str) -> pa.Table:
    """The classes of one piece: number, weights, and how many of their prompts were cut."""
    network, name, start = key.split("-")
    config, prompts = work.networks[network], work.prompts[name]
    check_identity(config, work.identities[network])
    stop = int(start) + _size(prompts)
    texts = prompts.texts[int(start) : stop]
    tokenizer, backbone = config.prompt_tokenizer(), _built(config, work.device)
    numbers = range(int(start), int(start) + len(texts))
    weights = ensembled(_vectors(tokenizer, backbone, texts, work.device), [len(own) for own in texts]).numpy()
    if not np.isfinite(weights).all():
        raise Refused("NOT_FINITE", f"the prompts of {prompts.names[int(start)]!r} and others give no finite vector")
    cut = tokenizer.describe().get("truncated", {})
    return pa.table(
        {
            "number": pa.array(numbers, pa.int32()),
            TENSOR: pa.FixedSizeListArray.from_arrays(pa.array(weights.reshape(-1)), weights.shape[1]),
            "cut": pa.array([cut.get(str(i), 0) for i in range(len(texts))], pa.int32()),
        }
    )


def assemble(tables: Iterable[pa.Table], prompts: Prompts, made_by: Mapping[str, Any]) -> TextClassifier:
    """One classifier from the pieces of `encode`, in the order of the classes."""
    table = pa.concat_tables(tables).combine_chunks()
    if table["number"].to_pylist() != list(range(len(prompts.values))):
        raise ValueError(f"{table.num_rows} encoded classes are not the {len(prompts.values)} that were asked for")
    weights = table[TENSOR].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return TextClassifier(weights.astype(np.float32), prompts, made_by, sum(table["cut"].to_pylist()))


@lru_cache(maxsize=1)
def _built(config: Any, device: str) -> Any:
    """Once a process: it encodes many pieces, one network's after the other."""
    return config.build(device)


def _size(prompts: Prompts) -> int:
    """Classes of one piece."""
    return max(1, BLOCK_TEXTS // max(len(own) for own in prompts.texts))


def _starts(prompts: Prompts) -> range:
    return range(0, len(prompts.texts), _size(prompts))


def _vectors(tokenizer: Any, backbone: Any, texts: Sequence[Sequence[str]], device: str) -> Any:
    """(M, P) on the CPU; texts of one class bear its number as their shard, so that cut ones are counted by class."""
    import torch

    flat = [(str(number), text) for number, own in enumerate(texts) for text in own]
    found = []
    for start in range(0, len(flat), BATCH_TEXTS):
        some = flat[start : start + BATCH_TEXTS]
        batch = pa.RecordBatch.from_pydict(
            {
                ROW_ID: pa.array([str(start + i) for i in range(len(some))]),
                SHARD: pa.array([number for number, _ in some]),
                REFUSED: pa.nulls(len(some), pa.string()),
                TEXT: pa.array([text for _, text in some]),
            }
        )
        rows = tokenizer(batch)
        if reasons := [(text, why) for (_, text), why in zip(some, rows[REFUSED].to_pylist(), strict=True) if why]:
            raise Refused("BAD_PROMPT", f"the prompt {reasons[0][0]!r} cannot be read: {reasons[0][1]}")
        tokens = tokenizer.collate(rows).to(device)
        with torch.inference_mode():
            found.append(backbone.texts(tokens.ids, tokens.is_token).float().cpu())
    return torch.cat(found)
