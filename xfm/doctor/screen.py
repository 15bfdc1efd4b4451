"""`python -m xfm doctor`: whether this machine can run jobs, on one screen.

Imports the standard library alone, so that it can say which package is missing. All checks run at once and are waited
for together; one that has no answer by then says so.
"""

import json
import subprocess
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from xfm.core import errors
from xfm.doctor import machine, packages, services
from xfm.doctor.finding import Check, Finding, State
from xfm.track.redact import redact_text

LIMIT_S = 6.5
WIDTH = 110
SLOW = "run this again: the machine is busy, or torch was read from disk for the first time"
RAY_SLOW = "is the network down, or its name server? Check RAY_ADDRESS"
_STATE, _NAME = 6, 15  # widths of the first two columns
_COLOURS = {"ok": "32", "warn": "33", "bad": "31"}


def checks(environ: Mapping[str, str], folder: Path) -> list[Check]:
    """All of them, in the order of the screen, for jobs that would be started in `folder`.

    Args:
        environ: RAY_…, HF_… and proxies; MLflow's are read by `xfm.track.server`.
    """
    return [
        _check("Python", lambda: packages.python(packages.required_python())),
        _check("packages", lambda: packages.packages(packages.required())),
        _check("extras", packages.extras),
        _check("cores", machine.cores),
        _check("memory", machine.memory),
        _check("disk here", lambda: machine.disk_here(folder), "bad", "is its file system mounted and well?"),
        _check("disk of Ray", lambda: machine.disk_of_ray(environ), "bad", "set RAY_TMPDIR to a local disk"),
        _check("shared memory", machine.shared_memory),
        _check("GPU", _gpu, "warn", SLOW),
        _check("Ray", lambda: services.ray(environ), "bad", RAY_SLOW),
        _check("Ray token", lambda: services.ray_token(environ)),
        _check("Hub", lambda: services.hub(environ), "warn", "HF_HUB_OFFLINE=1 and local folders work without it"),
        _check("MLflow", services.mlflow, "warn", f"{services.SPOOL}. Check MLFLOW_TRACKING_URI"),
    ]


def examine(wanted: Sequence[Check], limit_s: float = LIMIT_S) -> list[Finding]:
    """Runs the checks beside each other and returns their findings in order, without secrets.

    Args:
        limit_s: for all together. A check that takes longer is left to itself and reported as late.
    """
    findings: dict[str, Finding] = {}

    def look(check: Check) -> None:
        findings[check.name] = check.look()

    deadline = time.monotonic() + limit_s
    # Daemons: a name server that does not answer cannot be interrupted, and must not keep the process.
    threads = [threading.Thread(target=look, args=(check,), name=check.name, daemon=True) for check in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = {thread.name for thread in threads if thread.is_alive()}
    return [redacted(findings.get(c.name) or (c.late if c.name in late else _failed(c))) for c in wanted]


def redacted(finding: Finding) -> Finding:
    """The finding without credentials, on one line."""
    text, remedy = (" ".join(redact_text(part).split()) for part in (finding.text, finding.remedy))
    return replace(finding, text=text, remedy=remedy)


def exit_code(findings: Sequence[Finding]) -> int:
    """0 where nothing is bad, else 5."""
    return errors.ENVIRONMENT if worst(findings) == "bad" else errors.OK


def worst(findings: Sequence[Finding]) -> State:
    """The state of the machine."""
    states = {finding.state for finding in findings}
    return "bad" if "bad" in states else "warn" if "warn" in states else "ok"


def screen(findings: Sequence[Finding], *, colour: bool) -> str:
    """What a person reads: no line longer than WIDTH."""
    lines = [f"xfm {packages.found_version('xfm') or '(not installed)'}, started in {Path.cwd()}", ""]
    for finding in findings:
        word = f"{finding.state:<{_STATE}}"
        shown = f"\x1b[{_COLOURS[finding.state]}m{word}\x1b[0m" if colour else word
        text, *more = _wrapped(finding.text)
        lines.append(f"{shown}{finding.name:<{_NAME}}{text}")
        remedy = _wrapped(f"-> {finding.remedy}") if finding.remedy else []
        lines += [" " * (_STATE + _NAME) + line for line in (*more, *remedy)]
    lines[0] = textwrap.shorten(lines[0], WIDTH, placeholder=" ...")
    return "\n".join([*lines, "", _summary(findings)])


def as_json(findings: Sequence[Finding]) -> str:
    """The same for programs."""
    said = {"state": worst(findings), "exit_code": exit_code(findings), "findings": [asdict(f) for f in findings]}
    return json.dumps(said, indent=2)


def _summary(findings: Sequence[Finding]) -> str:
    bad, warned = (", ".join(f.name for f in findings if f.state == state) for state in ("bad", "warn"))
    if bad:
        return f"This machine is not ready: first see to {bad}."
    return "This machine can run jobs." + (f" Worth a look: {warned}." if warned else "")


def _failed(check: Check) -> Finding:
    return Finding(check.name, "bad", "the check itself failed, with the traceback above", "please report it")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH - _STATE - _NAME, break_on_hyphens=False) or [""]


def _check(
    name: str, look: Callable[[], Finding], state: State = "warn", remedy: str = "run this again; is the machine busy?"
) -> Check:
    return Check(name, look, Finding(name, state, "no answer in time", remedy))


def _gpu() -> Finding:
    try:
        seen = machine.see_gpus(timeout_s=LIMIT_S - 0.3)
    except subprocess.TimeoutExpired:
        return Finding("GPU", "warn", f"torch did not load within {LIMIT_S:.0f} s", SLOW)
    return machine.gpu(seen, driver=Path("/proc/driver/nvidia/version").exists())
