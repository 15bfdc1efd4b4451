"""A fusion as a folder: tensors, what they belong to, and the vectors of the labels that it knows.

model.safetensors, fusion.json (sizes, widths, text encoder, column of the words) and label_embeddings.parquet. Nothing
in it can run code, and with the three files the network needs neither the text encoder nor the data it learned from.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, PositiveInt, ValidationError

from xfm.core.config import Config
from xfm.core.errors import Refused
from xfm.models.fusion.label_embeddings import FILE as LABELS
from xfm.models.fusion.label_embeddings import TextBank, from_bytes, rows_of, to_bytes, vectors_under
from xfm.models.fusion.sizes import FusionSizes
from xfm.models.fusion.text import AnyText
from xfm.models.hub_folder import digests, new_folder, read_json

if TYPE_CHECKING:
    from torch import Tensor

    from xfm.models.fusion.config import Fusion
    from xfm.models.fusion.network import Concatenation, FusionModel

SETTINGS, WEIGHTS = "fusion.json", "model.safetensors"
PATTERNS = (SETTINGS, WEIGHTS, LABELS)


class FusionHeader(Config):
    """fusion.json."""

    format: Literal[1] = 1  # of the folder
    sizes: FusionSizes  # of the network
    gene_dim: PositiveInt  # numbers of a cell's embedding
    text_dim: PositiveInt  # numbers of a text vector
    text: AnyText  # the encoder of the labels
    encoder: dict[str, Any]  # what it was, `TextEncoder.about`: one that is to read new labels must have the same key
    text_column: str  # obs column that the words came from
    labels: tuple[str, ...]  # known labels, sorted
    # SHA-256 over these labels and their vectors, `TextBank.digest`; not stated by folders older than the field
    label_vectors: str | None = None
    about: dict[str, Any] = Field(default_factory=dict)  # how it was made


@dataclass(frozen=True, slots=True)
class FusionCheckpoint:
    """What a folder holds; the network is on the CPU."""

    header: FusionHeader
    network: "FusionModel | Concatenation"
    bank: TextBank


def write_fusion(
    folder: Path,
    network: "FusionModel | Concatenation",
    config: "Fusion",
    bank: TextBank,
    gene_dim: int,
    about: Mapping[str, Any] | None = None,
    *,
    replace: bool = False,
) -> None:
    """The files appear together or not at all; weights are written in float32.

    Args:
        folder: created; its parent too.
        bank: of `config.bank_of`; with all labels that the network is to know.
        about: how it was made, for readers.
        replace: whether an existing folder is exchanged.

    Raises:
        Refused: OUTPUT_EXISTS.
    """
    from safetensors.torch import save_file

    settled = config.settled()
    header = FusionHeader(
        sizes=settled.sizes, gene_dim=gene_dim, text_dim=bank.dim, text=settled.text, encoder=bank.encoder,
        text_column=config.text_column, labels=bank.labels, label_vectors=bank.digest(), about=dict(about or {}),
    )  # fmt: skip
    # Copies: a shared attention has two names, and a file holds a tensor under one.
    tensors = {name: tensor.detach().float().cpu().clone() for name, tensor in network.state_dict().items()}
    with new_folder(folder, replace=replace) as new:
        save_file(tensors, new / WEIGHTS)
        (new / SETTINGS).write_text(json.dumps(header.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        (new / LABELS).write_bytes(to_bytes(rows_of(bank.parts(), bank.encoder)))


def read_fusion(folder: Path, sizes: FusionSizes | None = None) -> FusionCheckpoint:
    """What `write_fusion` wrote, with other `sizes` where the dropout is to be another.

    Raises:
        Refused: NO_SETTINGS, BAD_SETTINGS, NO_WEIGHTS, BROKEN_WEIGHTS, MISSING_TENSORS, OTHER_SHAPES, NOT_FINITE or
            BROKEN_LABELS.
    """
    from xfm.models.fusion.network import build_network

    header = read_header(folder)
    bank = read_bank(folder, header)
    network = build_network(sizes or header.sizes, header.gene_dim, header.text_dim, 0)
    tensors = _tensors(folder / WEIGHTS)
    _check_tensors(folder / WEIGHTS, tensors, network.state_dict())
    network.load_state_dict(tensors)
    return FusionCheckpoint(header, network, bank)


def read_header(folder: Path) -> FusionHeader:
    """fusion.json; light.

    Raises:
        Refused: NO_SETTINGS or BAD_SETTINGS.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise Refused("NO_SETTINGS", f"{folder} holds no {SETTINGS}: it is no checkpoint of a fusion. One is what "
                      "`jobs/pretrain.py --task.kind alignment` leaves in OUTPUT/checkpoint")  # fmt: skip
    content = read_json(path)
    if content.get("format") != 1:
        raise Refused("BAD_SETTINGS", f"{path} is of format {content.get('format')!r}; this version reads format 1")
    try:
        return FusionHeader.model_validate(content)
    except ValidationError as problem:
        first = problem.errors()[0]
        raise Refused("BAD_SETTINGS", f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from problem


def read_bank(folder: Path, header: FusionHeader) -> TextBank:
    """The labels' vectors.

    Raises:
        Refused: BROKEN_LABELS, missing, damaged, or of other labels or vectors than fusion.json says.
    """
    path = folder / LABELS
    if not path.is_file():
        raise Refused("BROKEN_LABELS", f"{folder} holds no {LABELS}, the vectors of the labels that its network knows")
    try:
        found = vectors_under(from_bytes(path.read_bytes()), str(header.encoder.get("key")))
    except ValueError as problem:
        raise Refused("BROKEN_LABELS", f"{path}: {problem}") from problem
    widths = {label.vectors.shape[1] for label in found.values()}
    if tuple(sorted(found)) != header.labels or widths != {header.text_dim}:
        raise Refused("BROKEN_LABELS", f"{path} holds {len(found)} labels of {sorted(widths)} numbers under this "
                      f"encoder, {SETTINGS} says {len(header.labels)} of {header.text_dim}: one of both is another "
                      "checkpoint's")  # fmt: skip
    bank = TextBank.of(found, header.encoder)
    if header.label_vectors not in (None, bank.digest()):
        raise Refused("BROKEN_LABELS", f"{path} holds other vectors than the network learned with: {SETTINGS} says "
                      f"{header.label_vectors}, these are {bank.digest()}")  # fmt: skip
    return bank


def file_digests(folder: Path, *, weights: bool) -> dict[str, str]:
    """File name to SHA-256 of its bytes.

    Raises:
        Refused: NO_WEIGHTS or NO_SETTINGS, a file is missing.
    """
    for name in PATTERNS:
        if not (folder / name).is_file():
            code = "NO_WEIGHTS" if name == WEIGHTS else "NO_SETTINGS"
            raise Refused(code, f"{folder} holds no {name}; a fusion is a folder of {', '.join(PATTERNS)}")
    return digests(folder / name for name in ((WEIGHTS,) if weights else ()) + (SETTINGS, LABELS))


def _tensors(path: Path) -> "dict[str, Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise Refused("NO_WEIGHTS", f"{path.parent} holds no {WEIGHTS}")
    try:
        return load_file(path)
    except (SafetensorError, OSError) as problem:
        raise Refused("BROKEN_WEIGHTS", f"{path}: the weights cannot be read: {problem}") from problem


def _check_tensors(path: Path, tensors: "Mapping[str, Tensor]", wanted: "Mapping[str, Tensor]") -> None:
    for names, what in ((wanted.keys() - tensors.keys(), "lacks"), (tensors.keys() - wanted.keys(), "holds")):
        if names:
            raise Refused("MISSING_TENSORS", f"{path} {what} {len(names)} tensors beside what {SETTINGS} asks for, "
                          f"e.g. {', '.join(sorted(names)[:3])}: is it that of these weights?")  # fmt: skip
    for name, tensor in tensors.items():
        if tensor.shape != wanted[name].shape:
            raise Refused("OTHER_SHAPES", f"{path}: {name} is {tuple(tensor.shape)} in the weights and "
                          f"{tuple(wanted[name].shape)} by {SETTINGS}")  # fmt: skip
        if not tensor.isfinite().all():
            raise Refused("NOT_FINITE", f"{path}: {name} holds numbers that are not finite")
