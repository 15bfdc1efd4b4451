"""What a check of `python -m xfm doctor` is, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the screen."""

    name: str  # what was looked at
    state: State  # ok; warn, jobs run with less than they could have; bad, jobs fail
    text: str  # what was found
    remedy: str = ""  # what to do; empty only where the state is ok


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one thing."""

    name: str  # of its finding
    look: Callable[[], Finding]  # takes the look; may wait for others
    late: Finding  # what is to be said where `look` has not answered in time


def gigabytes(size: float) -> str:
    """1_500_000_000 → "1.5 GB"."""
    return f"{size / 1e9:.1f} GB" if size < 100e9 else f"{size / 1e9:,.0f} GB"
