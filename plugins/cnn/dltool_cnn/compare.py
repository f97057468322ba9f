"""Train models and settings with several seeds, and put their figures side by side.

The runs are those of `dltool sweep`, ordinary ones in one folder; here is what an image classifier
is compared by. Validation accuracy chooses; the test figures stand beside it and choose nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dltool import asking, files, runs, sweep_processes, sweep_scores, sweep_sources, sweeps, tree
from dltool.console import Console, table
from dltool.errors import ConfigError
from dltool.history import folders
from dltool.sweeps import Member, Settings, Sweep

RESULT = "compare.json"
PICTURE = "compare.png"
CHOOSES = "val_accuracy"
FIGURES = (CHOOSES, "test_accuracy", "training_seconds", "images_per_second", "parameters")
# of the sweep itself, with where to give it instead
TAKEN = {"--seed": "--seeds N", "--out": "--out of compare", "--model": "--models A,B"}


@dataclass(frozen=True)
class Row:
    """One combination of settings: the figures of its finished runs by name."""

    settings: Settings
    folders: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Mapping[str, tuple[float, ...]]
    failed: int

    def mean(self, name: str) -> float:
        """Return the mean over seeds; minus infinity without a run."""
        return statistics.fmean(self.values[name]) if self.values[name] else -math.inf

    def deviation(self, name: str) -> float | None:
        """Return the sample deviation over seeds; None below two."""
        values = self.values[name]
        return statistics.stdev(values) if len(values) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        figures = {
            name: {
                "mean": self.mean(name) if values else None,
                "sd": self.deviation(name),
                "values": list(values),
            }
            for name, values in self.values.items()
        }
        return {
            "set": dict(self.settings),
            "runs": list(self.folders),
            "seeds": list(self.seeds),
            "failed": self.failed,
            **figures,
        }


def compare(
    models: str,
    sets: Sequence[str],
    fixed: Sequence[str],
    *,
    seeds: int,
    jobs: int,
    out: Path | None,
    console: Console,
) -> None:
    """Train what is missing of every combination and seed, and print and draw the comparison.

    Args:
        models: names with commas between them, or nothing.
        sets: further settings with their values, as `dropout=0,0.5`.
        fixed: options of every training.

    Raises:
        ConfigError: whatever a training refuses, before the first one begins.
        DltoolError: no run came to its end.
    """
    asked = _asked(models, sets, fixed, seeds)
    folder = out or runs.ROOT / f"cnn-compare-{sweeps.fingerprint(asked, 'grid', ())}"
    asked = Sweep(asked.words, asked.parameters, asked.axes, asked.fixed, asked.seeds, folder)
    command = tree.command(*asked.words)
    for settings in asked.settings():
        asking.look(command, asked.words[1], asked.options(settings))
    sweeps.open_folder(asked, "grid", ())
    with runs.locked(folder):
        source = sweep_sources.Grid(asked)
        console.note(f"{source.total} runs in {folder}, {jobs} at a time")
        outcomes = sweep_processes.run_all(source, jobs, console, _told)
        failed = [each for each in outcomes if each.code]
        for each in failed:
            console.warn(f"{each.member.name} failed (exit {each.code}): {each.told}")
        if len(failed) == len(outcomes):
            raise sweeps.failure(failed[0].code, failed[0].told)
        rows = [row(settings, asked.members(settings)) for settings in asked.settings()]
        rows.sort(key=lambda each: -each.mean(CHOOSES))
        _tell(asked, rows, console)


def _asked(models: str, sets: Sequence[str], fixed: Sequence[str], seeds: int) -> Sweep:
    """Return the runs that are asked for.

    Raises:
        ConfigError: a setting is not known or given twice, or there is nothing to compare.
    """
    for word in fixed:
        flag = word.partition("=")[0]
        if flag in TAKEN and not (flag == "--model" and not models):
            raise ConfigError(
                "E205", f"compare decides on {flag} itself", cure=f"use {TAKEN[flag]}"
            )
    parameters = tree.parameters(tree.command("cnn", "train"))
    texts = [f"model={models}"] if models else []
    axes = [sweeps.axis(text, parameters) for text in [*texts, *sets]]
    names = [parameter.name for parameter, _ in axes]
    double = next((name for name in names if names.count(name) > 1 or name == "seed"), "")
    if double:
        raise ConfigError("E205", f"{double} is given twice", cure="give each setting once")
    if all(len(values) < 2 for _, values in axes):
        raise ConfigError(
            "E205",
            "there is nothing to compare",
            expected="two models, or two values of a setting",
            cure="use --models linear,mlp or --set dropout=0,0.5",
        )
    asked = Sweep(
        words=("cnn", "train"),
        parameters={each.name: each for each in parameters},
        axes={parameter.name: values for parameter, values in axes},
        fixed=tuple(fixed),
        seeds=tuple(range(seeds)),
    )
    sweeps.refuse_too_many(len(asked.settings()) * seeds)
    return asked


def _told(outcome: sweep_processes.Outcome) -> str:
    if outcome.code:
        return outcome.told
    value = sweep_scores.score(outcome.member.folder, sweep_scores.Metric(CHOOSES, True))
    return "" if value is None else f"validation {value:.4f}"


def row(settings: Settings, members: Sequence[Member]) -> Row:
    """Gather the figures of the finished runs of one combination."""
    good = [each for each in members if each.state() == "finished"]
    found = [folders.at(each.folder).scores for each in good]
    values = {
        name: tuple(figures[name].value for figures in found if name in figures) for name in FIGURES
    }
    return Row(
        settings,
        tuple(str(each.folder) for each in good),
        tuple(each.seed or 0 for each in good),
        values,
        len(members) - len(good),
    )


def differences(best: Row, other: Row) -> dict[str, Any]:
    """Return how much lower another row's validation accuracy is, seed by seed.

    Runs of one seed split the data alike, so the difference within a seed is free of what the
    split does; the interval is Student's, 95 %.
    """
    from dltool.metrics import mean_interval

    pairs = [dict(zip(each.seeds, each.values[CHOOSES], strict=True)) for each in (best, other)]
    gaps = [pairs[0][seed] - pairs[1][seed] for seed in pairs[0] if seed in pairs[1]]
    if not gaps:
        return {"mean": None, "low": None, "high": None, "n": 0}
    mean, low, high = mean_interval(gaps)
    return {"mean": mean, "low": low, "high": high, "n": len(gaps)}


def _tell(asked: Sweep, rows: Sequence[Row], console: Console) -> None:
    """Print the table, write it and its picture into the folder."""
    from dltool_cnn.compare_picture import draw_comparison

    varied = [name for name, values in asked.axes.items() if len(values) > 1]
    best = rows[0]
    behind = [differences(best, each) for each in rows]
    listed = [
        {**each.as_dict(), "behind_best": gap} for each, gap in zip(rows, behind, strict=True)
    ]
    picture = asked.folder / PICTURE
    labels = [_label(each.settings, varied) for each in rows]
    draw_comparison(labels, rows, picture, f"cnn: {', '.join(varied)}")
    result = {
        "folder": str(asked.folder),
        "axes": {name: list(values) for name, values in asked.axes.items()},
        "seeds": len(asked.seeds),
        "chosen_by": CHOOSES,
        "best": dict(best.settings),
        "command": asked.command(best.settings),
        "rows": listed,
        "picture": str(picture),
    }
    files.write_json_atomic(asked.folder / RESULT, result)
    text = f"{_table(rows, behind, varied)}\n{picture}"
    close = [gap for gap in behind[1:] if gap["low"] is None or gap["low"] <= 0]
    if close:
        text += (
            f"\n{len(close)} of the others cannot be told from the best by {len(asked.seeds)} seeds"
        )
    console.result(result, text)
    console.hint(asked.command(best.settings))


def _label(settings: Settings, varied: Sequence[str]) -> str:
    shown = [(name, value) for name, value in settings if name in varied]
    return shown[0][1] if len(shown) == 1 else ", ".join(f"{k} {v}" for k, v in shown)


def _table(rows: Sequence[Row], behind: Sequence[Mapping[str, Any]], varied: Sequence[str]) -> str:
    header = (*varied, "runs", "validation", "behind best", "test", "parameters", "seconds")
    cells = []
    for each, gap in zip(rows, behind, strict=True):
        settings = dict(each.settings)
        count = int(each.mean("parameters")) if each.folders else 0
        cells.append(
            [
                *(settings[name] for name in varied),
                len(each.folders),
                _shown(each, CHOOSES),
                _interval(gap) if each is not rows[0] else "",
                _shown(each, "test_accuracy"),
                f"{count:,}",
                _shown(each, "training_seconds", 1),
            ]
        )
    return table(cells, header)


def _shown(each: Row, name: str, places: int = 4) -> str:
    if not each.values[name]:
        return "failed"
    deviation = each.deviation(name)
    spread = "" if deviation is None else f" ± {deviation:.{places}f}"
    return f"{each.mean(name):.{places}f}{spread}"


def _interval(gap: Mapping[str, Any]) -> str:
    if gap["mean"] is None:
        return ""
    if gap["low"] is None:
        return f"{gap['mean']:.4f}"
    return f"{gap['mean']:.4f} ({gap['low']:.4f} to {gap['high']:.4f})"
