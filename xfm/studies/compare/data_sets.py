"""Which runs judged the same: only their numbers may stand in one column."""

from collections.abc import Sequence
from dataclasses import dataclass

from xfm.core.errors import Refused
from xfm.studies.compare.finished_run import Run


@dataclass(frozen=True, slots=True, eq=False)
class DataSet:
    """What may stand in one column."""

    name: str  # A, B, ...
    # that judged the same cells by the same label, split by the same rule; seeds draw splits of their own
    runs: tuple[Run, ...]
    label: str = ""  # which one; empty for jobs that judge by none

    def __str__(self) -> str:
        first = self.runs[0]
        return ", ".join(filter(None, (f"{self.name}: {first.noun} {first.data_of(self.label)[:8]}", first.design)))


def data_sets(runs: Sequence[Run], label: str) -> list[DataSet]:
    """Runs by what they judged for a label, in their order."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.data_of(label), run.design), []).append(run)
    return [DataSet(_letter(number), tuple(some), label) for number, some in enumerate(found.values())]


def _letter(number: int) -> str:
    """A to Z, then AA."""
    return ("" if number < 26 else _letter(number // 26 - 1)) + chr(ord("A") + number % 26)


def other_data(what: str, about: Sequence[DataSet]) -> Refused:
    """Why runs on several data sets make no board of `what`."""
    held = "; ".join(f"{data} ({', '.join(run.name for run in data.runs)})" for data in about)
    return Refused(
        "OTHER_DATA",
        f"{what}: {sum(len(data.runs) for data in about)} runs were judged on {len(about)} different data sets, and "
        f"their numbers cannot stand in one column. {held}. Judge all on the same rows, labels and --group; or give "
        "`--columns data`, which puts each data set in columns of its own",
    )
