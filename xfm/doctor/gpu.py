"""The check of GPUs, as PyTorch sees them."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xfm.doctor.finding import Finding, gigabytes
from xfm.doctor.packages import ABSENT, found_version, pip_install


def gpu(seen: Mapping[str, Any], driver: bool) -> Finding:
    """GPUs as PyTorch sees them.

    Args:
        seen: what `gpu_probe.look` gave, or {"error": why there is nothing}.
        driver: whether NVIDIA's driver is loaded.
    """
    name = "GPU"
    if (error := seen.get("error")) == ABSENT:
        return Finding(name, "bad", f"torch, which sees them: {error}", "see packages")
    if error:
        return Finding(name, "bad", f"torch does not load: {error}", f"{pip_install()} --force-reinstall torch")
    cards, warnings, torch = seen["cards"], seen["warnings"], f"torch {seen['torch']}"
    if cards and warnings:
        remedy = "install the torch that https://pytorch.org/get-started names for this card and driver"
        return Finding(name, "warn", f"{_listed(cards)}, but {torch} says: {warnings[0]}", remedy)
    if cards:
        return Finding(name, "ok", f"{_listed(cards)}; use with --gpus 1")
    if not driver:
        return Finding(name, "ok", "none; jobs compute on the CPU")
    if seen["cuda"] is None:
        remedy = f"{pip_install()} --force-reinstall torch (from PyPI it brings CUDA), or go on without the GPU"
        return Finding(name, "warn", f"NVIDIA's driver is here, but {torch} is built for CPUs", remedy)
    if seen["hidden"]:
        return Finding(name, "warn", "CUDA_VISIBLE_DEVICES hides them", "unset it to use them")
    why = f": {warnings[0]}" if warnings else ""
    remedy = "update the driver (nvidia-smi names the CUDA it takes), or install a torch built for that CUDA"
    return Finding(name, "warn", f"{torch} (CUDA {seen['cuda']}) cannot use the GPU{why}", remedy)


def see_gpus(timeout_s: float) -> dict[str, Any]:
    """Imports torch in a process of its own: a broken one takes only that down, and a slow one can be left.

    Raises:
        subprocess.TimeoutExpired: it was not done in time; it is ended.
    """
    if found_version("torch") is None:
        return {"error": ABSENT}
    script = Path(__file__).with_name("gpu_probe.py")
    # -P: neither this folder nor the current one may stand in for a package.
    done = subprocess.run([sys.executable, "-P", str(script)], capture_output=True, text=True, timeout=timeout_s)
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines()
        return {"error": said[-1] if said else f"its process ended with code {done.returncode}"}
    seen: dict[str, Any] = json.loads(lines[-1])
    return seen


def _listed(cards: Sequence[Mapping[str, Any]]) -> str:
    kinds = [f"{card['name']}, {gigabytes(card['memory'])}" for card in cards]
    return "; ".join(f"{kinds.count(kind)} x {kind}" for kind in dict.fromkeys(kinds))
