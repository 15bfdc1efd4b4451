"""A trained classifier as files: the network as its own kind of checkpoint, the head beside it. No pickle.

    model.safetensors, config.json, tokenizer files    what a backbone of the same kind reads; low-rank updates merged
    head.safetensors, head.json                        the head's tensors; its classes, pooling and shape
    adapter/                                           low-rank updates alone, as peft reads them

Where the head is one that the package `transformers` knows (DistilBERT's, on [CLS]), config.json and model.safetensors
hold it too, and AutoModelForSequenceClassification reads the folder.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from xfm.core.backbone import Backbone, BackboneConfig
from xfm.core.hub import fetch_folder
from xfm.models.adapters import merge, write_adapter
from xfm.models.clip.files import IMAGES
from xfm.models.headed import Head, HeadedBackbone, lora_of
from xfm.models.hub_folder import PATTERNS, TOKENIZER, WEIGHTS, new_folder
from xfm.models.pretrained import quiet
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.tasks.classification.settings import Classification

HEAD, ABOUT, ADAPTER = "head.safetensors", "head.json", "adapter"
TRAINED = ("head", "dropout", "pool", "label", "mode")  # of the task, as head.json keeps it


def write_classifier(
    folder: Path,
    classifier: HeadedBackbone,
    config: BackboneConfig,
    task: Classification,
    classes: tuple[str, ...],
    *,
    seed: int,
    training: Mapping[str, Any],
) -> None:
    """Writes the files; an existing folder is exchanged. Low-rank updates are merged in place.

    Args:
        folder: of the checkpoint.
        classifier: trained.
        config: the backbone's, whose tokenizer files are copied.
        task, seed: as it was trained.
        classes: in the order of the logits.
        training: recipe, to be kept beside the weights.
    """
    backbone = classifier.backbone.cpu()
    with new_folder(folder, replace=True) as new:
        if task.mode == "lora":
            network: Any = backbone.network
            write_adapter(new / ADAPTER, network, lora_of(task, seed), str(getattr(config, "checkpoint", "")))
            merge(network)
        if isinstance(backbone, ScGPTBackbone):
            _write_scgpt(new, backbone, config, training)
        else:
            _write_pretrained(new, backbone, classifier.head, config, task, classes)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in classifier.head.state_dict().items()}
        save_file(tensors, new / HEAD, metadata={"format": "pt"})
        about = {"classes": list(classes), "dim": backbone.dim, "training": dict(training)}
        about |= {name: getattr(task, name) for name in TRAINED}
        (new / ABOUT).write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_pretrained(
    folder: Path, backbone: Backbone, head: Head, config: BackboneConfig, task: Classification, classes: tuple[str, ...]
) -> None:
    network: Any = backbone.network
    network.config.id2label = dict(enumerate(classes))
    network.config.label2id = {name: code for code, name in enumerate(classes)}
    if network.config.model_type == "distilbert" and task.head == "mlp" and task.pool == "cls":
        network = _with_known_head(network, head, task.dropout)
    with quiet():
        network.save_pretrained(folder)
    checkpoint = fetch_folder(str(getattr(config, "checkpoint")), PATTERNS).folder  # noqa: B009 - not of every recipe
    for name in (*TOKENIZER, *IMAGES):
        if (checkpoint / name).is_file():
            shutil.copyfile(checkpoint / name, folder / name)


def _with_known_head(network: Any, head: Head, dropout: float) -> Any:
    from transformers import AutoModelForSequenceClassification

    network.config.seq_classif_dropout = dropout
    with torch.random.fork_rng(devices=[]):
        auto: Any = AutoModelForSequenceClassification
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


def about_checkpoint(task: Classification, classes: tuple[str, ...], kind: str) -> str:
    """A description for people."""
    shown = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    return (
        f"{kind} fine-tuned ({task.mode}) to tell {task.label}: {shown}. {WEIGHTS} is the network, {HEAD} and {ABOUT} "
        f"its head. To embed with it: --backbone.kind {kind} --backbone.checkpoint DIR"
    )
