"""python -m xfm: list what there is, export an OUTPUT, send records that tracking could not, examine the machine."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from xfm.core import errors, registry


def main(argv: Sequence[str] | None = None) -> int:
    """Parses and runs one command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m xfm", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="the sources, backbones and tasks there are, with what other packages add")
    export = commands.add_parser("export", help="one AnnData from an OUTPUT of embed")
    export.add_argument("output", help="folder or URI that embed wrote")
    export.add_argument("target", help="cells.h5ad or cells.zarr")
    export.add_argument("--layers", default="all", help="layer numbers to keep, e.g. 0,6,12 (default: all)")
    export.add_argument("--overwrite", action="store_true", help="replace an existing target")
    sync = commands.add_parser("sync", help="send the MLflow records that a job could not")
    sync.add_argument("output", help="folder or URI of the job")
    doctor = commands.add_parser("doctor", help="whether this machine can run jobs, and what to do where it cannot")
    doctor.add_argument("--json", action="store_true", help="the same for programs")
    doctor.add_argument("--start-ray", action="store_true", help="also start Ray (or join RAY_ADDRESS): half a minute")
    arguments = parser.parse_args(argv)
    prog = f"python -m xfm {arguments.command}"
    if arguments.command == "doctor":  # what the net below imports may be missing
        try:
            return _doctor(arguments)
        except Exception as error:  # noqa: BLE001 - the last resort of a machine that is being examined
            print(f"{prog}: {type(error).__name__}: {error}. Please report this", file=sys.stderr)
            return errors.FAULT
    from xfm.engine.job import guarded, set_up_logging

    set_up_logging()
    run = {"list": _list, "export": _export, "sync": _sync}[arguments.command]
    return guarded(lambda: run(arguments), prog)


def _list(_arguments: argparse.Namespace) -> int:
    from xfm.engine.flags import kind_lines

    tables = {
        "sources (--source.kind)": ("xfm.sources", registry.SOURCES),
        "backbones (--backbone.kind)": ("xfm.backbones", registry.BACKBONES),
        "tasks (--task.kind)": ("xfm.tasks", registry.TASKS),
    }
    for title, (group, table) in tables.items():
        kinds = registry.load_all(group, table, group.removeprefix("xfm.").rstrip("s"))
        jobs = {"task": "pretrain", "backbone": "finetune"}
        for start, job in jobs.items() if table is registry.TASKS else [("", "")]:
            own = {name: kind for name, kind in kinds.items() if not start or kind.starts_from == start}
            print(title + (f" of jobs/{job}.py" if job else ""), *kind_lines(own), "", sep="\n")
    print("`python jobs/embed.py --source.kind census --help` shows the settings of a kind.")
    return errors.OK


def _export(arguments: argparse.Namespace) -> int:
    from xfm.engine.export import export

    layers = None
    if arguments.layers != "all":
        try:
            layers = [int(layer) for layer in arguments.layers.split(",")]
        except ValueError:
            print(f"--layers {arguments.layers}: expected all, or numbers such as 0,6,12", file=sys.stderr)
            return errors.USAGE
    export(arguments.output, arguments.target, layers=layers, overwrite=arguments.overwrite)
    print(f"wrote {arguments.target}")
    return errors.OK


def _sync(arguments: argparse.Namespace) -> int:
    from xfm.engine.job import scratch_path
    from xfm.engine.session import SPOOL
    from xfm.track.mlflow import send_pending

    sent = send_pending(Path(scratch_path(arguments.output, SPOOL)))
    for line in sent.refused:
        print(f"not taken: {line}")
    print(f"sent to {sent.uri}; {sent.waiting} records still waiting")
    return errors.ENVIRONMENT if sent.waiting else errors.OK


def _doctor(arguments: argparse.Namespace) -> int:
    from xfm.doctor import screen
    from xfm.doctor.services import start_ray

    findings = screen.examine(screen.checks(os.environ, Path.cwd()))
    if arguments.start_ray:
        findings.append(screen.redacted(start_ray()))
    colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    print(screen.as_json(findings) if arguments.json else screen.screen(findings, colour=colour))
    return screen.exit_code(findings)


if __name__ == "__main__":
    sys.exit(main())
