"""What a check of `python -m xfm doctor` is, and what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the screen.

    Attributes:
        name: what was looked at.
        state: ok; warn, jobs run with less than they could have; bad, jobs fail.
        text: what was found.
        remedy: what to do; empty only where the state is ok.
    """

    name: str
    state: State
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """A look at one thing.

    Attributes:
        name: of its finding.
        look: takes the look; may wait for others.
        late: what is to be said where `look` has not answered in time.
    """

    name: str
    look: Callable[[], Finding]
    late: Finding


def gigabytes(size: float) -> str:
    """1_500_000_000 → "1.5 GB"."""
    return f"{size / 1e9:.1f} GB" if size < 100e9 else f"{size / 1e9:,.0f} GB"
