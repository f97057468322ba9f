"""Several runs in one table: what each model is, how good it is, how fast it learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dltool import runs
from dltool.console import Console, table
from dltool.errors import CheckpointError
from dltool_seq2seq.config import TrainConfig

HEADER = ("run", "model", "attention", "parameters", "exact match", "BLEU", "pairs/s", "seconds")


def finished_runs() -> list[Path]:
    """Return the finished runs of this topic below the run folder of the working folder.

    Raises:
        CheckpointError: E511, there is none.
    """
    found = [
        Path(facts["folder"])
        for facts in runs.listed(runs.ROOT)
        if facts.get("topic") == "seq2seq" and facts.get("status") == "finished"
    ]
    if not found:
        raise CheckpointError(
            "E511",
            f"there is no finished run below {runs.ROOT / 'seq2seq'}",
            cure="name run folders, or train some: dltool seq2seq train --model lstm",
        )
    return found


def compare_runs(folders: Sequence[Path], console: Console) -> None:
    """Print one row for each finished run, the best exact match first.

    Raises:
        CheckpointError: E511, a folder is no finished run of this topic.
    """
    rows = sorted(map(_row, folders), key=lambda row: -row["exact_match"]["value"])
    tasks = {row["task"] for row in rows}
    if len(tasks) > 1:
        console.warn(f"the runs are of different tasks: {', '.join(sorted(tasks))}")
    shown = [
        [
            Path(row["run"]).name,
            row["model"],
            row["attention"],
            row["parameters"],
            f"{row['exact_match']['value']:.4f}",
            f"{row['bleu']['value']:.2f}" if row["bleu"] else "–",
            round(row["pairs_per_second"]),
            round(row["training_seconds"], 1),
        ]
        for row in rows
    ]
    console.result({"runs": rows}, table(shown, HEADER))


def _row(folder: Path) -> dict[str, Any]:
    facts = runs.open_run(folder, "seq2seq").facts()
    if facts.get("status") != "finished":
        raise CheckpointError(
            "E511",
            f"{folder} is not finished",
            cure=f"dltool seq2seq train --resume {folder}",
        )
    config, _ = runs.read_config(folder, TrainConfig)
    result = facts["result"]
    is_transformer = config.model == "transformer"
    kept = ("exact_match", "parameters", "training_seconds", "pairs_per_second", "best_epoch")
    return {
        "run": str(folder),
        "task": config.task,
        "model": config.model,
        "attention": f"{config.heads} heads" if is_transformer else config.attention,
        **{key: result[key] for key in kept},
        "bleu": result.get("bleu"),
    }
