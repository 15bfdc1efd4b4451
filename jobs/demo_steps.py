"""What the demos share: jobs one after the other, until one does not succeed."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from xfm.core.errors import OK
from xfm.engine.job import say


@dataclass(frozen=True, slots=True)
class Step:
    """One job of a demo.

    Attributes:
        title: what happens, in words.
        run: the job; returns its exit code.
        page: its OUTPUT, where the page is one to read at the end.
    """

    title: str
    run: Callable[[], int]
    page: Path | None = None


def follow(steps: Iterable[Step]) -> tuple[int, list[Path]]:
    """Runs the steps; the exit code of the last one that ran, and the pages to read, the last one first."""
    pages: list[Path] = []
    for number, step in enumerate(steps, start=1):
        say(f"\n{number}. {step.title}")
        if (code := step.run()) != OK:
            return code, pages
        if step.page is not None:
            pages.insert(0, step.page / "report.html")
    return OK, pages


def shown(path: Path) -> str:
    """Relative where that is shorter."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
