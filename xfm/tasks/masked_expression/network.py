"""The network a pretraining run starts from: all heads that its objectives need, and none of what they cannot feed."""

import logging

import torch

from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.network import ScGPTBackbone

logger = logging.getLogger(__name__)


def network_to_train(backbone: ScGPT | FreshScGPT, device: str, seed: int) -> ScGPTBackbone:
    """Builds the network; heads that a checkpoint lacks get initial weights drawn from the seed.

    Raises:
        Refused: NEEDS_LABELS; the checkpoint is conditioned on batch labels, which pretraining has none of.
    """
    network = backbone.build("cpu")
    found = network.architecture
    if found.label_encoder or found.input_norm == "dsbn":
        raise Refused(
            "NEEDS_LABELS",
            f"the checkpoint is conditioned on {found.n_labels} batch labels; pretraining starts from one without them",
        )
    wanted = found.model_copy(update={"decoder": True, "mvc": "inner product" if found.mvc == "none" else found.mvc})
    if wanted == found:
        return network.to(device)
    tokenizer = backbone.tokenizer(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key64(seed, "heads"))
        whole = ScGPTBackbone(wanted, pad_id=tokenizer.pad_id)
    missing = whole.load_state_dict(network.state_dict(), strict=False).missing_keys
    heads = sorted({name.split(".")[0] for name in missing})
    logger.warning("the checkpoint lacks %s: trained from scratch", ", ".join(heads))
    return whole.to(device)
