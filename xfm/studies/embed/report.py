"""The report of an embed job: how much was done, how fast, and what was refused."""

from collections.abc import Mapping, Sequence
from typing import Any

from xfm.core.report import Report, Table


def embed_report(
    run: Mapping[str, Any],
    genes: Mapping[str, Any],
    result: Any,
    layers: Sequence[int],
    pools: Sequence[str],
) -> Report:
    """What an `embed` left behind.

    Args:
        run: content of run.json.
        genes: how the source's genes meet the vocabulary; empty where each file has its own.
        result: the stage's rows, seconds and refusals (`engine.stage.StageResult`).
        layers, pools: what was kept.
    """
    rate = result.computed / result.wall_s if result.wall_s else 0.0
    refused = sum(result.refused.values())
    headline = (
        f"{result.rows:,} rows have {len(layers)} layers x {len(pools)} poolings each"
        + (f"; {refused:,} rows or files were refused" if refused else "")
        + "."
    )
    numbers: dict[str, Any] = {"rows": result.rows, "layers": len(layers), "poolings": len(pools)}
    tables = []
    if result.computed:
        numbers |= {"rows computed by this start": result.computed, "seconds": round(result.wall_s, 1)}
        numbers["rows per second, start of workers included"] = round(rate, 2)
        rows = [[stage, round(s, 2), round(1000 * s / result.computed, 3)] for stage, s in result.seconds.items()]
        tables.append(
            Table(
                name="seconds",
                caption="Where the time went, summed over workers",
                columns=["stage", "seconds", "ms per row"],
                rows=rows,
                note="read includes tokenising; both run beside the model, in other processes.",
            )
        )
    numbers |= _truncated(result.notes)
    matches = [dict(genes)] if genes else [match for note in result.notes for match in note.get("genes", [])]
    if matches:
        tables.append(
            Table(
                name="genes",
                caption="Genes of the data that the model's vocabulary knows",
                columns=["identifiers", "known", "genes", "sharing a token"],
                rows=[[m["column"], m["matched"], m["genes"], m["repeated"]] for m in matches[:20]],
            )
        )
    recipe = run["recipe"]
    return Report(
        title="Layer embeddings",
        job="embed",
        headline=headline,
        numbers=numbers,
        tables=tables,
        provenance={
            "weights": recipe["weights"],
            "checkpoint": run.get("checkpoint", {}),
            "data": recipe["data"],
            "versions": run["versions"],
        },
        refused=dict(result.refused),
    )


def _truncated(notes: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Rows cut at the model's length, where the tokenizer counts them: of this start, shard by shard."""
    counts: dict[int, dict[str, int]] = {}
    for note in notes:
        if "truncated" in note:
            counts.setdefault(note["max_length"], {}).update(note["truncated"])
    return {f"rows cut at {length:,} tokens": sum(of_shard.values()) for length, of_shard in counts.items()}
