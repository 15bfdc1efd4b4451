"""Checks of the Python environment: the interpreter and the packages, against what xfm's metadata ask for."""

import re
import shlex
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, metadata, requires, version

from xfm.doctor.finding import Finding

SHOWN = ("torch", "ray", "mlflow", "numpy", "pyarrow", "anndata", "tiledbsoma")
EXTRAS = {"scvi-tools": "scVI as a baseline"}
MANY = 5  # packages in one line
ABSENT = "it is not installed"
_REQUIREMENT = re.compile(r"(?P<package>(?P<name>[\w.-]+)(\[[^]]*\])?)\s*\(?(>=\s*(?P<minimum>[\w.]+))?")

Versions = Callable[[str], str | None]


def found_version(package: str) -> str | None:
    """What is installed, None where nothing is."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def required(package: str = "xfm") -> list[str] | None:
    """The requirement lines of an installed package; None where it is not installed."""
    try:
        return requires(package) or []
    except PackageNotFoundError:
        return None


def required_python(package: str = "xfm") -> str:
    """The least Python version that an installed package names, e.g. 3.11; empty where it names none."""
    try:
        found = metadata(package)
    except PackageNotFoundError:
        return ""
    least = re.search(r">=\s*([\w.]+)", found["Requires-Python"]) if "Requires-Python" in found else None
    return least[1] if least else ""


def python(minimum: str, found: Sequence[int] = sys.version_info[:3]) -> Finding:
    """The interpreter."""
    release = ".".join(map(str, found))
    text = f"{release} at {sys.executable}"
    if _numbers(release) < _numbers(minimum):
        remedy = f"xfm needs {minimum} or newer, e.g. make setup PYTHON=python{minimum}"
        return Finding("Python", "bad", f"{text} is too old", remedy)
    return Finding("Python", "ok", text)


def packages(requirements: Sequence[str] | None, versions: Versions = found_version) -> Finding:
    """Every package that xfm needs, against the least version it needs.

    Args:
        requirements: lines as in package metadata, `numpy>=2.0`; those with a condition (extras) are passed over. None
            where xfm is not installed.
    """
    if requirements is None:
        return Finding("packages", "warn", "xfm is not installed (run from a checkout?): least versions are unknown",
                       f"in the checkout: {pip_install()} -e .")  # fmt: skip
    wanted = [match for line in requirements if ";" not in line and (match := _REQUIREMENT.match(line))]
    problems, remedies = [], []
    for match in wanted:
        name, minimum, found = match["name"], match["minimum"], versions(match["name"])
        if found is None:
            problems.append(f"{name} is missing")
        elif minimum and _numbers(found) < _numbers(minimum):
            problems.append(f"{name} {found} is older than {minimum}")
        else:
            continue
        remedies.append(shlex.quote(f"{match['package']}>={minimum}" if minimum else match["package"]))
    if len(problems) > MANY:
        text = f"{', '.join(problems[:MANY])}, and {len(problems) - MANY} more"
        remedy = "is it the right Python? In the checkout: make setup, then .venv/bin/python -m xfm doctor"
        return Finding("packages", "bad", text, remedy)
    if problems:
        return Finding("packages", "bad", ", ".join(problems), f"{pip_install()} --upgrade {' '.join(remedies)}")
    shown = [f"{name} {found}" for name in SHOWN if (found := versions(name))]
    return Finding("packages", "ok", f"{', '.join(shown)}; all {len(wanted)} that are needed are new enough")


def extras(versions: Versions = found_version) -> Finding:
    """Packages that some baselines need."""
    installed = {name: versions(name) for name in EXTRAS}
    missing = [name for name, found in installed.items() if found is None]
    text = "; ".join(f"{name} {found or 'absent'} ({EXTRAS[name]})" for name, found in installed.items())
    return Finding("extras", "ok", text, f"optional: {pip_install()} {' '.join(missing)}" if missing else "")


def pip_install() -> str:
    """The command, with the Python that runs this."""
    return f"{shlex.quote(sys.executable)} -m pip install"


def _numbers(text: str) -> tuple[int, ...]:
    """2.13.0+cpu → (2, 13, 0): the release, enough to compare with a least version."""
    release = re.match(r"\d+(\.\d+)*", text)
    numbers = [int(part) for part in release[0].split(".")] if release else []
    while numbers and numbers[-1] == 0:
        numbers.pop()  # 2.0 is 2
    return tuple(numbers)
