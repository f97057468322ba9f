"""Which curves are drawn, and what each is called."""

from __future__ import annotations

from collections.abc import Sequence

from dltool.history import log, values
from dltool.history.folders import PastRun
from dltool.history.groups import Band, Group, band

# logged beside the metrics, and no curve that anybody asks for unasked
NO_METRIC = frozenset({"epoch", "step", "seconds", "lr", "skipped", "pass"})
SPLITS = {"train": "training", "val": "validation", "test": "test"}
MOST_PANELS = 4

Panels = dict[str, list[Band]]


def of_groups(groups: Sequence[Group], names: Sequence[str]) -> Panels:
    """Return for each metric one curve a group: mean and deviation over its seeds."""
    panels: Panels = {name: [] for name in names}
    for group in groups:
        logged = [log.curves(run.folder, names) for run in group.runs]
        for name in names:
            found = band(group.label, [each[name] for each in logged if name in each])
            if found is not None:
                panels[name].append(found)
    return {name: bands for name, bands in panels.items() if bands}


def to_compare(groups: Sequence[Group], name: str) -> str | None:
    """Return the metric itself where it was logged, else the validation metric, if any."""
    logged = {key for group in groups for key in group.runs[0].record}
    return name if name in logged else values.default_metric(logged)


def of_runs(runs: Sequence[PastRun], names: Sequence[str]) -> Panels:
    """Return the curves of each run; a single run has training and validation in one panel.

    Args:
        names: metrics; without any, those that were logged in the runs.
    """
    wanted = list(names) or _logged(runs)
    labels = names_of(runs)
    panels: Panels = {}
    for label, run in zip(labels, runs, strict=True):
        logged = log.curves(run.folder, wanted)
        for name in (each for each in wanted if each in logged):
            kind, split = _parts(name) if len(runs) == 1 else (name, "")
            found = band(split or label, [logged[name]])
            if found is not None:
                panels.setdefault(kind, []).append(found)
    return panels if names else dict(list(panels.items())[:MOST_PANELS])


def _logged(runs: Sequence[PastRun]) -> list[str]:
    found = dict.fromkeys(
        name
        for run in runs
        for name in log.numeric_names(run.record)
        if name not in NO_METRIC and not name.endswith("per_second")
    )
    # scores, losses, what is neither; validation before training
    rank = {True: 0, False: 1, None: 2}
    return sorted(
        found, key=lambda name: (rank[values.higher_is_better(name)], name.startswith("train"))
    )


def _parts(name: str) -> tuple[str, str]:
    split, _, kind = name.partition("_")
    return (kind, SPLITS[split]) if kind and split in SPLITS else (name, name)


def names_of(runs: Sequence[PastRun]) -> list[str]:
    """Return a short name for each run: its folder's, or the whole path where two are alike."""
    short = [run.folder.name or str(run.folder) for run in runs]
    return short if len(set(short)) == len(short) else [str(run.folder) for run in runs]
