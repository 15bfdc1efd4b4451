"""The main job on 700 real blood cells, from counts to a table, on one machine in minutes.

    make demo

Writes the cells as a small store of Census layout, pretrains a small scGPT on some of them, then extracts every layer
of the cells it has not seen and asks each layer what it knows of expression.
"""

import logging
import sys
import time
from pathlib import Path
from typing import Any

import embed
import layerwise
import pretrain

from xfm.core.config import Config
from xfm.core.errors import OK, QUARANTINED
from xfm.core.random import in_fraction
from xfm.engine.job import guarded, say, set_up_logging
from xfm.engine.settings import UsageError, exit_usage, parse

logger = logging.getLogger(__name__)

TITLE = "demo: a small scGPT on 700 PBMC"


class Demo(Config):
    """Runs pretrain, embed and layerwise on 700 PBMC; takes a few minutes on 2 cores."""

    output: str = "runs/demo"
    """Folder for the store, the checkpoint and the results."""

    train_seconds: float = 60.0
    """Time budget of pretraining."""

    seed: int = 0
    """Keys the split, the weights and every mask."""
