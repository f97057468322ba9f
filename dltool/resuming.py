"""Open run folders: new ones and those that go on, locked before anything in them is written."""

from __future__ import annotations

import dataclasses
import os
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

from dltool import environment, files, ranks, runs, tracking
from dltool.console import Console
from dltool.errors import ConfigError, DataError
from dltool.guards import findings
from dltool.run_copies import RunCopy
from dltool.runs import Run

# options that change no result: they hold for one command and may differ at every resume
FREE = frozenset(
    {"workers", "save_every", "keep", "max_time", "on_nan", "guards", "without", "data_root"}
    | {"nproc", "track"}
)
CHANGED = "changed"

Config = TypeVar("Config")


def resumed(
    text: str,
    topic: str,
    config_class: type[Config],
    flags: Mapping[str, Any],
    *,
    allow_changed: bool,
    verb: str = runs.TRAIN,
) -> tuple[Path, Config, dict[str, str]]:
    """Return folder, settings and origins of the run that a user goes on with.

    Args:
        flags: the options given beside `--resume`. Those of `FREE` hold for this command; others
            are refused, or with `allow_changed` taken over.
        verb: the command that asks; it must be the one that made the run.

    Raises:
        CheckpointError: there is no such run.
        ConfigError: E207, an option differs that would change the result; E205, another command of
            the topic made the run.
    """
    folder = runs.locate(text, topic)
    _refuse_other_verb(folder, topic, verb)
    config, origins = runs.read_config(folder, config_class)
    changed = {
        name: value
        for name, value in flags.items()
        if getattr(config, name) != value and name not in FREE
    }
    if changed and not allow_changed:
        lines = [
            f"{name}: {getattr(config, name)} in the run, {value} given"
            for name, value in changed.items()
        ]
        raise ConfigError(
            "E207",
            f"a resumed run keeps its settings ({'; '.join(lines)})",
            cure="leave these options out, start a new run without --resume "
            f"{shlex.quote(str(folder))}, or give up exactness with --allow-changed",
        )
    origins.update(dict.fromkeys(changed, CHANGED))
    return folder, dataclasses.replace(cast(Any, config), **flags), origins


def _refuse_other_verb(folder: Path, topic: str, verb: str) -> None:
    facts = runs.read_json(folder)
    own = runs.verb_of(facts)
    if facts.get("topic") == topic and own != verb:
        raise ConfigError(
            "E205",
            f"{folder} is a run of {topic} {own}, not of {topic} {verb}",
            cure=f"dltool {topic} {own} --resume {shlex.quote(str(folder))}",
        )


def finished(folder: Path, topic: str, console: Console) -> dict[str, Any] | None:
    """Return the result of a run that is finished already, saying so; None where there is work.

    Raises:
        CheckpointError: the folder is no run of this topic.
    """
    facts = runs.open_run(folder, topic).facts()
    if facts.get("status") != "finished":
        return None
    console.note(f"{folder} is finished already; nothing was trained")
    return dict(facts["result"])


def check_data(run: Run, facts: Mapping[str, Any], *, is_new: bool) -> None:
    """Write down what a new run learns from; refuse to go on with other data.

    Args:
        facts: plain values for `data.json`, among them `fingerprint` and `counts`.

    Raises:
        DataError: E506, the data has changed and `--allow-changed` was not given.
    """
    if is_new:
        files.write_json_atomic(run.folder / "data.json", dict(facts))
        return
    before = runs.read_json(run.home, "data.json")
    if before.get("fingerprint") != facts["fingerprint"] and not run.changed:
        raise DataError(
            "E506",
            f"the data of {run.folder} has changed since it began",
            received=facts["counts"],
            expected=str(before.get("counts")),
            cure="bring the old data back, or start a new run",
        )


def is_changed(origins: Mapping[str, str]) -> bool:
    """Tell whether `--allow-changed` let a setting differ."""
    return CHANGED in origins.values()


@contextmanager
def opened(
    topic: str,
    name: str,
    config: Any,
    origins: Mapping[str, str],
    grade: str,
    *,
    out: Path | None,
    resume: Path | None,
    console: Console,
    verb: str = runs.TRAIN,
) -> Iterator[Run]:
    """Hold a run folder, new or to go on with; nothing in it is written before it is locked.

    Of several ranks the first one holds it; the others get a copy, see `run_copies`.

    Args:
        verb: the topic's command that trains; `dltool resume` and `reproduce` call it again.

    Raises:
        ConfigError: E208, another process is using it; E204, the new folder is taken.
        CheckpointError: the folder is no run of this topic.
        DltoolError: E101, training went on past a full disk and not all was saved.
    """
    by_one = _held(
        topic, name, config, origins, grade, out=out, resume=resume, console=console, verb=verb
    )
    if ranks.world().count > 1:
        by_one = _held_by_first(by_one, topic, _changed(config, origins))
    with by_one as run:
        yield run
    run.refuse_unsaved()


@contextmanager
def _held_by_first(
    by_one: AbstractContextManager[Run], topic: str, changed: dict[str, Any]
) -> Iterator[Run]:
    from dltool import team as teams  # brings torch

    team = teams.join()
    try:
        if team.is_first:
            with by_one as run:
                run.update(ranks=team.count)
                team.of_first({"folder": str(run.folder.resolve()), "facts": run.facts()})
                yield run
            return
        told = team.of_first(None)
        with tempfile.TemporaryDirectory(prefix="dltool-rank-") as scratch:
            run = RunCopy(Path(scratch), topic, changed=changed)
            run.original, run.known = Path(told["folder"]), told["facts"]
            yield run
    finally:
        teams.leave()


@contextmanager
def _held(
    topic: str,
    name: str,
    config: Any,
    origins: Mapping[str, str],
    grade: str,
    *,
    out: Path | None,
    resume: Path | None,
    console: Console,
    verb: str,
) -> Iterator[Run]:
    if resume is not None:
        run = runs.open_run(resume, topic)
        with runs.locked(resume):
            _take_over(run, config, origins, console)
            _keep_findings(run, console)
            with tracking.followed(run, dataclasses.asdict(config), console):
                yield run
        return
    folder = runs.claim(topic, name, out)
    with runs.locked(folder):
        run = runs.create(topic, name, folder, config, origins, grade, verb)
        _keep_findings(run, console)
        with tracking.followed(run, dataclasses.asdict(config), console):
            yield run


def _changed(config: Any, origins: Mapping[str, str]) -> dict[str, Any]:
    return {name: getattr(config, name) for name in origins if origins[name] == CHANGED}


def _keep_findings(run: Run, console: Console) -> None:
    """Write down what guards found before the start."""
    if console.findings:
        files.write_json_atomic(run.folder / findings.FILE, console.findings)


def _take_over(run: Run, config: Any, origins: Mapping[str, str], console: Console) -> None:
    for folder in (run.folder, run.folder / "checkpoints"):
        for path in files.sweep_temporaries(folder):
            console.note(f"removed {path.name}, which a killed process left half-written")
    run.changed = _changed(config, origins)
    before = runs.read_json(run.folder, "environment.json")
    different = environment.differences(before, environment.environment())
    if different:
        names = ", ".join(f"{each['name']} {each['before']} -> {each['now']}" for each in different)
        console.warn(f"the environment has changed since the run began ({names})")
    history = [*run.facts().get("resumed", []), {"time": runs.now(), "environment": different}]
    run.update(status="running", process=os.getpid(), resumed=history)
