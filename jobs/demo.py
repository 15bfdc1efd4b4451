"""The jobs on data that need no download, on one machine in minutes.

make demo                                                     # 700 real blood cells and a small scGPT
python jobs/demo.py --config jobs/presets/demo_text.yaml      # sentences of a small grammar and a tiny DistilBERT
python jobs/demo.py --config jobs/presets/demo_digits.yaml    # coloured digits and a small CLIP from scratch
python jobs/demo.py --config jobs/presets/demo_donors.yaml    # made cells, words for their types, an adversary
"""

import time
from importlib import import_module
from pathlib import Path
from typing import Literal

from demo_steps import follow, shown
from pydantic import PositiveFloat

from xfm.core.config import Config
from xfm.engine.job import main, say


class Demo(Config):
    """Runs several jobs one after the other on small data; takes about three minutes on 2 cores."""

    what: Literal["cells", "text", "digits", "donors"] = "cells"
    """Blood cells and scGPT, sentences and DistilBERT, coloured digits and CLIP, or donors of a made atlas."""

    output: str | None = None
    """Folder for everything; by default runs/demo, runs/demo_text, runs/demo_digits or runs/demo_donors. Running again
    continues."""

    train_seconds: PositiveFloat = 50.0
    """Time budget of pretraining (cells only)."""

    seed: int = 0
    """Keys data, splits, weights and masks."""


def run(demo: Demo) -> int:
    """Follows the steps and says where their pages are."""
    started = time.monotonic()
    script = import_module(f"demo_{demo.what}")
    folder = Path(demo.output or ("runs/demo" if demo.what == "cells" else f"runs/demo_{demo.what}")).absolute()
    code, pages = follow(script.steps(folder, demo.seed, demo.train_seconds))
    say(f"\n{script.NOTE}")
    for page in pages:
        say(f"page     {shown(page)}")
    say(f"took     {time.monotonic() - started:.0f} s")
    return code


if __name__ == "__main__":
    main(Demo, run, "demo")
