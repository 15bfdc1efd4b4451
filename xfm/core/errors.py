"""What can go wrong for a user, and the exit code that tells a script so."""

from collections.abc import Callable, Iterable
from difflib import get_close_matches

OK = 0
FAULT = 1  # of xfm, or of a package below it; the traceback lies in a file
USAGE = 2
QUARANTINED = 3
REFUSED_INPUT = 4
ENVIRONMENT = 5
TERMINATED = 143


class Refused(ValueError):
    """Input or output that must not be turned into numbers. Ends the job with exit code 4."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message  # scripts may test the code, e.g. NOT_COUNTS

    def __reduce__(self) -> tuple[type["Refused"], tuple[str, str]]:
        return type(self), (self.code, self.message)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class ShardRefused(Refused):
    """One shard (or the file it lies in) cannot be used: it is quarantined and the job goes on."""


class EnvironmentProblem(RuntimeError):
    """The machine, the cluster or a missing package stands in the way. Ends the job with exit code 5."""


def did_you_mean(word: str, known: Iterable[str], shown: Callable[[str], str] = str) -> str:
    """ " Did you mean NAME?" of the nearest known name, or nothing; put behind a sentence."""
    near = get_close_matches(word, list(known), n=1)
    return f" Did you mean {shown(near[0])}?" if near else ""
