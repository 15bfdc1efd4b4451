"""The table of contents of the house: one line an entry, loaded when asked for."""

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from xfm.core.errors import did_you_mean

logger = logging.getLogger(__name__)

SOURCES = {
    "atlas": "xfm.sources.synthetic.atlas:Atlas",
    "census": "xfm.sources.census.source:Census",
    "digits": "xfm.sources.synthetic.digits:Digits",
    "embeddings": "xfm.sources.stored.source:Embeddings",
    "grammar": "xfm.sources.synthetic.grammar:Grammar",
    "h5ad": "xfm.sources.h5ad.source:H5ad",
    "hub_images": "xfm.sources.files.images:HubImages",
    "hub_text": "xfm.sources.files.text:HubText",
}
BACKBONES = {
    "clip": "xfm.models.clip.config:CLIP",
    "fusion": "xfm.models.fusion.config:Fusion",
    "hf_text": "xfm.models.hf_text.config:HFText",
    "scgpt": "xfm.models.scgpt.config:ScGPT",
}
TASKS = {
    "adversarial": "xfm.tasks.adversarial.settings:AdversarialClassification",
    "alignment": "xfm.tasks.alignment.settings:Alignment",
    "class_prompts": "xfm.tasks.class_prompts.settings:ClassPromptTuning",
    "classification": "xfm.tasks.classification.settings:Classification",
    "contrastive": "xfm.tasks.contrastive.settings:Contrastive",
    "masked_expression": "xfm.tasks.masked_expression.settings:MaskedExpression",
    "regression": "xfm.tasks.regression.settings:Regression",
}


def entries(group: str, table: dict[str, str]) -> dict[str, str]:
    """A table together with what other installed packages add through the entry points of `group`."""
    return table | {point.name: point.value for point in entry_points(group=group)}


def load(table: dict[str, str], name: str, what: str) -> Any:
    """The object behind one entry.

    Raises:
        KeyError: unknown name; the message offers the nearest and lists all.
    """
    if name not in table:
        raise KeyError(f"unknown {what} {name!r}.{did_you_mean(name, table, repr)} Known: {', '.join(sorted(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def load_all(group: str, table: dict[str, str], what: str) -> dict[str, Any]:
    """Every entry by name; one of another package that cannot be imported is left out and said, as ours still run."""
    found = {}
    for name, place in sorted(entries(group, table).items()):
        try:
            found[name] = load({name: place}, name, what)
        except (ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, OSError) as problem:
            if name in table:
                raise
            _say_once(f"{what} {name!r} of another package ({place}) is left out: {type(problem).__name__}: {problem}")
    return found


@cache
def _say_once(message: str) -> None:
    logger.warning(message)
