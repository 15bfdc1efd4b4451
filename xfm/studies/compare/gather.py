"""OUTPUTs to compare: named, matched by a pattern, or found in MLflow; each read whole, or listed with its reason."""

import glob
import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import MANIFEST, REPORT, RUN, Receipt, Refusal, parse
from xfm.core.storage import Storage, open_storage
from xfm.engine.job import is_local, scratch_path
from xfm.engine.resume_check import earlier_run
from xfm.engine.session import SPOOL
from xfm.judging.row_noun import ROWS
from xfm.studies.compare.finished_run import (
    Run,
    RunRefused,
    StoredScore,
    choice_of,
    chooses_of,
    data_digest,
    design_of,
    family_of,
    model_of,
    read_scores,
    reported_scores,
)
from xfm.track.lineage import data_name, weights_digest
from xfm.track.query import Tracked, TrackedRun, tracked_as
from xfm.track.server import tracking_uri

logger = logging.getLogger(__name__)

SCORES = "scores.parquet"
NO_SCORES = {
    "embed": "holds embeddings, which no metric judges yet: python jobs/evaluate.py --embeddings {place}",
    "compare": "is a leaderboard itself: name the runs it compares",
}
SECONDS = ("training seconds", "train seconds", "seconds")  # names of a report's number, the best one first


@dataclass(frozen=True, slots=True)
class Gathered:
    """What there is to compare."""

    runs: list[Run]  # each recipe once
    refused: list[Refusal]  # runs that cannot be used, with the reason
    notes: list[str]  # what a reader should know of the gathering


def gather(words: Sequence[str], query: str | None, metrics: Sequence[str], output: str) -> Gathered:
    """Reads everything that is asked for, by `runs`, `query` and `metrics` of `Leaderboards`, but for the comparison's
    own OUTPUT, which is no run of it.

    Raises:
        Refused: NO_RUNS, NOT_AN_OUTPUT, or NOTHING_TO_COMPARE where every run is refused.
        EnvironmentProblem: a place that cannot be read.
    """
    if not words and not query:
        raise Refused("NO_RUNS", "nothing to compare: give --runs runs/a,runs/b (patterns such as 'runs/*' work), or "
                      "--query \"experiment like 'xfm/evaluate/%'\"")  # fmt: skip
    found = Gathered([], [], [])
    for name, place, is_matched in _places(words, output):
        _add(found, name, partial(_read_named, name, place, metrics), is_matched=is_matched)
    if query:
        store = Tracked(tracking_uri(output))
        for tracked in store.search(query):
            name = _shown(tracked.output) if tracked.output else tracked.name
            _add(found, name, partial(_read_tracked, store, tracked, name, metrics), is_matched=True)
    if not found.runs:
        why = "; ".join(f"{refusal.key}: {refusal.code}, {refusal.message}" for refusal in found.refused)
        raise Refused("NOTHING_TO_COMPARE", f"no run can be compared. {why or 'The query matches none'}")
    return found


def _read_named(name: str, place: str, metrics: Sequence[str]) -> Run:
    if is_local(place) and Path(place.removeprefix("file://")).is_file():
        raise Refused("NOT_AN_OUTPUT", f"{name} is a file; an OUTPUT is a folder.{_nearby(place)}")
    return read_run(name, open_storage(place), metrics, tracked=tracked_as(scratch_path(place, SPOOL)))


def read_run(
    name: str, storage: Storage, metrics: Sequence[str] = ("primary",), *, place: str = "", tracked: str = ""
) -> Run:
    """One OUTPUT; `place` is what to call the place of a copy, `tracked` its MLflow run.

    Raises:
        Refused: NOT_AN_OUTPUT.
        RunRefused: UNFINISHED, NO_SCORES, BAD_SCORES or BAD_REPORT.
    """
    content = storage.read(RUN) if storage.names() else None
    if content is None:
        raise Refused("NOT_AN_OUTPUT", f"{name} is no OUTPUT of a job: it has no {RUN}.{_nearby(name)}")
    place = place or storage.place
    run = earlier_run(content, place)
    recipe, job = run["recipe"], str(run.get("job", ""))
    if (text := storage.read(REPORT)) is None:
        raise RunRefused("UNFINISHED", f"{place} has no {REPORT}: its {job} job runs, was killed or failed (start "
                         f"{run.get('attempts', 1)}); the same command continues it")  # fmt: skip
    if job in NO_SCORES:
        raise RunRefused("NO_SCORES", f"{place} {NO_SCORES[job].format(place=name)}")
    report = _report(text, place)
    data = storage.read(SCORES)
    if data is None and job == "evaluate":
        raise RunRefused("BAD_SCORES", f"{place} has a {REPORT} and no {SCORES}: run its command again")
    scores, known = (
        reported_scores(job, report["numbers"], metrics) if data is None else read_scores(data, place, metrics)
    )
    if not known:
        raise RunRefused("NO_SCORES", f"{place}: a {job} job whose report states no number")
    origin, config = run.get("origin") or {}, recipe.get("config") or {}
    seed = int(config.get("seed", 0))
    return Run(
        name=name,
        place=place,
        job=job,
        fingerprint=str(run["fingerprint"]),
        family=family_of(recipe),
        seed=seed,
        data=data_digest(run),
        data_by_label=dict(run.get("cells_by_label") or {}),
        design=design_of(config),
        split=str(recipe.get("split") or f"seed {seed}"),
        data_name=data_name(run),
        model=str(origin.get("model") or model_of(run)),
        weights=weights_digest(recipe.get("weights") or origin.get("weights") or {}),
        scores=scores,
        choice=choice_of(report),
        seconds=_seconds(storage.read(MANIFEST), report["numbers"], scores),
        metrics=known,
        chooses=chooses_of(config, known),
        noun=str(run.get("noun") or recipe.get("noun") or ROWS),
        results=hashlib.sha256(data).hexdigest() if data is not None else "",
        tracked=tracked,
    )


def _report(text: bytes, place: str) -> dict[str, Any]:
    try:
        report = json.loads(text)
    except ValueError as problem:
        raise RunRefused("BAD_REPORT", f"{place}/{REPORT} is no JSON: {problem}") from problem
    if not isinstance(report, dict) or not isinstance(report.get("numbers"), dict):
        raise RunRefused("BAD_REPORT", f"{place}/{REPORT} has no numbers: it was not written by a job of xfm")
    return report


def _seconds(manifest: bytes | None, numbers: Mapping[str, Any], scores: Sequence[StoredScore]) -> dict[str, float]:
    """Of each representation, where the manifest has parts of their names; else under "" of the whole job."""
    parts = {receipt.key: receipt.seconds for receipt in parse(manifest, Receipt, MANIFEST)}
    if own := {score.representation for score in scores} & parts.keys():
        return {name: parts[name] for name in own}
    stated = next((float(numbers[name]) for name in SECONDS if isinstance(numbers.get(name), int | float)), None)
    total = stated if stated is not None or not parts else sum(parts.values())
    return {} if total is None else {"": total}


def _places(words: Sequence[str], output: str) -> Iterator[tuple[str, str, bool]]:
    """(name, place, whether a pattern matched it) of everything asked for, in order."""
    for word in words:
        path = Path(word).expanduser()
        if not is_local(word) or not glob.has_magic(word) or path.exists():
            yield word, str(path) if is_local(word) and "://" not in word else word, False
            continue
        matches = [Path(match) for match in sorted(glob.glob(str(path), recursive=True))]
        outputs = [match for match in matches if _is_output(match) and not _is_output(match.absolute().parent)]
        if not outputs:
            raise Refused("NO_RUNS", f"--runs {word}: matches {len(matches)} paths and no OUTPUT of a job."
                          f"{_nearby(str(path))}")  # fmt: skip
        for match in outputs:
            if match.absolute() != Path(output).absolute():
                yield str(match), str(match), True


def _is_output(folder: Path) -> bool:
    return (folder / RUN).is_file()


def _nearby(name: str) -> str:
    """OUTPUTs in a local folder, or beside it."""
    if not is_local(name):
        return ""
    path = Path(name.removeprefix("file://"))
    if inside := _outputs_in(path):
        return f" OUTPUTs in it: {', '.join(inside[:10])}; try {path}/*"
    beside = _outputs_in(path.parent)
    near = get_close_matches(path.name, [Path(other).name for other in beside], n=1, cutoff=0.5)
    hint = f" Did you mean {path.parent / near[0]}?" if near else ""
    there = f"OUTPUTs beside it: {', '.join(beside[:10])}" if beside else "There is no OUTPUT beside it either"
    return f"{hint} {there}"


def _outputs_in(folder: Path) -> list[str]:
    return sorted(str(entry) for entry in folder.iterdir() if _is_output(entry)) if folder.is_dir() else []


def _read_tracked(store: Tracked, run: TrackedRun, name: str, metrics: Sequence[str]) -> Run:
    """From its OUTPUT, if that is there and still this run's; else from the artifacts that MLflow keeps."""
    why = "it names no OUTPUT"
    if run.output:
        try:
            read = read_run(name, open_storage(run.output), metrics, tracked=run.link)
            if run.fingerprint in ("", read.fingerprint):
                return read
            why = f"{run.output} holds another run by now"
        except RunRefused:
            raise
        except (Refused, EnvironmentProblem) as problem:
            why = f"its OUTPUT cannot be read ({problem})"
    with tempfile.TemporaryDirectory() as folder:
        there = store.fetch(run.run, (RUN, REPORT, SCORES), Path(folder))
        if RUN not in there:
            raise RunRefused("UNREACHABLE", f"MLflow run {run.run}: {why}, and MLflow keeps no {RUN} of it")
        logger.info("%s: %s; read from MLflow", name, why)
        place = run.output or f"MLflow run {run.run}"
        return read_run(name, open_storage(folder), metrics, place=place, tracked=run.link)


def _shown(place: str) -> str:
    """Relative where that is shorter."""
    path = Path(place)
    return str(path.relative_to(Path.cwd())) if is_local(place) and path.is_relative_to(Path.cwd()) else place


def _add(found: Gathered, name: str, read: Callable[[], Run], *, is_matched: bool) -> None:
    """One more run, or why not. What a pattern or a query happens to match and is of another kind is only noted."""
    try:
        run = read()
    except RunRefused as problem:
        if is_matched and problem.code == "NO_SCORES":
            found.notes.append(f"Left out: {problem.message}.")
        elif name not in {refusal.key for refusal in found.refused}:
            found.refused.append(Refusal(name, name, "read", problem.code, problem.message))
        return
    known = next((other for other in found.runs if other.fingerprint == run.fingerprint), None)
    if known is None:
        found.runs.append(run)
    elif run.place != known.place or name != known.name:
        other = ", though their scores differ" if known.results != run.results else ""
        found.notes.append(f"{name} and {known.name} are the same run ({run.fingerprint[:12]}): it counts once{other}.")
    else:
        found.notes.append(f"{name} was given twice and counts once.")
