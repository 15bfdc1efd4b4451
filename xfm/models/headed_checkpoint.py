"""A trained backbone with its head as files: the network as its own kind of checkpoint, the head beside it. No pickle.

    model.safetensors, config.json, tokenizer files    what a backbone of the same kind reads; low-rank updates merged
    head.safetensors                                   of a `Head`
    head.json           its shape and pooling, and its outputs: `classes` in their order, or `target`: mean and sd
    adapter/                                           low-rank updates alone, as peft reads them

Where the head is one that the package `transformers` knows (DistilBERT's, on [CLS]), config.json and model.safetensors
hold it too, and AutoModelForSequenceClassification reads the folder: as classes, or as a regression where the head has
one output.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from xfm.core.backbone import Backbone, BackboneConfig
from xfm.core.hub import fetch_folder
from xfm.models.adapters import merge, write_adapter
from xfm.models.clip.files import IMAGES
from xfm.models.head_settings import HeadSettings
from xfm.models.headed import Head, HeadedBackbone, lora_of
from xfm.models.hub_folder import PATTERNS, TOKENIZER, WEIGHTS, new_folder
from xfm.models.pretrained import quiet
from xfm.models.reductions import Pool
from xfm.models.scgpt.network import ScGPTBackbone

ADAPTER = "adapter"
HEAD, ABOUT = "head.safetensors", "head.json"
SHAPE = ("head", "dropout", "pool", "mode")  # of the settings, as head.json keeps it


def write_headed(
    folder: Path,
    headed: HeadedBackbone,
    config: BackboneConfig,
    settings: HeadSettings,
    outputs: Sequence[str],
    *,
    seed: int,
    about: Mapping[str, Any],
    training: Mapping[str, Any],
) -> None:
    """Writes the files; an existing folder is exchanged. Low-rank updates are merged in place.

    Args:
        config: the backbone's, whose tokenizer files are copied.
        outputs: what each output of the head is called.
        about: what the outputs are, label and classes or target, and what else head.json is to keep.
        training: recipe, to be kept beside the weights.
    """
    backbone = headed.backbone.cpu()
    with new_folder(folder, replace=True) as new:
        if settings.mode == "lora":
            network: Any = backbone.network
            write_adapter(new / ADAPTER, network, lora_of(settings, seed), str(getattr(config, "checkpoint", "")))
            merge(network)
        if isinstance(backbone, ScGPTBackbone):
            _write_scgpt(new, backbone, config, training)
        else:
            _write_pretrained(new, headed, config, settings, outputs)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in headed.head.state_dict().items()}
        save_file(tensors, new / HEAD, metadata={"format": "pt"})
        shape = {"dim": backbone.dim} | {name: getattr(settings, name) for name in SHAPE}
        content = json.dumps({**shape, **about, "training": dict(training)}, indent=2, ensure_ascii=False)
        (new / ABOUT).write_text(content + "\n", encoding="utf-8")


def read_headed(folder: Path, backbone: Backbone) -> tuple[HeadedBackbone, dict[str, Any]]:
    """The head of a folder on the backbone read from it, in evaluation mode, and what head.json says."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return HeadedBackbone(backbone, Pool(about["pool"]), read_head(folder, about)).eval(), about


def read_head(folder: Path, about: Mapping[str, Any]) -> Head:
    """The head of a checkpoint whose head.json says `about`, in evaluation mode."""
    n_outputs = len(about["classes"]) if "classes" in about else 1
    head = Head(about["dim"], n_outputs, about["head"], about["dropout"], seed=0)
    head.load_state_dict(load_file(folder / HEAD))
    return head.eval()


def how_to_read(kind: str) -> str:
    """What the files are for, as a description ends."""
    return (
        f"{WEIGHTS} is the network, {HEAD} and {ABOUT} its head. To embed with it: --backbone.kind {kind} "
        "--backbone.checkpoint DIR"
    )


def _write_pretrained(
    folder: Path, headed: HeadedBackbone, config: BackboneConfig, settings: HeadSettings, outputs: Sequence[str]
) -> None:
    network: Any = headed.backbone.network
    network.config.id2label = dict(enumerate(outputs))
    network.config.label2id = {name: code for code, name in enumerate(outputs)}
    if network.config.model_type == "distilbert" and settings.head == "mlp" and settings.pool == "cls":
        network = _with_known_head(network, headed.head, settings.dropout)
    with quiet():
        network.save_pretrained(folder)
    checkpoint = fetch_folder(str(getattr(config, "checkpoint")), PATTERNS).folder  # noqa: B009 - not of every recipe
    for name in (*TOKENIZER, *IMAGES):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def _with_known_head(network: Any, head: Head, dropout: float) -> Any:
    from transformers import AutoModelForSequenceClassification

    network.config.seq_classif_dropout = dropout
    auto: Any = AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=[]):
        whole = auto.from_config(network.config, dtype=torch.float32)
    whole.distilbert.load_state_dict(network.state_dict())
    assert head.pre_classifier is not None
    whole.pre_classifier.load_state_dict(head.pre_classifier.state_dict())
    whole.classifier.load_state_dict(head.classifier.state_dict())
    return whole


def _write_scgpt(folder: Path, backbone: ScGPTBackbone, config: Any, training: Mapping[str, Any]) -> None:
    from xfm.models.scgpt.checkpoint import write_checkpoint

    tokenizer = config.tokenizer(0)
    special = {"<cls>": tokenizer.cls_id, backbone.architecture.pad_token: tokenizer.pad_id}
    vocabulary = dict(tokenizer.vocabulary) | special
    write_checkpoint(folder, backbone, vocabulary, training={"xfm_finetune": dict(training)}, replace=True)
