"""The net below everything: what nobody foresaw becomes one line, and its traceback a file."""

import errno
import os
import tempfile
import time
import traceback
from pathlib import Path

from xfm.core.errors import EnvironmentProblem
from xfm.track.redact import redact_text

FULL = (errno.ENOSPC, errno.EDQUOT)
LONGEST = 300  # characters of a cause in a line


def as_problem(error: BaseException) -> EnvironmentProblem | None:
    """What the machine lacks, where that is all that went wrong; else None."""
    if isinstance(error, OSError) and error.errno in FULL:
        where = f" at {error.filename}" if error.filename else ""
        return EnvironmentProblem(
            f"no space left{where} ({error.strerror}). Free some, and start the same command again"
        )
    if isinstance(error, MemoryError):
        what = f": {error}" if str(error) else ""
        return EnvironmentProblem(
            f"not enough memory{what}. Give fewer --workers, a smaller batch, or a larger machine"
        )
    return None


def in_one_line(error: BaseException, output: str | None) -> str:
    """The cause, where its traceback lies, and what to do. Credentials are in neither.

    Args:
        output: folder of the job, where the traceback is kept if it is there; else the folder for temporary files.
    """
    cause = redact_text(" ".join(str(error).split()))[:LONGEST]
    said = f"{type(error).__name__}: {cause}" if cause else type(error).__name__
    text = redact_text("".join(traceback.format_exception(error)))
    try:
        place = str(_kept(text, output))
    except OSError as problem:
        place = f"nowhere, as no file could be written ({problem.strerror})"
    return (
        f"{said}. This is a fault of xfm or of a package below it, not of your command; the traceback is in {place}: "
        "please report it with that file. What is committed stays, and the same command continues"
    )


def _kept(text: str, output: str | None) -> Path:
    local = (output or "").removeprefix("file://")
    folder = Path(local) if local and "://" not in local else None
    if folder is not None and folder.is_dir() and os.access(folder, os.W_OK):
        path = folder / time.strftime("traceback-%Y%m%d-%H%M%S.txt")
        path.write_text(text)
        return path
    handle, name = tempfile.mkstemp(prefix="xfm-traceback-", suffix=".txt")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    return Path(name)
