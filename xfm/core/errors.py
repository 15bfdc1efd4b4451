"""What can go wrong for a user, and the exit code that tells a script so."""

OK = 0
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
