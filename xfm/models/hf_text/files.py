"""What families of text encoders are read, and where their parts are. Light to import."""

from pathlib import Path

from xfm.core.errors import Refused
from xfm.models.hub_folder import read_json

# Model types of config.json, and where the blocks are in the network that `transformers` builds of them.
FAMILIES = {
    "bert": "encoder.layer",  # BERT, BioBERT, PubMedBERT, MiniLM
    "distilbert": "transformer.layer",
    "roberta": "encoder.layer",
    "xlm-roberta": "encoder.layer",
    "camembert": "encoder.layer",
}
# These number positions from the padding id + 1, so that many rows of the table hold none.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")


def read_family(settings: Path) -> str:
    """The model type.

    Raises:
        Refused: BAD_SETTINGS or UNKNOWN_FAMILY.
    """
    content = read_json(settings)
    family = content.get("model_type")
    if family not in FAMILIES:
        raise Refused("UNKNOWN_FAMILY", f"{settings}: model_type {family!r} is none of {', '.join(sorted(FAMILIES))}")
    if content.get("is_decoder"):
        raise Refused("UNKNOWN_FAMILY", f"{settings}: is_decoder is set; only encoders are read")
    return str(family)
