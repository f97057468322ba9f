"""`dltool explain`: what the code of an error or a guard means, and what cures it."""

from __future__ import annotations

from typing import Annotated

import typer

from dltool import options
from dltool.console import Console, table
from dltool.errors import CAUSES, CURES, EXIT_CODES, ConfigError, closest
from dltool.guards.catalogue import STAGES, guards

app = typer.Typer(help="Say what a code means.", context_settings=options.HELP)


@app.command()
def explain(
    code: Annotated[
        str, typer.Argument(metavar="[CODE]", help="Such as E503 or G-P09; without one: all.")
    ] = "",
    json: options.JsonOption = False,
) -> None:
    """Say what the code of an error or a guard means, its usual cause and its cure."""
    console = Console("explain", json=json)
    if not code:
        _list(console)
        return
    wanted = code.strip().upper()
    if wanted in CAUSES:
        _error(wanted, console)
    elif wanted in guards():
        _guard(wanted, console)
    elif wanted in (own := _of_topics()):
        _topics_guard(wanted, *own[wanted], console)
    else:
        known = [*CAUSES, *guards(), *own]
        near = closest(wanted, known)
        raise ConfigError(
            "E206",
            f"there is no code {code!r}" + (f"; did you mean {near}?" if near else ""),
            expected="a code such as E503 or G-P09",
            cure="dltool explain, for the list",
        )


def _exit_code(code: str) -> int:
    """Return the exit code that an error's first digit stands for."""
    digits = int(code[1:])
    return digits if digits in (130, 143) else digits // 100


def _error(code: str, console: Console) -> None:
    number = _exit_code(code)
    data = {
        "code": code,
        "kind": "error",
        "cause": CAUSES[code],
        "cure": CURES[code],
        "exit_code": number,
    }
    text = f"{code}: {CAUSES[code]}\ncure  {CURES[code]}\nexit  {number} ({EXIT_CODES[number]})"
    console.result(data, text)


def _guard(code: str, console: Console) -> None:
    guard = guards()[code]
    worst = {"fail": "stops a run before it starts", "warn": "warns"}[guard.severity]
    rows = [
        ("speaks", guard.limit),
        ("cause", guard.cause),
        ("cure", guard.cure),
        ("looks", f"{STAGES[guard.stage]}; at its worst it {worst}"),
        ("off", f'--without "{code}: your reason"'),
    ]
    lines = "\n".join(f"{name:<7} {text}" for name, text in rows)
    console.result({"kind": "guard", **guard.as_dict()}, f"{code}: {guard.title}\n{lines}")


def _of_topics() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the guards that installed topics bring, each with its topic and its texts."""
    from dltool import plugins

    return {
        code: (topic.name, texts)
        for topic in plugins.discover()
        for code, texts in topic.guards
        if len(texts) == 3
    }


def _topics_guard(code: str, topic: str, texts: tuple[str, ...], console: Console) -> None:
    title, cause, cure = texts
    data = {"kind": "guard", "code": code, "topic": topic, "title": title}
    text = f"{code}: {title}\ncause   {cause}\ncure    {cure}\nlooks   before dltool {topic} train"
    console.result({**data, "cause": cause, "cure": cure}, text)


def _list(console: Console) -> None:
    known = guards().values()
    rows = [[code, "error", CAUSES[code]] for code in CAUSES]
    rows += [[guard.code, guard.severity, guard.title] for guard in known]
    topics = _of_topics()
    rows += [[code, topic, texts[0]] for code, (topic, texts) in topics.items()]
    data = {
        "errors": CAUSES,
        "guards": [guard.as_dict() for guard in known],
        "of_topics": {code: [topic, *texts] for code, (topic, texts) in topics.items()},
    }
    console.result(data, table(rows, ["code", "kind", "meaning"]))
