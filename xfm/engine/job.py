"""What happens around a job: settings, signals, exit codes, and what the user reads at the end."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import NoReturn, TypeVar

from xfm.core import errors
from xfm.core.config import Config
from xfm.engine.cluster import disconnect, prepare
from xfm.engine.fault import as_problem, in_one_line
from xfm.engine.settings import UsageError, exit_usage, parse

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Config)
BROKEN_PIPE = 141  # as a shell calls what ended for want of a reader
PACKAGES = ("xfm", "torch", "transformers", "ray", "numpy", "pyarrow", "anndata", "tiledbsoma", "mlflow")


class Terminated(SystemExit):
    """SIGTERM, as an exception: leases are freed and runs are closed on the way out."""


def main(config_type: type[C], run: Callable[[C], int], name: str, argv: Sequence[str] | None = None) -> NoReturn:
    """The whole life of a job's process. `run` returns its exit code."""
    prog = f"jobs/{name}.py"
    set_up_logging()
    given = sys.argv[1:] if argv is None else argv
    config: C | None = None

    def settled() -> int:
        nonlocal config
        prepare()
        try:
            config = parse(config_type, given, os.environ, prog)
        except UsageError as error:
            exit_usage(str(error), prog)
        return run(config)

    code = guarded(settled, prog, lambda: getattr(config, "output", None))
    disconnect()
    sys.stdout.flush()
    raise SystemExit(code)


def guarded(run: Callable[[], int], prog: str, output: Callable[[], str | None] = lambda: None) -> int:
    """Turns the ways a job can end into exit codes, with one clear message each; no traceback reaches a user.

    Args:
        output: gives the folder of the job, where the traceback of a fault is kept, once it is known.
    """
    signal.signal(signal.SIGTERM, _terminate)
    try:
        return run()
    except Terminated:
        logger.warning("terminated; what is committed stays, the same command continues")
        return errors.TERMINATED
    except KeyboardInterrupt:
        logger.warning("interrupted; what is committed stays, the same command continues")
        return 130
    except SystemExit:
        raise
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more; nothing more is written
        return BROKEN_PIPE
    except BaseException as error:  # noqa: BLE001 - the net below everything
        problem = find_cause(error) or as_problem(error)
        if problem is None:
            sys.stderr.write(f"{prog}: {in_one_line(error, output())}\n")
            return errors.FAULT
        sys.stderr.write(f"{prog}: {problem}\n")
        return errors.REFUSED_INPUT if isinstance(problem, errors.Refused) else errors.ENVIRONMENT


def find_cause(error: BaseException) -> errors.Refused | errors.EnvironmentProblem | None:
    """The problem of ours that Ray may have wrapped, several times over."""
    seen: set[int] = set()
    queue: list[BaseException | None] = [error]
    while queue:
        item = queue.pop()
        if item is None or id(item) in seen:
            continue
        if isinstance(item, errors.Refused | errors.EnvironmentProblem):
            return item
        seen.add(id(item))
        queue += [item.__cause__, item.__context__, getattr(item, "cause", None)]
    return None


def set_up_logging() -> None:
    """One line an event on standard error."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", datefmt="%H:%M:%S")
    for chatty in ("ray", "mlflow", "alembic", "matplotlib", "huggingface_hub", "urllib3", "fsspec", "botocore"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def say(text: str) -> None:
    """What the user asked to see, on standard output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def versions() -> dict[str, str]:
    """What ran."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def is_local(output: str) -> bool:
    """Whether an output is a folder of this machine."""
    return "://" not in output or output.startswith("file://")


def scratch_path(output: str, name: str) -> Path:
    """A local file that belongs to an output: inside it, or in the state folder for a remote one."""
    if is_local(output):
        return Path(output.removeprefix("file://")) / name
    from hashlib import sha256

    state = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state"))
    return state / "xfm" / sha256(output.encode()).hexdigest()[:16] / name


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated(errors.TERMINATED)
